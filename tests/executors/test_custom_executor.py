"""Executors of others, in the style of upstream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from asyncz import BaseExecutor, NativeAsyncIOScheduler, Task, TaskExecutionEvent
from asyncz.events.constants import TASK_EXECUTED
from asyncz.exceptions import SchedulerNotRunningError
from asyncz.testing import VirtualClock

from . import jobs


class UpstreamStyle(BaseExecutor):
    """Implements `do_send_task` only, and reports without naming the store."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        assert task.fn is not None
        assert task.id is not None
        events = [
            TaskExecutionEvent(
                code=TASK_EXECUTED,
                task_id=task.id,
                store=task.store_alias,
                scheduled_run_time=run_time,
                return_value=task.fn(*task.args, **task.kwargs),
            )
            for run_time in run_times
        ]
        self.run_task_success(task.id, events)


class Silent(BaseExecutor):
    """Reports success without a single event."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        self.run_task_success(str(task.id), [])


class Failing(BaseExecutor):
    """Cannot carry out anything."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        try:
            raise OSError("out of order")
        except OSError:
            self.run_task_error(str(task.id))


class Unfinished(BaseExecutor):
    """Forgot its one method."""


async def test_an_executor_that_only_implements_do_send_task_works(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_executor(UpstreamStyle(), "custom")
    scheduler.add_task(
        jobs.add, "interval", seconds=1, args=[1], kwargs={"second": 1}, id="a", executor="custom"
    )
    fired = await clock.advance(seconds=3)
    assert [(run.task_id, run.return_value) for run in fired] == [("a", 2)] * 3
    assert not scheduler.instances


@pytest.mark.parametrize("kind", [Silent, Failing])
async def test_a_report_without_events_makes_room_for_the_next_run(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    kind: type[BaseExecutor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler.add_executor(kind(), "custom")
    scheduler.add_task(jobs.add, "interval", seconds=1, args=[1], id="a", executor="custom")
    await clock.advance(seconds=3)
    assert not scheduler.instances
    assert "max_instances" not in caplog.text
    assert caplog.text.count("could not run the task 'a'") == (3 if kind is Failing else 0)


async def test_an_executor_without_do_send_task_fails_each_run_and_says_why(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_executor(Unfinished(), "custom")
    scheduler.add_task(jobs.add, args=[1], id="a", executor="custom")
    (fired,) = await clock.advance(seconds=1)
    assert str(fired.exception) == "Unfinished must implement do_send_task()."


def test_an_executor_that_was_not_started_says_so() -> None:
    with pytest.raises(SchedulerNotRunningError, match=r"executor '' \(Silent\) is not started"):
        Silent().send_task(Task(jobs.own_pid, id="a"), [])


async def test_shutting_down_an_executor_that_was_not_started_does_nothing() -> None:
    executor = UpstreamStyle()
    await executor.shutdown()
    await executor.drain(wait=True, timeout=1)
    assert (executor.going, executor.ends_at_once) == ([], True)
