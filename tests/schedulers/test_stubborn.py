"""What ignores the end cannot hold up a shutdown, also when it is on the scheduler's own thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, NativeAsyncIOScheduler

TIMEOUT = 1.0
ALLOWED = 1.5
"""Seconds beyond the timeout: the margin for a blocked loop, and a machine that is busy."""
PATIENCE = 20.0


class Stubborn:
    """A coroutine function that ignores being cancelled, until it is allowed to end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = False

    async def __call__(self, *_: object) -> None:
        self.begun.set()
        while not self.may_end:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue


class Blocking(Stubborn):
    """A coroutine function that blocks the loop that it runs on."""

    async def __call__(self, *_: object) -> None:
        self.begun.set()
        while not self.may_end:
            time.sleep(0.01)


def seconds_of(call: Callable[[], object]) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


async def seconds_of_awaiting(work: Coroutine[Any, Any, object]) -> float:
    begun = time.monotonic()
    await work
    return time.monotonic() - begun


@pytest.mark.parametrize("kind", [Stubborn, Blocking])
@pytest.mark.parametrize("wait", [True, False])
def test_a_run_on_the_schedulers_thread_cannot_hold_up_shutdown(
    kind: type[Stubborn], wait: bool
) -> None:
    run = kind()
    scheduler = AsyncIOScheduler(shutdown_timeout=TIMEOUT)
    scheduler.start()
    scheduler.add_task(run)
    assert run.begun.wait(PATIENCE)
    try:
        assert seconds_of(lambda: scheduler.shutdown(wait)) < TIMEOUT + ALLOWED
        assert not scheduler.running
    finally:
        run.may_end = True


@pytest.mark.parametrize("kind", [Stubborn, Blocking])
async def test_a_run_on_an_isolated_loop_cannot_hold_up_a_shutdown_that_is_awaited(
    kind: type[Stubborn],
) -> None:
    run = kind()
    scheduler = NativeAsyncIOScheduler(shutdown_timeout=TIMEOUT, isolated_event_loop=True)
    await scheduler.start()
    await scheduler.aadd_task(run)
    assert await asyncio.to_thread(run.begun.wait, PATIENCE)
    try:
        assert await seconds_of_awaiting(scheduler.shutdown()) < TIMEOUT + ALLOWED
    finally:
        run.may_end = True


def test_a_listener_that_never_ends_cannot_hold_up_shutdown() -> None:
    listener = Stubborn()
    scheduler = AsyncIOScheduler(shutdown_timeout=TIMEOUT)
    scheduler.add_listener(listener)
    scheduler.start()
    assert listener.begun.wait(PATIENCE)
    try:
        assert seconds_of(scheduler.shutdown) < TIMEOUT + ALLOWED
    finally:
        listener.may_end = True


def test_after_a_blocked_run_has_ended_the_scheduler_can_be_started_again() -> None:
    run = Blocking()
    scheduler = AsyncIOScheduler(shutdown_timeout=TIMEOUT)
    scheduler.start()
    scheduler.add_task(run)
    assert run.begun.wait(PATIENCE)
    scheduler.shutdown()
    run.may_end = True
    assert scheduler.start()  # waits for the end of what was left behind
    assert scheduler.running
    scheduler.shutdown()
