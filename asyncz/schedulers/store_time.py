"""What time it is in a store: of the clocks of those that share it, only the store's counts."""

from __future__ import annotations

from datetime import datetime, timedelta

from asyncz.clock import Clock

__all__ = ["StoreTime"]


class StoreTime:
    """Goes on with the time that a store has told, by this machine's elapsed time.

    Args:
        clock: This machine's, whose time of day may be wrong by hours.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch: datetime | None = None

    def note(self, now: datetime, asked: float, answered: float) -> None:
        """The store's time was `now` at some moment between the question and the answer.

        Args:
            asked, answered: Of the clock's `monotonic`.
        """
        latest, earliest = now - timedelta(seconds=asked), now - timedelta(seconds=answered)
        if self._epoch is None or not earliest <= self._epoch <= latest:
            self._epoch = earliest + (latest - earliest) / 2

    def now(self) -> datetime:
        """The store's time; while nothing is known of it, this machine's."""
        if self._epoch is None:
            return self._clock.now()
        return self._epoch + timedelta(seconds=self._clock.monotonic())
