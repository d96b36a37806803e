"""Tasks that are due but cannot be handed on: held back, each with a back-off of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Hold", "HoldBook"]

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0


class Hold(NamedTuple):
    """Why a task is held back, how often that has happened, and until when (monotonic)."""

    error: str
    failures: int
    until: float


class HoldBook:
    """The held-back tasks of one store, by id. Times are those of the clock's `monotonic()`."""

    __slots__ = ("_holds",)

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    def __bool__(self) -> bool:
        return bool(self._holds)

    def __len__(self) -> int:
        return len(self._holds)

    def __iter__(self) -> Iterator[tuple[str, Hold]]:
        return iter(self._holds.items())

    def hold(self, task_id: str, error: str, now: float) -> bool:
        """Hold a task back, longer each time. Returns whether the error is news."""
        before = self._holds.get(task_id)
        failures = before.failures + 1 if before is not None else 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
        self._holds[task_id] = Hold(error, failures, now + wait)
        return before is None or before.error != error

    def release(self, task_id: str) -> bool:
        """The task was handed on, changed or deleted. Returns whether it was held back."""
        return self._holds.pop(task_id, None) is not None

    def get(self, task_id: str) -> Hold | None:
        """What a task is held back for, if it is."""
        return self._holds.get(task_id)

    def ids(self) -> frozenset[str]:
        """The ids of all of them."""
        return frozenset(self._holds)

    def held_at(self, now: float) -> set[str]:
        """The ids that are to be passed over now."""
        return {task_id for task_id, hold in self._holds.items() if hold.until > now}

    def next_try(self) -> float | None:
        """When the first of them is to be tried again."""
        return min((hold.until for hold in self._holds.values()), default=None)
