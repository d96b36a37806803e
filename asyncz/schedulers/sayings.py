"""What runs say of themselves while they go on, on its way to where it is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncz.clock import Timer
from asyncz.runs.current import CurrentRun
from asyncz.stores.quarantine import reason

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Sayings"]

EVERY = 1.0
"""Seconds between two times that it is kept."""


class Sayings:
    """Collects what runs say, and has it kept at most once a second.

    Args:
        engine, alias: Whose.
        keep: Keeps what runs have said so far, by the names of those runs.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        keep: Callable[[dict[tuple[str, datetime], dict[str, Any]]], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._keep = keep
        self._new: dict[tuple[str, datetime], CurrentRun] = {}
        self._is_asked = False
        self._is_stopped = False
        self._kept_at = float("-inf")
        self._timer: Timer | None = None

    def add(self, key: tuple[str, datetime], run: CurrentRun) -> None:
        """A run has something new to say. From any thread."""
        self._new[key] = run
        if not self._is_asked:
            self._is_asked = True
            with suppress(RuntimeError):  # the engine's loop was closed
                self._engine.loop.call_soon_threadsafe(self._set_timer)

    def forget(self, key: tuple[str, datetime]) -> None:
        """A run has ended: what it has said goes with its outcome, and is not the next one's."""
        self._new.pop(key, None)

    def stop(self) -> None:
        """Keep nothing any more."""
        self._is_asked = self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is None and not self._is_stopped:
            clock = self._engine.clock
            wait = max(0.0, self._kept_at + EVERY - clock.monotonic())
            self._timer = clock.call_later(self._engine.loop, wait, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._is_asked = False
        self._kept_at = self._engine.clock.monotonic()
        new, self._new = self._new, {}
        said = {key: run.notes() for key, run in new.items()}
        self._engine.background(self._kept(said), f"asyncz notes of runs in {self._alias}")

    async def _kept(self, said: dict[tuple[str, datetime], dict[str, Any]]) -> None:
        try:
            await self._keep(said)
        except Exception as exc:  # their outcomes will say it again
            self._engine.logger.warning(
                "What runs say of themselves cannot be kept in the store %r: %s",
                self._alias,
                reason(exc),
            )
