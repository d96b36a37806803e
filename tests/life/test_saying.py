"""What a run knows of itself, says of itself, and returns."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, Retry, RunState, current_run
from asyncz.exceptions import NoCurrentRunError
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT
from .test_attempts import EVERY_10_S, START, after, the_run


async def test_what_a_run_says_is_seen_while_it_goes_on(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.says, id="a")
    await clock.advance(seconds=2)
    run = await the_run(scheduler)
    assert (run.state, run.progress, run.message) == (RunState.RUNNING, 0.4, "page 3 of 7")
    assert run.log == ("first", "second")
    info = await scheduler.aget_task_info("a")
    assert info is None  # it was a one-off
    await clock.advance(seconds=10)
    run = await the_run(scheduler)
    assert (run.state, run.progress, run.message) == (RunState.SUCCEEDED, 1, "page 3 of 7")
    assert run.log == ("first", "second")


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_what_it_says_is_kept_at_most_once_a_second(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = scheduler._engine.stores["default"]
    keep, kept = store.note_runs, []

    async def note_runs(node_id: str, notes: Any) -> Any:
        kept.append(clock.now())
        return await keep(node_id, notes)

    monkeypatch.setattr(type(store), "note_runs", lambda _, *given: note_runs(*given))
    await scheduler.aadd_task(jobs.says_much, args=[20], id="a")
    for _ in range(26):
        await clock.advance(seconds=0.2)
    run = await the_run(scheduler)
    assert (run.state, run.progress, len(run.log)) == (RunState.SUCCEEDED, 1, 20)
    assert 2 <= len(kept) <= 5
    assert all((later - before).total_seconds() >= 1 for before, later in pairwise(kept))


async def test_it_is_shown_with_the_task(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.says, "interval", hours=1, start_at=START, id="a")
    await clock.advance(seconds=2)
    info = await scheduler.aget_task_info("a")
    assert info is not None
    assert info.last_run is not None
    assert (info.last_run.progress, info.last_run.message) == (0.4, "page 3 of 7")
    assert info.active_runs == 1
    await clock.advance(seconds=10)


async def test_a_run_knows_what_it_is_of(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    def listen(event: Any) -> None:
        seen.append(event.return_value)

    scheduler.add_listener(listen)
    await scheduler.aadd_task(jobs.fails, "date", run_at=after(3), args=[0], id="a@b")
    await clock.advance(seconds=3)
    assert jobs.KEYS == [("a@b", 1, "a@b@2026-01-01T00:00:03+00:00")]
    run = await scheduler.aget_run(jobs.KEYS[0][2])
    assert (run.task_id, run.scheduled_time) == ("a@b", after(3))


async def test_its_fence_grows_with_each_attempt(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.fails, args=[2], id="a", retry=EVERY_10_S)
    await clock.advance(minutes=1)
    assert jobs.FENCES == [1, 2, 3]
    assert (await the_run(scheduler)).token == 3


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_its_fence_grows_when_another_worker_takes_it_over(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    first = make_scheduler()
    await first.start()
    await first.aadd_task(jobs.holds_on_once, id="a")
    await clock.advance(seconds=1)
    await first.shutdown(wait=False)
    async with make_scheduler() as second:
        await clock.advance(seconds=30)
        assert jobs.FENCES == [1, 2]
        assert (await the_run(second)).token == 2


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_the_fence_of_one_that_waited_behind_another_grows_too(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    first = make_scheduler()
    await first.start(paused=True)
    await first.aadd_task(
        jobs.holds_on_and_fails, "interval", seconds=10, start_at=START, id="a", coalesce=False,
        retry=EVERY_10_S,
    )  # fmt: skip
    await clock.advance(seconds=15)
    first.resume()
    await clock.advance(seconds=1)
    await first.shutdown(wait=False)
    async with make_scheduler() as second:
        await clock.advance(seconds=30)
        await second.apause_task("a")
    called = zip(jobs.KEYS, jobs.FENCES, strict=True)
    seen = [(run_id[-14:-6], fence) for (_, _, run_id), fence in called]
    assert seen[:3] == [("00:00:00", 1), ("00:00:00", 2), ("00:00:10", 2)]
    assert [fence for at, fence in seen[3:] if at == "00:00:10"] == [3]


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_thread_that_was_left_alone_does_not_take_itself_for_the_next_attempt(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    policy = Retry(attempts=2, wait=1, on=TimeoutError)
    await scheduler.aadd_task(jobs.asks_late, id="late", timeout=5.0, retry=policy)
    await clock.advance(seconds=5.5)
    async with asyncio.timeout(10):
        while jobs.ATTEMPTS["late"] < 2:
            await clock.advance(seconds=1)
    jobs.LET_GO.set()
    assert await asyncio.to_thread(jobs.HAS_ASKED.wait, 10)
    assert (jobs.KEYS, jobs.FENCES) == ([("late", 1, "")], [1])


def test_outside_of_a_run_there_is_none() -> None:
    with pytest.raises(NoCurrentRunError, match="not part of a run"):
        current_run()


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_its_logger_says_which_run_it_is(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def talks() -> None:
        current_run().logger.warning("page %d", 3, extra={"more": 1})
        with pytest.raises(ValueError, match="between 0 and 1"):
            current_run().progress(2)

    await scheduler.aadd_task(talks, id="a")
    await clock.advance(seconds=1)
    assert (await the_run(scheduler)).error is None
    (record,) = [record for record in caplog.records if record.name == "asyncz.runs"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "[a@2026-01-01T00:00:00+00:00] page 3"
    assert vars(record)["task_id"] == "a"
    assert vars(record)["more"] == 1


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_only_the_last_lines_are_kept(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def talks() -> None:
        for number in range(250):
            current_run().log(f"{number} " + "x" * 5_000)
        current_run().log("half \udcff")

    await scheduler.aadd_task(talks, id="a")
    await clock.advance(seconds=1)
    run = await the_run(scheduler)
    assert len(run.log) == 100
    assert run.log[0].startswith("151 x")
    assert {len(line) for line in run.log[:-1]} == {1_000}
    assert run.log[-1] == "half \\udcff"


async def test_what_it_returns_is_kept(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    value = {"n": [1, None, 2.5, True], "text": "ö\n$x."}
    await scheduler.aadd_task(jobs.returns, args=[value], id="json")
    await scheduler.aadd_task(jobs.returns, args=["x" * 20_000], id="long")
    await scheduler.aadd_task(jobs.returns_a_set, id="odd")
    await scheduler.aadd_task(jobs.returns, args=["secret"], id="off", store_result=False)
    await scheduler.aadd_task(jobs.returns, args=[None], id="none")
    await clock.advance(seconds=1)
    found = {run.task_id: (run.result, run.result_repr) for run in await scheduler.aget_runs()}
    assert found.pop("long")[1] == "'" + "x" * 199
    assert found == {
        "json": (value, None),
        "odd": (None, "{1}"),
        "off": (None, None),
        "none": (None, None),
    }


@pytest.mark.parametrize("letter", ["x", "ü", "𝄞", '"'])
async def test_a_result_may_have_16_kib_of_utf_8(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, letter: str
) -> None:
    size = 2 if letter == '"' else len(letter.encode())
    most = (16_384 - 2) // size  # two for the quotes around it
    value = letter * most + "x" * (16_384 - 2 - most * size)
    await scheduler.aadd_task(jobs.returns, args=[value], id="fits")
    await scheduler.aadd_task(jobs.returns, args=[value + "x"], id="does not")
    await clock.advance(seconds=1)
    fits, longer = await the_run(scheduler, "fits"), await the_run(scheduler, "does not")
    assert (fits.result, fits.result_repr) == (value, None)
    assert (longer.result, longer.result_repr) == (None, repr(value)[:200])


async def test_a_result_is_not_shown_in_a_repr(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.returns, args=["sesame"], id="a")
    await clock.advance(seconds=1)
    assert "sesame" not in repr(await the_run(scheduler))


async def test_a_run_can_be_waited_for(
    make_scheduler: MakeScheduler, scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(jobs.takes, args=[3], id="a")
    await clock.advance(seconds=1)
    run_id = (await the_run(scheduler)).id
    waiting = asyncio.ensure_future(scheduler.await_run(run_id))
    late = asyncio.ensure_future(scheduler.await_run(run_id, timeout=1))
    await clock.advance(seconds=1.5)
    assert not waiting.done()
    with pytest.raises(TimeoutError, match="has not ended within 1 s"):
        await late
    await clock.advance(seconds=1)
    run = await waiting
    assert (run.state, run.result) == (RunState.SUCCEEDED, "done")
    assert await scheduler.await_run(run_id) == run
