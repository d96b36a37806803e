"""What is kept of what a run returned."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, RunState
from asyncz.executors import ThreadPoolExecutor
from asyncz.runs.results import noted_result
from asyncz.testing import VirtualClock

from . import jobs
from .test_attempts import the_run


async def test_a_result_is_kept_as_it_was_returned(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.returns_what_is_changed_afterwards, id="a")
    await scheduler.aadd_task(jobs.returns, args=[1], id="b")
    await clock.advance(seconds=1)
    run = await the_run(scheduler)
    assert (run.state, run.result) == (RunState.SUCCEEDED, {"pages": 1})
    assert (await the_run(scheduler, "b")).result == 1


class Unshowable:
    """One whose repr fails."""

    def __repr__(self) -> str:
        raise ValueError("on purpose")


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, "ö\n\x00", [], {}, [1, [2, {"a": None}]], {"a": {"b": ["c"]}}, 10**100],
)
def test_json_comes_back_as_it_was(value: Any) -> None:
    kept = noted_result(value)["result"]
    assert kept == value
    assert kept is not value or not isinstance(value, list | dict)


@pytest.mark.parametrize(
    "value",
    [
        (1,), (1, 2), {3}, {1: 2}, [{"a": (1, b"x")}, ()], b"\x80", float("inf"), 1j, set(),
        frozenset({1}), {"a": [{1}, "b"]}, bytearray(b"x"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_shown_as_its_repr(value: Any) -> None:
    assert noted_result(value) == {"result_repr": repr(value)}


def test_what_cannot_be_shown_is_said() -> None:
    for value in (Unshowable(), [Unshowable()]):
        shown = noted_result(value)["result_repr"]
        assert shown.endswith("whose repr fails: ValueError>")


def test_of_a_long_one_the_beginning_of_its_repr_is_kept() -> None:
    rows = [{"id": number, "tags": ["a", b"b"]} for number in range(5_000)]
    for value in (rows, "x" * 20_000, b"\x80" * 20_000, {"a": rows}, tuple(rows), [rows]):
        assert noted_result(value) == {"result_repr": repr(value)[:200]}
    assert noted_result("ö" * 8_000)["result"] == "ö" * 8_000
    assert "result" not in noted_result("ö" * 8_300)
    assert len(noted_result({"\udcff" * 300})["result_repr"]) == 200


class Counted(str):
    """Text that counts how often it is shown."""

    shown = 0

    def __repr__(self) -> str:
        Counted.shown += 1
        return "'…'"


def test_no_more_of_a_long_one_is_looked_at_than_is_kept() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert noted_result(circle)["result_repr"] == "[" * 200
    Counted.shown = 0
    noted_result([Counted() for _ in range(100_000)])
    assert Counted.shown <= 200


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
@pytest.mark.parametrize("executor", ["default", "threads"])
async def test_a_result_is_worked_out_once_and_where_the_run_was(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, executor: str
) -> None:
    here, seen = threading.get_ident(), []

    class Slow:
        def __repr__(self) -> str:
            seen.append(threading.get_ident() == here)
            return "slow"

    await scheduler.aadd_executor(ThreadPoolExecutor(max_workers=1), "threads")
    await scheduler.aadd_task(Slow, id="a", executor=executor, on_success=jobs.notice)
    await clock.advance(seconds=1)
    assert (await the_run(scheduler)).result_repr == "slow"
    assert jobs.REACTIONS[0][1].result_repr == "slow"
    assert seen == [False]
