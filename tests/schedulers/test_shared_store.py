"""A scheduler on a store that others may share, when answers are lost or its clock is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.clock import SystemClock
from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.schedulers.store_time import StoreTime
from asyncz.stores.cluster import Look, Node, Pulse, RunRef
from asyncz.tasks.base import Task
from asyncz.triggers import DateTrigger
from tests.stores.model_store import ModelStore

LEASE = 0.6
ALL = 30


class Beats(Pulse):
    """A heartbeat that goes well, until the node is taken for dead."""

    def __init__(self, store: SharedStore, node_id: str) -> None:
        self._store, self._node_id = store, node_id

    async def open(self) -> None: ...

    async def beat(self, lease: float, running: int) -> bool:
        if self._node_id in self._store._refused:
            return False
        return await self._store.renew_node(self._node_id, lease, running)

    async def close(self) -> None: ...


class SharedStore(ModelStore):
    """The memory store as one that others may share."""

    in_process: ClassVar[bool] = False

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._lost_marks: list[bool] = []
        self._refused: set[str] = set()
        self._ahead = timedelta()

    def pulse(self, node_id: str) -> Pulse:
        return Beats(self, node_id)

    async def join_node(self, node: Node, lease: float) -> None:
        await asyncio.sleep(0.05)  # as long as the way to a server, for others to come between
        await super().join_node(node, lease)

    async def look(self) -> Look:
        looked = await super().look()
        return looked._replace(now=looked.now + self._ahead)

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        made_first = self._lost_marks.pop() if self._lost_marks else None
        started = await super().start_runs(node_id, refs) if made_first is not False else []
        if made_first is not None:
            raise StoreError("no answer")
        return started


def shared_scheduler(store: SharedStore) -> NativeAsyncIOScheduler:
    """A scheduler on it."""
    options: dict[str, Any] = {"lease": LEASE, "poll_interval": 0.05, "timezone": "UTC"}
    return NativeAsyncIOScheduler(stores={"default": store}, **options)


async def until(condition: Callable[[], object]) -> None:
    """Wait, within bounds, until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("made", [True, False])
async def test_runs_are_started_once_although_the_answer_to_their_start_mark_was_lost(
    made: bool,
) -> None:
    store, ran = SharedStore(), []

    async def note(word: str) -> None:
        ran.append(word)

    async with shared_scheduler(store) as scheduler:
        store._lost_marks = [made, made]
        due = DateTrigger(datetime.now(UTC) + timedelta(seconds=0.1))
        await scheduler.aadd_tasks(
            [
                Task(note, id=word, args=[word], trigger=due, delivery=delivery)
                for word, delivery in [("once", "at_most_once"), ("often", "at_least_once")]
            ]
        )
        await until(lambda: len(ran) == 2)
        runs = await scheduler.aget_runs()

    assert ran == ["often", "once"]
    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 2


async def test_a_pause_holds_for_a_pass_that_has_begun() -> None:
    looks, answers, ran = asyncio.Event(), asyncio.Event(), []

    class SlowStore(SharedStore):
        async def look(self) -> Look:
            looks.set()
            await answers.wait()
            return await super().look()

    async def note() -> None:
        ran.append(1)

    answers.set()
    async with shared_scheduler(SlowStore()) as scheduler:
        answers.clear()
        looks.clear()
        await looks.wait()
        scheduler.pause()
        await scheduler.aadd_task(note, id="a")
        answers.set()
        await until(lambda: scheduler._engine.lanes["default"].is_resting)
        assert not ran
        scheduler.resume()
        await until(lambda: ran)


async def test_a_fenced_scheduler_is_one_new_node_whoever_notices_it() -> None:
    store = SharedStore()
    ran: list[str] = []

    async def note() -> None:
        ran.append("run")

    async with shared_scheduler(store) as scheduler:
        await scheduler.aadd_task(note, "interval", hours=1, id="a", max_instances=ALL)
        (first,) = await store.get_nodes()
        store._refused.add(first.node.id)
        for _ in range(20):
            await scheduler.arun_task("a", force=True)
            await asyncio.sleep(0.02)
        await until(lambda: len(ran) == 20)
        assert len(await store.get_nodes()) == 2

        assert [run.state for run in await scheduler.aget_runs()] == [RunState.SUCCEEDED] * 20


async def test_the_end_of_a_run_that_was_taken_over_does_not_count_and_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, begun, let_go = SharedStore(), asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await let_go.wait()

    async with shared_scheduler(store) as scheduler:
        await scheduler.aadd_task(wait, id="a")
        await begun.wait()
        (first,) = await store.get_nodes()
        await store.join_node(Node("other", "other", "elsewhere", 1), 60)
        await store.leave_node(first.node.id)
        assert len((await store.reap("other", bury=None, max_attempts=3)).taken) == 1
        let_go.set()
        await until(lambda: "is not this scheduler's any more" in caplog.text)
        (run,) = await scheduler.aget_runs("a")
        assert (run.state, run.owner, run.attempt) == (RunState.RUNNING, "other", 2)


def test_the_time_of_a_store_goes_on_whatever_this_clock_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, real = SystemClock(), SystemClock.now
    time = StoreTime(clock)
    assert time.now() == pytest.approx(real(clock), abs=timedelta(seconds=0.1))
    asked = clock.monotonic()
    time.note(real(clock) + timedelta(minutes=1), asked, clock.monotonic())

    monkeypatch.setattr(SystemClock, "now", lambda self: real(self) + timedelta(hours=1))

    expected = real(clock) + timedelta(minutes=1)
    assert time.now() == pytest.approx(expected, abs=timedelta(seconds=0.1))


async def test_lateness_is_judged_by_the_time_of_the_store() -> None:
    store = SharedStore()
    store._ahead = timedelta(hours=-1)
    ran = []

    async def note() -> None:
        ran.append(1)

    async with shared_scheduler(store) as scheduler:
        due = datetime.now(UTC) - timedelta(hours=1)
        await scheduler.aadd_task(note, "date", run_at=due, id="a", mistrigger_grace_time=10)
        await until(lambda: ran)


async def test_a_manual_run_goes_by_the_time_of_the_store() -> None:
    store = SharedStore()
    store._ahead = timedelta(hours=-1)

    async def note() -> None: ...

    async with shared_scheduler(store) as scheduler:
        await scheduler.aadd_task(note, "interval", hours=2, id="a")
        await until(lambda: scheduler.is_resting)
        await asyncio.sleep(0.2)
        await scheduler.arun_task("a", force=True)
        await until(lambda: not scheduler.going)
        (run,) = await scheduler.aget_runs()

    late = datetime.now(UTC) - run.scheduled_time
    assert late == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=5))
