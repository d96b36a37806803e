"""What is kept of how a run ended is bounded, however much there is to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz.runs.base import MAX_ERROR, MAX_TRACEBACK
from asyncz.testing import VirtualClock

LONG = "é" * 1_000_000


def sink(depth: int) -> None:
    """Raises far down, by ways that no two lines of the traceback are the same."""
    if depth:
        (sink if depth % 2 else rise)(depth - 1)
    raise ValueError(f"begin {LONG} end")


def rise(depth: int) -> None:
    sink(depth)


async def fail() -> None:
    sink(600)


@pytest.mark.parametrize("alias", ["default", "files"])
async def test_a_long_error_and_its_traceback_are_cut(
    alias: str, clock: VirtualClock, tmp_path: Path
) -> None:
    stores = {"files": FileStore(tmp_path / "tasks")}
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores=stores) as scheduler:
        await scheduler.aadd_task(fail, id="a", store=alias, next_run_time=clock.now())
        await clock.advance(seconds=1)
        (run,) = await scheduler.aget_runs("a")
    assert run.error is not None
    assert run.traceback is not None
    assert run.error.startswith("ValueError: begin é")
    assert len(run.error) == MAX_ERROR
    assert len(run.traceback) == MAX_TRACEBACK
