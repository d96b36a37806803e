"""How long it takes until another attempt: each wait strategy of tenacity in each store."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import tenacity

from asyncz import NativeAsyncIOScheduler, Retry, RunState
from asyncz.exceptions import SerializationError
from asyncz.runs.waits import as_wait, dump_wait, load_wait
from asyncz.testing import VirtualClock

from . import jobs
from .places import PERSISTENT
from .test_attempts import after, the_run

STRATEGIES: dict[str, Callable[[], Any]] = {
    "wait_fixed": lambda: tenacity.wait_fixed(timedelta(seconds=3)),
    "wait_none": lambda: tenacity.wait_none(),
    "wait_random": lambda: tenacity.wait_random(3, 5),
    "wait_incrementing": lambda: tenacity.wait_incrementing(3, 2, 10),
    "wait_exponential": lambda: tenacity.wait_exponential(3, 60, 2, 3),
    "wait_random_exponential": lambda: tenacity.wait_random_exponential(3, 60, 2, 1),
    "wait_full_jitter": lambda: tenacity.wait_full_jitter(3, 60),
    "wait_exponential_jitter": lambda: tenacity.wait_exponential_jitter(max=60, jitter=2),
    "wait_combine": lambda: tenacity.wait_fixed(3) + tenacity.wait_random(0, 2),
    "wait_chain": lambda: tenacity.wait_chain(tenacity.wait_fixed(3), tenacity.wait_fixed(5)),
}
"""All but `wait_exception`, which calls a function of the user's."""


def test_no_strategy_was_forgotten() -> None:
    public = {
        name
        for name, kind in vars(tenacity).items()
        if name.startswith("wait_") and inspect.isclass(kind)
    }
    assert public - {"wait_base"} == {*STRATEGIES, "wait_exception"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_the_same_when_it_comes_back_from_a_record(name: str) -> None:
    wait = as_wait(STRATEGIES[name]())
    back = load_wait(dump_wait(wait))
    assert back == wait
    for attempt in range(1, 6):
        state = random.getstate()
        expected = wait.seconds(attempt)
        random.setstate(state)
        assert back.seconds(attempt) == expected


def test_records_of_before_and_strategies_of_older_releases_are_known() -> None:
    """Until 9.1 the `multiplier` of `wait_exponential_jitter` was called `initial`."""
    record = {"type": "wait_exponential_jitter", "initial": 2, "max": 9, "exp_base": 3, "jitter": 0}
    back = load_wait({"tenacity": record})
    assert [back.seconds(attempt) for attempt in (1, 2, 3)] == [2, 6, 9]
    assert dump_wait(back)["tenacity"]["initial"] == 2
    old = tenacity.wait_exponential_jitter(max=9)
    vars(old)["initial"] = vars(old).pop("multiplier", 1)
    vars(old).pop("min", None)
    assert dump_wait(as_wait(old))["tenacity"]["initial"] == 1


async def test_each_strategy_is_accepted_and_makes_attempts(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    for name, make in STRATEGIES.items():
        policy = Retry(attempts=3, wait=make())
        await scheduler.aadd_task(jobs.fails, args=[2], id=name, retry=policy)
    await clock.advance(seconds=30)
    states = {run.task_id: (run.state, run.attempt) for run in await scheduler.aget_runs()}
    assert states == dict.fromkeys(STRATEGIES, (RunState.SUCCEEDED, 3))


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_strategy_may_ask_the_exception(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(wait=tenacity.wait_exception(lambda error: 7.0 + len(error.args)))
    assert policy == Retry(wait=policy.wait)  # type: ignore[arg-type]
    assert policy != Retry(wait=tenacity.wait_exception(lambda error: 1.0))
    await scheduler.aadd_task(jobs.fails, args=[1], id="a", retry=policy)
    await clock.advance(seconds=1)
    assert (await the_run(scheduler)).retry_at == after(8)
    await clock.advance(seconds=8)
    assert (await the_run(scheduler)).state is RunState.SUCCEEDED


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_one_that_asks_the_exception_cannot_be_kept(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    policy = Retry(wait=tenacity.wait_exception(lambda error: 1.0))
    with pytest.raises(SerializationError, match="cannot keep the wait strategy wait_exception"):
        await scheduler.aadd_task(jobs.fails, args=[1], id="a", retry=policy)
