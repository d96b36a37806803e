"""One start or shutdown of a scheduler at a time, whichever threads and loops ask for them."""

from __future__ import annotations

import asyncio
import threading

__all__ = ["Transition"]

POLL = 0.005
"""Seconds between two looks, for a coroutine. It happens only when two change the state at once,
and what a thread does cannot wake a coroutine of a loop that may be closed by then."""


class Transition:
    """A lock that coroutines can wait for too. Any thread may leave it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether it was entered on this thread, and not left since."""
        return self._owner == threading.get_ident()

    def enter(self, timeout: float = 0) -> bool:
        """Wait `timeout` seconds for one's turn. Returns whether it has come."""
        timeout = min(timeout, threading.TIMEOUT_MAX)
        if not self._lock.acquire(blocking=timeout > 0, timeout=timeout if timeout > 0 else -1):
            return False
        self._owner = threading.get_ident()
        return True

    async def aenter(self) -> None:
        """Wait for one's turn in a coroutine."""
        while not self.enter():  # noqa: ASYNC110
            await asyncio.sleep(POLL)

    def hand_over(self) -> None:
        """It goes on without this thread; somebody else will leave it."""
        self._owner = None

    def leave(self) -> None:
        """Let the next one have its turn."""
        self._owner = None
        self._lock.release()
