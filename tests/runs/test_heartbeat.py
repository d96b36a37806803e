"""The heartbeat: a thread that renews a lease, whatever the app's loop does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from asyncz.clock import SystemClock
from asyncz.schedulers.heartbeat import Heartbeat
from asyncz.stores.cluster import Pulse

PATIENCE = 20.0
LEASE = 0.6
LOGGER = logging.getLogger("test")


class Counted(Pulse):
    """Counts what is asked of it, and answers as the test says."""

    def __init__(self) -> None:
        self.beats: list[tuple[float, int]] = []
        self.opened = self.closed = 0
        self.alive = True
        self.error: Exception | None = None
        self.threads: set[str] = set()

    async def open(self) -> None:
        self.opened += 1
        if self.error is not None:
            raise self.error

    async def beat(self, lease: float, running: int) -> bool:
        self.threads.add(threading.current_thread().name)
        self.beats.append((lease, running))
        if self.error is not None:
            raise self.error
        return self.alive

    async def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def beating(
    pulse: Pulse,
    refused: Callable[[], None] = lambda: None,
    heard: Callable[[], None] = lambda: None,
) -> AsyncIterator[Heartbeat]:
    clock = SystemClock()
    heartbeat = Heartbeat(
        pulse, clock, clock.monotonic(), LEASE, lambda: 7, refused, heard, "asyncz heart", LOGGER
    )
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()
        await heartbeat.ended()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


async def test_it_beats_in_a_thread_of_its_own_and_closes_its_connection() -> None:
    pulse = Counted()
    async with beating(pulse):
        await until(lambda: len(pulse.beats) >= 3)
    assert pulse.beats[0] == (LEASE, 7)
    assert (pulse.opened, pulse.closed) == (1, 1)
    assert pulse.threads == {"asyncz heart"}


async def test_a_blocked_loop_does_not_stop_it() -> None:
    pulse = Counted()
    async with beating(pulse) as heartbeat:
        await until(lambda: pulse.beats)
        before = len(pulse.beats)
        deadline = time.monotonic() + PATIENCE
        while len(pulse.beats) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)  # which is what is tried here
        assert len(pulse.beats) >= before + 3
        assert heartbeat.trusted_until > time.monotonic()


async def test_it_is_trusted_for_five_sixths_of_the_lease_from_the_last_success() -> None:
    pulse = Counted()
    async with beating(pulse) as heartbeat:
        await until(lambda: pulse.beats)
        pulse.error = OSError("cut")
        await until(lambda: heartbeat.contact_since == float("inf"))
        until_when = heartbeat.trusted_until
        assert until_when == pytest.approx(heartbeat.last_success + LEASE * 5 / 6)
        await until(lambda: time.monotonic() > until_when)
        assert heartbeat.trusted_until == until_when


async def test_after_an_error_it_connects_anew_and_its_contact_begins_again() -> None:
    pulse = Counted()
    async with beating(pulse) as heartbeat:
        await until(lambda: pulse.beats)
        since = heartbeat.contact_since
        pulse.error = OSError("cut")
        await until(lambda: heartbeat.contact_since == float("inf"))
        pulse.error = None
        await until(lambda: heartbeat.contact_since < float("inf"))
        assert heartbeat.contact_since > since
        assert pulse.opened > 1
    assert pulse.closed >= pulse.opened - 1


async def test_one_that_is_refused_says_so_once_and_ends() -> None:
    pulse, said = Counted(), []
    pulse.alive = False
    async with beating(pulse, lambda: said.append("refused")):
        await until(lambda: pulse.closed)
    assert (said, len(pulse.beats)) == (["refused"], 1)


async def test_one_that_is_stopped_at_once_ends() -> None:
    for _ in range(20):
        async with beating(Counted()):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "asyncz heart"]


class Told(Counted):
    """Hears what the test says; an error loses the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.said: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.listened = 0

    async def listen(self, heard: Callable[[], None]) -> None:
        self.listened += 1
        heard()
        while (error := await self.said.get()) is None:
            heard()
        raise error


async def test_what_is_announced_is_heard_in_the_thread_and_again_after_an_error() -> None:
    pulse = Told()
    threads: list[str] = []
    async with beating(pulse, heard=lambda: threads.append(threading.current_thread().name)):
        await until(lambda: len(threads) == 1)
        pulse.said.put_nowait(None)
        pulse.said.put_nowait(OSError("cut"))
        pulse.said.put_nowait(None)
        await until(lambda: len(threads) == 4)
    assert pulse.listened == 2
    assert set(threads) == {"asyncz heart"}


async def test_a_store_that_announces_nothing_is_listened_to_once() -> None:
    pulse = Counted()
    async with beating(pulse) as heartbeat:
        await until(lambda: len(pulse.beats) >= 2)
        assert heartbeat._listening is not None
        assert heartbeat._listening.done()
