"""Exceptions of tasks that have no proper text: the run ends all the same."""

from __future__ import annotations

import pickle

import pytest

from asyncz import NativeAsyncIOScheduler, RetryAfter, RunState, Skip
from asyncz.executors import ThreadPoolExecutor
from asyncz.testing import VirtualClock

from . import jobs
from .test_attempts import START, the_run

ENDS = {
    "skip": (RunState.SKIPPED, "nothing to do"),
    "unmade": (RunState.SKIPPED, "the task has skipped it"),
    "both": (RunState.SKIPPED, "<Wordless, whose text fails: ValueError>"),
    "wordless": (RunState.FAILED, None),
}


@pytest.mark.parametrize("executor", ["default", "threads"])
async def test_each_run_ends_and_makes_room_for_the_next(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, executor: str
) -> None:
    await scheduler.aadd_executor(ThreadPoolExecutor(max_workers=2), "threads")
    for how in ENDS:
        await scheduler.aadd_task(
            jobs.fails_badly, "interval", seconds=10, start_at=START, args=[how], id=how,
            executor=executor,
        )  # fmt: skip
    await clock.advance(seconds=11)
    for how, end in ENDS.items():
        runs = await scheduler.aget_runs(how)
        assert [(run.state, run.reason) for run in runs] == [end] * 2, how
    wordless = (await scheduler.aget_runs("wordless"))[0]
    assert wordless.error == "Wordless: <Wordless, whose text fails: ValueError>"
    assert not scheduler.instances


async def test_another_attempt_is_asked_for_by_an_exception(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.fails_badly, args=["again"], id="a")
    await clock.advance(seconds=0.5)
    run = await the_run(scheduler)
    assert (run.state, run.reason) == (RunState.RETRYING, "not yet")
    assert not scheduler.instances


def test_reasons_are_texts_wherever_they_go() -> None:
    again = pickle.loads(pickle.dumps(RetryAfter(1, KeyError("x"))))  # noqa: S301
    assert (again.reason, str(again)) == ("'x'", "'x'")
    assert RetryAfter(1).reason is None
    assert str(Skip(ValueError("y"))) == "y"
