"""What cannot be written of one run keeps back no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, current_run
from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.stores.cluster import RunEnd
from asyncz.testing import VirtualClock
from tests.stores.model_store import ModelStore


class Picky(ModelStore):
    """A store that cannot write some of the results."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._error: Exception = TypeError("no JSON")
        self._batches: list[int] = []

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        self._batches.append(len(ends))
        for end in ends:
            if any((said.notes or {}).get("result") == "bad" for said in end.outcomes):
                raise self._error
        return await super().finish_runs(node_id, ends)


async def returns(value: str) -> str:
    return value


async def test_a_run_that_cannot_be_written_is_recorded_without_what_it_returned(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Picky()
    async with NativeAsyncIOScheduler(clock=clock, stores={"default": store}) as scheduler:
        for number, value in enumerate(["good", "bad", "good"]):
            await scheduler.aadd_task(returns, args=[value], id=f"t{number}")
        await clock.advance(seconds=1)
        runs = {run.task_id: (run.state, run.result) for run in await scheduler.aget_runs()}
    succeeded = RunState.SUCCEEDED
    assert runs == {"t0": (succeeded, "good"), "t1": (succeeded, None), "t2": (succeeded, "good")}
    assert "returned or said" in caplog.text
    assert "'t1'" in caplog.text


async def test_an_error_of_the_store_takes_nothing_from_a_run(clock: VirtualClock) -> None:
    store = Picky()
    store._error = StoreError("away")
    async with NativeAsyncIOScheduler(clock=clock, stores={"default": store}) as scheduler:
        await scheduler.aadd_task(returns, args=["bad"], id="a")
        await clock.advance(seconds=1)
        assert store._batches
        with pytest.raises(StoreError, match="away"):
            await scheduler.aget_runs()
        store._error = TypeError("no JSON")


async def says_much() -> None:
    for _ in range(100):
        current_run().log("x" * 900)


async def test_what_is_much_to_write_is_written_in_parts(clock: VirtualClock) -> None:
    store = Picky()
    async with NativeAsyncIOScheduler(clock=clock, stores={"default": store}) as scheduler:
        for number in range(20):
            await scheduler.aadd_task(says_much, id=f"t{number}")
        await clock.advance(seconds=1)
        runs = await scheduler.aget_runs()
    assert [(run.state, len(run.log)) for run in runs] == [(RunState.SUCCEEDED, 100)] * 20
    assert max(store._batches) <= 3
