"""Going through the settled occurrences of a file store from the last one back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from asyncz.clock import SystemClock
from asyncz.enums import RunState
from asyncz.serializers.json import ENCODER
from asyncz.stores.file_journal import Journal
from asyncz.stores.file_ledger import Ledger, Part, Row
from asyncz.stores.file_part_index import ANY_STATE, PartIndex, PartIndexes, hash_of, mask_of
from asyncz.stores.file_rows import rows_of

__all__ = ["Walk", "Wanted"]

CLOCK = SystemClock()  # how long a step takes is up to the machine

STEP = 0.003
"""Seconds after which others may use the store in between; a file is gone through in any case."""


class Wanted(NamedTuple):
    """Which occurrences.

    Args:
        task_ids: Of these tasks; None: of all.
        states: In one of these; empty: in any.
        since, until: Due then, in microseconds, both included; None: at any time.
    """

    task_ids: frozenset[str] | None = None
    states: frozenset[RunState] = frozenset()
    since: int | None = None
    until: int | None = None

    def matches(self, row: Row) -> bool:
        """Whether an occurrence is wanted."""
        return (
            (self.task_ids is None or row["task"] in self.task_ids)
            and (not self.states or row["state"] in self.states)
            and self.overlaps(row["at"], row["at"])
        )

    def overlaps(self, low: int, high: int) -> bool:
        """Whether something that is due between those instants may be."""
        return (self.since is None or high >= self.since) and (
            self.until is None or low <= self.until
        )


class Walk(ABC):
    """Goes through the journal from its end until nothing more is wanted.

    What has been settled since the last file was begun is in memory. Of the others, the index says
    which lines have to be read.

    Args:
        wanted: What is looked for.
        ledger: As it is now; what changes afterwards is not seen.
    """

    def __init__(self, wanted: Wanted, ledger: Ledger) -> None:
        self.wanted = wanted
        self._states = mask_of(wanted.states)
        self._hashes = (
            None
            if wanted.task_ids is None
            else {task_id: hash_of(task_id) for task_id in wanted.task_ids}
        )
        self._recent: tuple[Part, Sequence[Row], Sequence[int]] | None = None
        if ledger.rows and self._states:
            self._recent = ledger.part, ledger.rows, ledger.due_until
        self._parts = [part for part in ledger.parts if part.rows and self._states]
        self._due_until = [*accumulate((part.due_until for part in self._parts), max)]
        self._forgotten = ledger.forgotten
        self._replaced: set[tuple[Any, ...]] = set()

    @abstractmethod
    def is_enough(self, due_until: int) -> bool:
        """Whether nothing is wanted that was due until then, and is not known yet."""

    @abstractmethod
    def see(self, row: Row, part: int, number: int) -> None:
        """An occurrence that is wanted, and where it is."""

    def still_wanted(self, due_until: int) -> Iterable[str]:
        """The tasks of which something is that was due until then."""
        return self.wanted.task_ids or ()

    def see_replaced(self, row: Row, part: int, number: int) -> None:
        """One that another one has taken the place of."""
        return

    def look_at_all_states(self) -> None:
        """From now on, what may have been replaced is of interest too."""
        self._states = ANY_STATE

    @property
    def goes_on(self) -> bool:
        """Whether there is something left to be looked at."""
        if self._recent is not None:
            return True
        return bool(self._parts) and not self._is_past(self._due_until[-1])

    def read_on(self, journal: Journal, indexes: PartIndexes) -> None:
        """Look at some more."""
        end = CLOCK.monotonic() + STEP
        if self._recent is not None:
            self._read_recent(*self._recent)
            self._recent = None
        while self.goes_on and CLOCK.monotonic() < end:
            part = self._parts.pop()
            self._due_until.pop()
            if self.wanted.overlaps(part.due_from, part.due_until):
                try:
                    self._read_part(part, journal, indexes)
                except OSError:
                    continue  # it was forgotten meanwhile

    def _is_past(self, due_until: int) -> bool:
        since = self.wanted.since
        return self.is_enough(due_until) or (since is not None and due_until < since)

    def _read_recent(self, part: Part, rows: Sequence[Row], due_until: Sequence[int]) -> None:
        if not self.wanted.overlaps(part.due_from, part.due_until):
            return
        bits = part.bits
        for number in self._recent_numbers(rows, self._passed(part), part.rows):
            if self._is_past(due_until[number]):
                break
            if not bits >> number & 1:
                self._look_at(rows[number], part.number, number)

    def _recent_numbers(self, rows: Sequence[Row], first: int, end: int) -> Sequence[int]:
        """Those that may be wanted, the last one first."""
        task_ids, states, since, until = self.wanted
        numbers: Sequence[int] = range(end - 1, first - 1, -1)
        if task_ids is not None:
            numbers = [number for number in numbers if rows[number]["task"] in task_ids]
        if since is not None:
            numbers = [number for number in numbers if rows[number]["at"] >= since]
        if until is not None:
            numbers = [number for number in numbers if rows[number]["at"] <= until]
        if states:
            numbers = [
                number
                for number in numbers
                if rows[number]["state"] in states or "again" in rows[number]
            ]
        return numbers

    def _read_part(self, part: Part, journal: Journal, indexes: PartIndexes) -> None:
        passed, bits = self._passed(part), part.bits
        index = indexes.of(journal, part.number)
        for place, numbers in self._places(index, part, passed):
            block = index.blocks[place]
            if self._is_past(block.due_until):
                break
            if not self.wanted.overlaps(block.low, block.high) or not block.states & self._states:
                continue
            for number, row in reversed(self._rows_of(journal, part.number, index, place, numbers)):
                if number >= passed and not bits >> number & 1:
                    self._look_at(row, part.number, number)

    def _passed(self, part: Part) -> int:
        return self._forgotten[1] if part.number == self._forgotten[0] else 0

    def _places(
        self, index: PartIndex, part: Part, passed: int
    ) -> Iterator[tuple[int, list[int] | None]]:
        """The blocks to look at, the last one first, and which of their occurrences may be meant;
        None: any.
        """
        if self._hashes is None:
            yield from ((place, None) for place in range(len(index.blocks) - 1, -1, -1))
            return
        hashes = {self._hashes[task_id] for task_id in self.still_wanted(part.due_until)}
        numbers = sorted(number for each in hashes for number in index.rows_of(each))
        if not numbers:
            return
        found: dict[int, list[int]] = {}
        there: set[int] = set()
        bits, firsts = part.bits, [block.first for block in index.blocks]
        for number in numbers:
            place = bisect_right(firsts, number) - 1
            found.setdefault(place, []).append(number)
            if number >= passed and not bits >> number & 1:
                there.add(place)
        yield from ((place, found[place]) for place in sorted(there, reverse=True))

    def _rows_of(
        self,
        journal: Journal,
        part: int,
        index: PartIndex,
        place: int,
        numbers: list[int] | None,
    ) -> list[tuple[int, Row]]:
        start, until = index.blocks[place].start, index.until(place)
        task_ids = self.wanted.task_ids
        if numbers is not None and task_ids is not None and len(task_ids) == 1:
            (task_id,) = task_ids
            having = ENCODER.encode(task_id).encode(errors="backslashreplace")
            rows = [
                row
                for row in _rows(journal.read_span(part, start, until, having))
                if row["task"] == task_id
            ]
            if len(rows) == len(numbers):  # as always, unless another id has the same hash
                return [*zip(numbers, rows, strict=True)]
        return [*enumerate(_rows(journal.read_span(part, start, until)), index.blocks[place].first)]

    def _look_at(self, row: Row, part: int, number: int) -> None:
        if self._hashes is not None and row["task"] not in (self.wanted.task_ids or ()):
            return
        identity = row["task"], row["kind"], row["at"], row["gen"]
        if identity in self._replaced:
            self.see_replaced(row, part, number)
            return
        if "again" in row:
            self._replaced.add(identity)
        if self.wanted.matches(row):
            self.see(row, part, number)


def _rows(lines: Iterable[tuple[int, Any]]) -> Iterator[Row]:
    return rows_of(change for _, change in lines)
