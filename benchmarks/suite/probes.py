"""Instruments that watch an event loop from outside the library under test."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selectors import SelectorKey


class WatchedSelector(selectors.DefaultSelector):
    """A selector that counts how often its loop went to sleep and tells when it has nothing to do.

    An event loop calls ``select`` once a turn: with a timeout of zero while callbacks are ready,
    with a longer one (or none at all) when it may sleep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sleeps = 0
        self._idle: asyncio.Future[float] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None or timeout > 0:
            if self._idle is not None:
                self._idle.set_result(time.perf_counter())
                self._idle = None
                timeout = 0
            else:
                self.sleeps += 1
        return super().select(timeout)

    async def idle(self) -> float:
        """Wait until no callback of the loop is ready; return the `perf_counter` of that instant.

        What a library put off with ``call_soon`` or to a task of its own has been done by then.
        """
        self._idle = asyncio.get_running_loop().create_future()
        return await self._idle


class Heartbeat:
    """A ticker on the running loop that remembers its longest delays.

    Every tick asks for the next one `period` seconds later. What a gap between two ticks has over
    the period is time for which nothing else on the loop could run either: a stall.
    """

    def __init__(self, period: float = 0.001) -> None:
        self.period = period
        self.worst_stall = 0.0
        self.worst_own_stall = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Heartbeat:
        self._loop = asyncio.get_running_loop()
        self._seen, self._used = time.perf_counter(), time.thread_time()
        self._handle = self._loop.call_later(self.period, self._tick)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        now, used = time.perf_counter(), time.thread_time()
        self.worst_stall = max(self.worst_stall, now - self._seen - self.period)
        self.worst_own_stall = max(self.worst_own_stall, used - self._used - self.period)
        self._seen, self._used = now, used
        self._handle = self._loop.call_later(self.period, self._tick)

    def figures(self) -> Mapping[str, float]:
        """The worst stall in ms, by the wall clock and by the CPU time of the loop's thread.

        The second leaves out what another process on the machine took from this one.
        """
        return {
            "stall_ms": self.worst_stall * 1e3,
            "stall_cpu_ms": self.worst_own_stall * 1e3,
        }
