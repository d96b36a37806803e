"""Listeners, and how events reach them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import partial
from logging import getLogger
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler, SchedulerEvent
from asyncz.events.constants import (
    ALL_EVENTS,
    SCHEDULER_PAUSED,
    SCHEDULER_RESUMED,
    SCHEDULER_SHUTDOWN,
    TASK_ADDED,
    TASK_EXECUTED,
    TASK_REMOVED,
)
from asyncz.events.dispatch import EventDispatcher
from asyncz.testing import VirtualClock

PAUSED = SchedulerEvent(code=SCHEDULER_PAUSED)
RESUMED = SchedulerEvent(code=SCHEDULER_RESUMED)


@pytest.fixture
def spawned() -> list[str]:
    return []


@pytest.fixture
def events(spawned: list[str]) -> EventDispatcher:
    """A dispatcher that runs coroutines to their end at once."""

    def spawn(work: Coroutine[Any, Any, None], name: str) -> None:
        spawned.append(name)
        with pytest.raises(StopIteration):
            work.send(None)

    return EventDispatcher(getLogger("asyncz.test"), spawn)


def test_a_listener_gets_the_events_of_its_mask_only(events: EventDispatcher) -> None:
    seen: list[SchedulerEvent] = []
    events.add(seen.append, SCHEDULER_PAUSED)
    events.dispatch(PAUSED)
    events.dispatch(RESUMED)
    assert seen == [PAUSED]


def test_a_listener_without_a_mask_gets_everything(events: EventDispatcher) -> None:
    seen: list[SchedulerEvent] = []
    events.add(seen.append)
    events.dispatch(PAUSED)
    events.dispatch(RESUMED)
    assert seen == [PAUSED, RESUMED]
    assert events.mask == ALL_EVENTS


def test_the_mask_of_all_listeners_follows_them(events: EventDispatcher) -> None:
    assert not events.wants(ALL_EVENTS)
    events.add(print, SCHEDULER_PAUSED)
    events.add(repr, SCHEDULER_RESUMED | SCHEDULER_PAUSED)
    assert events.mask == SCHEDULER_PAUSED | SCHEDULER_RESUMED
    events.remove(repr)
    assert events.wants(SCHEDULER_PAUSED)
    assert not events.wants(SCHEDULER_RESUMED)


def test_a_listener_that_is_removed_hears_no_more(events: EventDispatcher) -> None:
    seen: list[SchedulerEvent] = []
    events.add(seen.append)
    assert events.remove(seen.append)
    assert not events.remove(seen.append)
    events.dispatch(PAUSED)
    assert seen == []


def test_one_callback_added_twice_is_called_twice_and_removed_once(
    events: EventDispatcher,
) -> None:
    seen: list[SchedulerEvent] = []

    def note(event: SchedulerEvent) -> None:
        seen.append(event)

    events.add(note)
    events.add(note)
    events.remove(note)
    events.dispatch(PAUSED)
    assert seen == [PAUSED]


def test_a_listener_may_add_and_remove_listeners(events: EventDispatcher) -> None:
    seen: list[str] = []

    def once(event: SchedulerEvent) -> None:
        seen.append("once")
        events.remove(once)
        events.add(lambda later: seen.append("added"))

    events.add(once)
    events.add(lambda event: seen.append("other"))
    events.dispatch(PAUSED)
    assert seen == ["once", "other"]
    events.dispatch(PAUSED)
    assert seen == ["once", "other", "other", "added"]


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("plain", ValueError),
        ("plain", SystemExit),
        ("plain", asyncio.CancelledError),
        ("coroutine", ValueError),
        ("coroutine", SystemExit),
    ],
)
def test_a_listener_that_fails_is_logged_and_stops_nobody(
    events: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    kind: str,
) -> None:
    def fail(event: SchedulerEvent) -> None:
        raise error

    async def fail_later(event: SchedulerEvent) -> None:
        raise error

    seen: list[SchedulerEvent] = []
    events.add(fail if kind == "plain" else fail_later)
    events.add(seen.append)
    events.dispatch(PAUSED)
    assert seen == [PAUSED]
    assert "failed on <SchedulerEvent SCHEDULER_PAUSED>" in caplog.text


def test_a_keyboard_interrupt_in_a_listener_is_passed_on(events: EventDispatcher) -> None:
    def interrupt(event: SchedulerEvent) -> None:
        raise KeyboardInterrupt

    events.add(interrupt)
    with pytest.raises(KeyboardInterrupt):
        events.dispatch(PAUSED)


class Listening:
    async def __call__(self, event: SchedulerEvent) -> None: ...
    async def method(self, event: SchedulerEvent) -> None: ...


@pytest.mark.parametrize("listener", [Listening(), Listening().method, partial(Listening())])
def test_every_kind_of_coroutine_function_can_listen(
    events: EventDispatcher, spawned: list[str], listener: Any
) -> None:
    events.add(listener)
    events.dispatch(PAUSED)
    assert len(spawned) == 1
    assert spawned[0].startswith("asyncz listener Listening")


@pytest.mark.parametrize("callback", [None, 5, "module:name"])
def test_what_cannot_be_called_cannot_listen(events: EventDispatcher, callback: Any) -> None:
    with pytest.raises(TypeError, match="A listener must be callable, not"):
        events.add(callback)


@pytest.mark.parametrize("mask", [0, -1, ALL_EVENTS + 1])
def test_a_mask_has_to_be_made_of_codes(events: EventDispatcher, mask: int) -> None:
    with pytest.raises(ValueError, match="mask must be made of codes"):
        events.add(print, mask)
    assert events.mask == 0


async def test_a_coroutine_listener_runs_on_the_loop(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    seen = asyncio.get_running_loop().create_future()

    async def listen(event: SchedulerEvent) -> None:
        seen.set_result((asyncio.get_running_loop(), event.code_name))

    scheduler.add_listener(listen, TASK_ADDED)
    scheduler.add_task(print, "interval", hours=1)
    found = await asyncio.wait_for(seen, 10)
    assert found == (asyncio.get_running_loop(), "TASK_ADDED")


async def test_a_listener_may_use_the_scheduler(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def work() -> None: ...

    def again(event: SchedulerEvent) -> None:
        scheduler.add_task(work, id=f"after {getattr(event, 'task_id', '')}")
        scheduler.remove_listener(again)

    scheduler.add_listener(again, TASK_EXECUTED)
    scheduler.add_task(work, id="first")
    fired = await clock.advance(seconds=1)
    assert [run.task_id for run in fired] == ["first", "after first"]


async def test_a_shutdown_lets_coroutine_listeners_finish(clock: VirtualClock) -> None:
    seen: list[str] = []

    async def listen(event: SchedulerEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.code_name)

    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.add_listener(listen, SCHEDULER_SHUTDOWN)
    assert seen == ["SCHEDULER_SHUTDOWN"]


async def test_a_plain_listener_is_called_on_the_thread_of_the_loop(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    seen: list[int] = []
    scheduler.add_listener(lambda event: seen.append(threading.get_ident()), TASK_EXECUTED)
    scheduler.add_task(threading.get_ident, id="a")
    (fired,) = await clock.advance(seconds=1)
    assert seen == [threading.get_ident()] != [fired.return_value]


async def test_a_listener_that_exits_does_not_stop_the_runs_of_the_same_pass(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    def leave(event: SchedulerEvent) -> None:
        raise SystemExit

    async def work() -> None: ...

    scheduler.add_listener(leave, TASK_REMOVED)
    for name in "abc":
        scheduler.add_task(work, "date", run_at="2026-01-01T00:00:05Z", id=name)
    fired = await clock.advance(seconds=10)
    assert [run.task_id for run in fired] == ["a", "b", "c"]
