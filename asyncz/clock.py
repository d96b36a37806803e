"""The clock that everything in asyncz reads; no other module asks the system for the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

__all__ = ["Clock", "ClockUser", "SystemClock", "Timer"]


class Timer(Protocol):
    """A call that has been put on a clock."""

    def cancel(self) -> None:
        """Take the call back; without effect once it was made."""


class ClockUser(Protocol):
    """A scheduler, as far as a clock that is moved by hand has to know it."""

    @property
    def engine_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that its passes are made on."""

    @property
    def is_resting(self) -> bool:
        """Whether no pass is going on."""

    @property
    def going(self) -> Sequence[object]:
        """The asyncio tasks and futures of the runs that go on."""

    def add_listener(self, callback: Callable[[Any], Any], mask: int = ...) -> None: ...
    def remove_listener(self, callback: Callable[[Any], Any]) -> bool: ...


class Clock(Protocol):
    """Tells the time and calls back later. `asyncz.testing.VirtualClock` is the other one."""

    @property
    def longest_wait(self) -> float:
        """Seconds after which to look at the time again, whatever is due."""

    @property
    def patience(self) -> float:
        """Seconds of the machine's time that a shutdown may wait for runs, at most."""

    def now(self) -> datetime:
        """The wall-clock time: aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never goes back, whatever the wall clock does."""

    def call_later(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]
    ) -> Timer:
        """Call `callback` on `loop` in `delay` seconds. To be called on that loop's thread."""

    def attach(self, user: ClockUser) -> None:
        """A scheduler that uses this clock has started."""

    def detach(self, user: ClockUser) -> None:
        """That scheduler has stopped."""


class SystemClock:
    """The time of the machine."""

    __slots__ = ()

    longest_wait = 30.0
    """A wall clock that was set, or a machine that slept, is noticed within this time."""
    patience = float("inf")
    """Its time goes on, so runs end by themselves; `shutdown_timeout` is the bound."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[[], object]
    ) -> Timer:
        return loop.call_later(delay, callback)

    def attach(self, user: ClockUser) -> None:
        """Nothing to do: the machine's time goes on by itself."""

    def detach(self, user: ClockUser) -> None:
        """Nothing to do, as for `attach`."""
