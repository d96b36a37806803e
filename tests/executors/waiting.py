"""Waiting for something that happens outside the virtual clock: bounded, and on a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncz import NativeAsyncIOScheduler, SchedulerEvent
from asyncz.events.constants import ALL_EVENTS


async def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Return when the condition holds; fail after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


def record(scheduler: NativeAsyncIOScheduler, mask: int = ALL_EVENTS) -> list[SchedulerEvent]:
    """A list that the scheduler's events go into."""
    events: list[SchedulerEvent] = []
    scheduler.add_listener(events.append, mask)
    return events


def names(events: list[SchedulerEvent]) -> list[str]:
    """The names of the events' codes, in order."""
    return [event.code_name for event in events]
