"""Nothing ends without a record and an event: also what waited, came last, or never began."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from asyncz import BaseExecutor, NativeAsyncIOScheduler, Retry, RunState, Task, TaskExecutionEvent
from asyncz.events.constants import TASK_CANCELLED, TASK_ERROR, TASK_EXECUTED, TASK_RETRYING
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT
from .test_attempts import START, after, the_run
from .test_reactions import settled


@pytest.mark.parametrize("delivery", ["at_least_once", "at_most_once"])
async def test_the_run_of_a_shutdown_task_is_told_of(
    make_scheduler: MakeScheduler, clock: VirtualClock, delivery: Any
) -> None:
    async with make_scheduler() as scheduler:
        await scheduler.aadd_task(
            jobs.returns, "shutdown", args=[7], id="a", on_success=jobs.notice, delivery=delivery
        )
    ((_, run),) = jobs.REACTIONS
    assert (run.state, run.result, run.started_at) == (RunState.SUCCEEDED, 7, START)


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_the_run_of_a_shutdown_task_is_kept(make_scheduler: MakeScheduler) -> None:
    async with make_scheduler() as scheduler:
        await scheduler.aadd_task(jobs.returns, "shutdown", args=[7], id="a")
        await scheduler.aadd_task(jobs.refuses, "shutdown", id="b")
    async with make_scheduler() as scheduler:
        assert await scheduler.aget_tasks() == []
        run = await the_run(scheduler)
        assert (run.state, run.result, run.scheduled_time) == (RunState.SUCCEEDED, 7, START)
        assert (await the_run(scheduler, "b")).error == "ValueError: on purpose"


@pytest.mark.parametrize("how", ["cancelled", "deleted", "all deleted"])
async def test_what_waits_for_an_attempt_ends_at_once_and_an_event_says_so(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, how: str
) -> None:
    told: list[Any] = []
    scheduler.add_listener(told.append, TASK_CANCELLED)
    policy = Retry(wait=366 * 86_400)
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=1, start_at=START, args=[9], id="a", retry=policy
    )
    await clock.advance(seconds=1)
    waiting = await the_run(scheduler)
    assert waiting.state is RunState.RETRYING
    if how == "cancelled":
        await scheduler.acancel_run(waiting.id, by="ann")
    elif how == "deleted":
        await scheduler.adelete_task("a")
    else:
        await scheduler.aremove_all_tasks()
    run = await scheduler.await_run(waiting.id, timeout=1)
    assert run.state is RunState.CANCELLED
    assert ("by ann" if how == "cancelled" else "its task") in (run.reason or "")
    (event,) = told
    assert (event.task_id, event.scheduled_run_time) == ("a", START)


class Refusing(BaseExecutor):
    """Takes nothing."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        raise OSError("no room")


class Documented(BaseExecutor):
    """Says how runs ended by `run_task_success`, a moment later."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        error = OSError("no answer") if "bad" in str(task.id) else None
        ended = [
            TaskExecutionEvent(
                code=TASK_ERROR if error else TASK_EXECUTED,
                task_id=str(task.id),
                store=task.store_alias,
                scheduled_run_time=at,
                return_value=None if error else "done",
                exception=error,
            )
            for at in run_times
        ]
        loop = self.host.engine_loop
        loop.call_soon(self.run_task_success, str(task.id), ended, task.store_alias)


class Broken(BaseExecutor):
    """Says that it could not run it."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        try:
            raise OSError("out of order")
        except OSError:
            self.run_task_error(str(task.id), task.store_alias)


@pytest.mark.parametrize("kind", [Refusing, Documented, Broken])
async def test_what_an_executor_of_somebodys_own_could_not_run_is_tried_again(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, kind: type[BaseExecutor]
) -> None:
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_RETRYING | TASK_ERROR)
    await scheduler.aadd_executor(kind(), "own")
    await scheduler.aadd_task(
        jobs.returns, args=[1], id="bad", executor="own", retry=Retry(attempts=2, wait=10),
        on_failure=jobs.notice,
    )  # fmt: skip
    await clock.advance(seconds=1)
    run = await the_run(scheduler, "bad")
    assert (run.state, run.retry_at) == (RunState.RETRYING, after(10))
    await clock.advance(seconds=10)
    await settled(1)
    run = await the_run(scheduler, "bad")
    assert (run.state, run.attempt) == (RunState.FAILED, 2)
    assert (run.error or "").startswith("OSError: ")
    assert [told.state for _, told in jobs.REACTIONS] == [RunState.FAILED]
    assert codes == [TASK_RETRYING, TASK_ERROR]
    assert not scheduler.instances


async def test_what_it_could_run_has_its_result_and_its_reaction(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_executor(Documented(), "own")
    await scheduler.aadd_task(
        jobs.returns, args=[1], id="good", executor="own", on_success=jobs.notice
    )
    await clock.advance(seconds=1)
    await settled(1)
    run = await the_run(scheduler, "good")
    assert (run.state, run.result) == (RunState.SUCCEEDED, "done")
