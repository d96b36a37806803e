"""The occurrences in a file store's journal: how they are found again, and which are too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappush, heapreplace
from itertools import count
from math import inf
from typing import Any

from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.file_ledger import Ledger, Row
from asyncz.stores.file_live import LiveRun
from asyncz.stores.file_rows import RowWriter, open_rows
from asyncz.stores.file_walk import Walk, Wanted

__all__ = ["HistorySearch", "LatestSearch", "PruneSearch"]

NOWHERE = 0


class HistorySearch(Walk):
    """The occurrences that a query is for.

    Args:
        query: What.
        ledger: As it is now.
    """

    def __init__(self, query: RunQuery, ledger: Ledger) -> None:
        task_ids = None if query.task_id is None else frozenset((query.task_id,))
        moments = (None if at is None else to_microseconds(at) for at in (query.since, query.until))
        super().__init__(Wanted(task_ids, query.states, *moments), ledger)
        self._limit = query.limit
        self._best: list[tuple[int, str, int, Row]] = []
        self._serials = count()
        for row in open_rows(_of(ledger, task_ids)):
            if self.wanted.matches(row):
                self.see(row, NOWHERE, 0)

    def is_enough(self, due_until: int) -> bool:
        return len(self._best) >= self._limit and (not self._best or due_until < self._best[0][0])

    def see(self, row: Row, part: int, number: int) -> None:
        item = row["at"], row["task"], next(self._serials), row
        if len(self._best) < self._limit:
            heappush(self._best, item)
        elif self._best and item[:2] > self._best[0][:2]:
            heapreplace(self._best, item)

    def result(self, writer: RowWriter) -> list[Run]:
        """What was found, the latest first."""
        best = sorted(self._best, key=lambda item: item[:2], reverse=True)
        return [writer.run(item[3]) for item in best]


class LatestSearch(Walk):
    """The latest occurrence of each of some tasks.

    Args:
        task_ids: Theirs.
        ledger: As it is now.
    """

    def __init__(self, task_ids: Iterable[str], ledger: Ledger) -> None:
        ids = frozenset(task_ids)
        super().__init__(Wanted(ids), ledger)
        self._missing = set(ids)
        self._earliest: float = inf
        self._latest: dict[str, Row] = {}
        for row in open_rows(_of(ledger, ids)):
            self.see(row, NOWHERE, 0)

    def is_enough(self, due_until: int) -> bool:
        return not self._missing and due_until < self._earliest

    def still_wanted(self, due_until: int) -> Iterable[str]:
        later = {task_id for task_id, row in self._latest.items() if row["at"] >= due_until}
        return (self.wanted.task_ids or frozenset()) - later

    def see(self, row: Row, part: int, number: int) -> None:
        before = self._latest.get(row["task"])
        if before is None or before["at"] < row["at"]:
            self._latest[row["task"]] = row
            self._missing.discard(row["task"])
            if not self._missing:
                self._earliest = min(each["at"] for each in self._latest.values())

    def result(self, writer: RowWriter) -> list[Run]:
        """What was found."""
        return [writer.run(row) for row in self._latest.values()]


class PruneSearch(Walk):
    """The settled occurrences of a task that are behind its latest ones, or old.

    Args:
        task_id, states, keep, before, limit: As of `ClusterStore.prune_runs`, in microseconds.
        ledger: As it is now.
    """

    def __init__(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: int,
        limit: int,
        ledger: Ledger,
    ) -> None:
        super().__init__(Wanted(frozenset((task_id,)), states), ledger)
        self._keep = keep
        self._before = before
        self._limit = limit
        self._kept: list[tuple[int, int, Row, tuple[int, int]]] = []
        self._serials = count()
        self._behind: list[tuple[int, int]] = []
        self._older: dict[Any, list[tuple[int, int]]] = {}
        self._replacing: dict[tuple[int, int], Any] = {}

    def is_enough(self, due_until: int) -> bool:
        # What was replaced must not come to light again when what has replaced it is forgotten.
        return len(self._behind) >= self._limit and not self._replacing

    def see(self, row: Row, part: int, number: int) -> None:
        place = part, number
        if "again" in row:
            self._replacing[place] = _identity(row)
            self.look_at_all_states()
        item = row["at"], next(self._serials), row, place
        if len(self._kept) < self._keep:
            heappush(self._kept, item)
        elif self._kept and row["at"] > self._kept[0][0]:
            self._behind.append(heapreplace(self._kept, item)[3])
        else:
            self._behind.append(place)

    def see_replaced(self, row: Row, part: int, number: int) -> None:
        self._older.setdefault(_identity(row), []).append((part, number))

    def result(self) -> Iterator[list[tuple[int, int]]]:
        """The places of those that are to be forgotten; the first of each counts."""
        old = (place for _, _, row, place in self._kept if row["finished"] < self._before)
        chosen = [*self._behind, *old][: self._limit]
        for place in chosen:
            yield [place, *self._older.get(self._replacing.get(place), ())]


def _identity(row: Row) -> tuple[Any, ...]:
    return row["task"], row["kind"], row["at"], row["gen"]


def _of(ledger: Ledger, task_ids: frozenset[str] | None) -> Iterable[LiveRun]:
    runs = ledger.live.by_number.values()
    return runs if task_ids is None else (run for run in runs if run.task_id in task_ids)
