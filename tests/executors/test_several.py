"""Several executors side by side."""

from __future__ import annotations

from asyncz import (
    AsyncIOExecutor,
    AsyncIOScheduler,
    BaseExecutor,
    NativeAsyncIOScheduler,
    ThreadPoolExecutor,
)
from asyncz.testing import VirtualClock

from . import jobs


async def test_executors_with_the_same_options_are_all_started(clock: VirtualClock) -> None:
    executors: dict[str, BaseExecutor] = {
        "default": AsyncIOExecutor(),
        "mails": AsyncIOExecutor(),
        "slow": ThreadPoolExecutor(max_workers=2),
        "slower": ThreadPoolExecutor(max_workers=2),
    }
    async with NativeAsyncIOScheduler(clock=clock, executors=executors) as scheduler:
        for alias in executors:
            scheduler.add_task(jobs.add, args=[1, 2], id=alias, executor=alias)
        fired = await clock.advance(seconds=1)
    assert {run.task_id: run.return_value for run in fired} == dict.fromkeys(executors, 3)


def test_executors_given_by_their_type_are_all_started() -> None:
    executors = {"first": "threadpool", "second": "threadpool"}
    with AsyncIOScheduler(executors=executors) as scheduler:
        for alias in executors:
            assert scheduler.lookup_executor(alias).host is scheduler


async def test_an_executor_may_start_in_a_coroutine(clock: VirtualClock) -> None:
    class Connecting(AsyncIOExecutor):
        async def start(self, scheduler: object, alias: str) -> None:  # type: ignore[override]
            super().start(scheduler, alias)  # type: ignore[arg-type]

    async with NativeAsyncIOScheduler(clock=clock) as scheduler:
        await scheduler.aadd_executor(Connecting(), "remote")
        scheduler.add_task(jobs.add, args=[1, 2], executor="remote")
        assert [run.return_value for run in await clock.advance(seconds=1)] == [3]
