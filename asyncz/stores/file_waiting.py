"""The runs of a file store that wait for their next attempt, by the instant of it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Generator
from heapq import heapify, heappop, heappush

__all__ = ["TaskKey", "Waiting"]

STALE_ALLOWED = 1024

TaskKey = tuple[str, int]
"""A task's id, and its order of insertion."""
_Place = tuple[int, int]
"""When a run is tried again, in microseconds, and its number."""


class Waiting:
    """What is due first is known at once; of many that one task's limit holds up, none is gone
    through: they are kept by task, and of each task the first one stands in a heap.
    """

    def __init__(self) -> None:
        self._places: dict[TaskKey, list[_Place]] = {}
        self._firsts: list[tuple[_Place, TaskKey]] = []

    def __contains__(self, task: TaskKey) -> bool:
        return task in self._places

    def add(self, task: TaskKey, retry: int, number: int) -> None:
        """A run waits until then."""
        places = self._places.setdefault(task, [])
        insort(places, (retry, number))
        if places[0] == (retry, number):
            self._put_first(task)

    def remove(self, task: TaskKey, retry: int, number: int) -> None:
        """One that waited does so no longer."""
        places = self._places[task]
        index = bisect_left(places, (retry, number))
        del places[index]
        if not places:
            del self._places[task]
        elif index == 0:
            self._put_first(task)

    def first(self) -> int | None:
        """When the first one is due; None: none waits."""
        firsts = self._firsts
        while firsts:
            place, task = firsts[0]
            if self._is_first(place, task):
                return place[0]
            heappop(firsts)
        return None

    def due(self, now: int) -> Generator[TaskKey]:
        """The tasks of which a run is due, that of the earliest first. To be closed."""
        firsts = self._firsts
        out: list[tuple[_Place, TaskKey]] = []
        try:
            while firsts and firsts[0][0][0] <= now:
                item = heappop(firsts)
                if self._is_first(*item) and (not out or out[-1] != item):
                    out.append(item)
                    yield item[1]
        finally:
            for item in out:
                heappush(firsts, item)

    def of(self, task: TaskKey, now: int, most: int) -> list[int]:
        """The numbers of so many runs of a task that are due, the earliest first."""
        places = self._places.get(task, ())
        return [number for retry, number in places[:most] if retry <= now]

    def _put_first(self, task: TaskKey) -> None:
        firsts = self._firsts
        if len(firsts) > 2 * len(self._places) + STALE_ALLOWED:
            firsts[:] = {item for item in firsts if self._is_first(*item)}
            heapify(firsts)
        heappush(firsts, (self._places[task][0], task))

    def _is_first(self, place: _Place, task: TaskKey) -> bool:
        places = self._places.get(task)
        return places is not None and places[0] == place
