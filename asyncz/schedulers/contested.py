"""Tasks that somebody else is about to move on: looked at again soon, and later each time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

__all__ = ["Contested"]

FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.25


class _Try(NamedTuple):
    """A claim that was lost: of which run time, how often before, until when to wait."""

    run_time: datetime | None
    before: int
    until: float


class Contested:
    """The tasks that were claimed in vain, by id. Times are those of the clock's `monotonic()`.

    Who loses a claim looks again at once, as somebody else has moved the task on. If nobody has,
    somebody holds it and has not said yet what becomes of it: a moment later that is known, or
    that one hangs.
    """

    def __init__(self) -> None:
        self._lost: dict[str, _Try] = {}
        self._before: dict[str, _Try] = {}

    def __bool__(self) -> bool:
        return any(lost.before for lost in self._lost.values())

    def begin(self, now: float) -> set[str]:
        """A pass begins. The ids of those that are not to be claimed in it."""
        waiting = self.waiting_at(now)
        self._before, self._lost = self._lost, {each: self._lost[each] for each in waiting}
        return waiting

    def waiting_at(self, now: float) -> set[str]:
        """The ids of those that are not to be claimed yet."""
        return {task_id for task_id, lost in self._lost.items() if lost.until > now}

    def note(self, task_id: str, run_time: datetime | None, now: float) -> bool:
        """A claim was lost. Whether it is worth while to look again at once."""
        known = self._before.get(task_id)
        before = known.before + 1 if known is not None and known.run_time == run_time else 0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(before - 1, 10)) if before else 0.0
        self._lost[task_id] = _Try(run_time, before, now + pause)
        return not before

    def next_try(self) -> float | None:
        """When the first of those that are waited for is to be tried again."""
        return min((lost.until for lost in self._lost.values() if lost.before), default=None)
