"""The runs of a file store that have ended: finding them, and forgetting them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.file_held import RunsUnderLock
from asyncz.stores.file_history import HistorySearch, LatestSearch, PruneSearch
from asyncz.stores.file_ledger import Ledger, Part, Row
from asyncz.stores.file_rows import rows_of
from asyncz.stores.file_walk import Walk

__all__ = ["FilePast"]


class FilePast(RunsUnderLock):
    """What is left of runs."""

    def begin_search(self, wanted: RunQuery | Sequence[str]) -> HistorySearch | LatestSearch:
        """What `go_on` goes on with.

        Args:
            wanted: What is asked for, or the tasks whose latest runs are.
        """
        with self._held() as ledger:
            if isinstance(wanted, RunQuery):
                return HistorySearch(wanted, ledger)
            return LatestSearch(wanted, ledger)

    def go_on(self, search: HistorySearch | LatestSearch) -> list[Run] | None:
        """Look at some more; the runs when that was all."""
        return None if self._walk_on(search) else search.result(self._writer)

    def _walk_on(self, walk: Walk) -> bool:
        if walk.goes_on:
            with self._held():
                journal, indexes = self._book.journal, self._book.indexes
            walk.read_on(journal, indexes)
        return walk.goes_on

    def begin_prune(
        self, task_id: str, states: frozenset[RunState], keep: int, before: datetime, limit: int
    ) -> PruneSearch:
        """What `prune_on` goes on with."""
        bound = to_microseconds(before)
        with self._held() as ledger:
            return PruneSearch(task_id, states, keep, bound, limit, ledger)

    def prune_on(self, search: PruneSearch) -> int | None:
        """Look at some more; when that was all, forget what was found, and say how many it is."""
        if self._walk_on(search):
            return None
        with self._held() as ledger:
            left = _Left(ledger)
            gone: dict[int, int] = {}
            count = 0
            for places in search.result():
                count += left.has(*places[0])
                for part, number in filter(lambda place: left.has(*place), places):
                    gone[part] = gone.get(part, 0) | 1 << number
            if gone:
                self._book.forget_some(gone)
            return count

    def forget(self, before: datetime, limit: int) -> int:
        bound = to_microseconds(before)
        with self._held() as ledger:
            first, forgotten = ledger.forgotten, 0
            number, passed = first
            for part in [*ledger.parts, ledger.part]:
                skip = first[1] if part.number == first[0] else 0
                left, most = part.left(skip), limit - forgotten
                if part.settled_until < bound and left <= most:
                    old, end = left, part.rows
                else:
                    old, end = self._count_old(ledger, part, skip, bound, most)
                forgotten += old
                if end < part.rows or part is ledger.part:
                    number, passed = part.number, end
                    break
                number, passed = part.number + 1, 0
            if (number, passed) != first:
                self._book.forget_until(number, passed)
            return forgotten

    def _count_old(
        self, ledger: Ledger, part: Part, skip: int, bound: int, most: int
    ) -> tuple[int, int]:
        """How many are to be forgotten, and the number of the first one that is not."""
        rows: Iterable[Row] = ledger.rows
        if part is not ledger.part:
            rows = rows_of(self._book.journal.read_part(part.number))
        old, bits = 0, part.bits
        for number, row in enumerate(rows):
            if number < skip:
                continue
            is_gone = bits >> number & 1
            if row["finished"] >= bound or (not is_gone and old == most):
                return old, number
            old += not is_gone
        return old, part.rows


class _Left:
    """Which occurrences are not forgotten."""

    def __init__(self, ledger: Ledger) -> None:
        self._first, self._passed = ledger.forgotten
        self._bits = {part.number: part.bits for part in [*ledger.parts, ledger.part]}

    def has(self, part: int, number: int) -> bool:
        """Whether the one of that number in that file is there."""
        if part not in self._bits or (part, number) < (self._first, self._passed):
            return False
        return not self._bits[part] >> number & 1
