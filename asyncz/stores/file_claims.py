"""What becomes of firings in a file store, before anything of it is written."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.base import Record
from asyncz.serializers.json import JSONSerializer, to_microseconds
from asyncz.stores.cluster import Fired, Firing, Unrun
from asyncz.stores.file_book import RunBook
from asyncz.stores.file_entries import Entry
from asyncz.stores.file_index import RecordIndex
from asyncz.stores.file_journal import Change
from asyncz.stores.file_ledger import Move, Row
from asyncz.stores.file_rows import RowWriter
from asyncz.stores.file_thread import give_way
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task

__all__ = ["Claims", "answers", "kept_record", "read_kept"]

LETTERS = {Fired.WON: "W", Fired.SKIPPED: "S", Fired.REPEATED: "R", Fired.LOST: "L"}
MEANINGS = {letter: fired for fired, letter in LETTERS.items()}


def answers(said: str) -> list[Fired]:
    """What a claim was told, of the letters that stand for it."""
    return [MEANINGS[letter] for letter in said]


def kept_record(codec: Codec, record: Record) -> Record | str:
    """A task's record as it stands in the journal: as it is, unless it has to be encrypted."""
    if not codec.is_secret and isinstance(codec.serializer, JSONSerializer):
        return record
    return b64encode(codec.pack(record)).decode()


def read_kept(codec: Codec, kept: Record | str) -> Task:
    """The task of that. Raises UnreadableRecordError."""
    if isinstance(kept, str):
        try:
            kept = codec.unpack(b64decode(kept))
        except ValueError as exc:
            raise UnreadableRecordError(f"The record is not as it was written: {exc}") from None
    return codec.build(kept)


class Claims:
    """The firings of one call.

    Args:
        node_id, claim, now: Whose, under which id, when (microseconds).
        book, index, codec, writer: The store's.
    """

    def __init__(
        self,
        node_id: str,
        claim: str,
        now: int,
        book: RunBook,
        index: RecordIndex,
        codec: Codec,
        writer: RowWriter,
    ) -> None:
        self._node_id = node_id
        self._claim = claim
        self._now = now
        self._book = book
        self._index = index
        self._codec = codec
        self._writer = writer
        self._moves: list[Move] = []
        self._runs: list[list[Any]] = []
        self._rows: list[Row] = []
        self._kept: list[list[Any]] = []
        self._number = book.ledger.last_number
        self.entries: dict[str, Entry] = {}
        """Of the tasks that move, as they were found."""

    def settle(self, firings: Iterable[Firing]) -> list[Fired]:
        """Say what becomes of each."""
        said = []
        for firing in firings:
            give_way()
            said.append(self._settle(firing))
        return said

    def change(self, said: Sequence[Fired]) -> Change:
        """What has to be written for that to be so."""
        return {
            "op": "fire",
            "node": self._node_id,
            "claim": self._claim,
            "at": self._now,
            "said": "".join(LETTERS[fired] for fired in said),
            "moves": self._moves,
            "runs": self._runs,
            "rows": self._rows,
            "kept": self._kept,
        }

    def _settle(self, firing: Firing) -> Fired:
        task, run_times = firing.task, firing.run_times
        task_id = str(task.id)
        entry = self._index.find(task_id)
        expected = _microseconds(firing.expected)
        if entry is None or entry.error is not None or entry.next_run != expected:
            return Fired.LOST
        busy = self._book.ledger.live.active.get(task_id, 0) >= task.max_instances
        manual = firing.kind is RunKind.MANUAL
        if manual and busy:
            return Fired.SKIPPED
        following = _microseconds(firing.next_run_time)
        if firing.forget or following != expected:
            move = Move(task_id, entry.order, expected, following, firing.forget)
            self._moves.append(move)
            self.entries[task_id] = entry
        if firing.forget:
            self._keep_for_those_before(task_id, entry)
        for unrun in firing.unrun:
            self._add_unrun(task_id, entry, unrun)
        if not run_times:
            return Fired.WON
        if self._is_known(task_id, firing.kind, run_times[0], entry.order):
            return Fired.REPEATED
        if busy:
            why = f"{task.max_instances} run(s) went on, as many as max_instances allows"
            skipped = Unrun(RunState.SKIPPED, run_times[0], run_times[-1], len(run_times), why)
            self._add_unrun(task_id, entry, skipped)
            return Fired.SKIPPED
        self._add_run(task_id, entry, firing)
        return Fired.WON

    def _keep_for_those_before(self, task_id: str, entry: Entry) -> None:
        """The runs of a task that has come to its end are taken over all the same."""
        if entry.record is not None and self._book.ledger.live.has_any((task_id, entry.order)):
            record = kept_record(self._codec, entry.record)
            self._kept.append([task_id, entry.order, record])

    def _is_known(self, task_id: str, kind: RunKind, moment: datetime, generation: int) -> bool:
        key = task_id, kind.value, to_microseconds(moment)
        if self._book.ledger.is_open(key):
            return True
        row = self._book.find_settled(key)
        return row is not None and row["gen"] == generation

    def _add_unrun(self, task_id: str, entry: Entry, unrun: Unrun) -> None:
        row = self._writer.unrun(task_id, entry.order, self._node_id, self._now, unrun)
        self._rows.append(row)

    def _add_run(self, task_id: str, entry: Entry, firing: Firing) -> None:
        self._number += 1
        record: Record | str | None = None
        if firing.forget and entry.record is not None:
            record = kept_record(self._codec, entry.record)
        once = firing.task.delivery is Delivery.AT_MOST_ONCE
        times = [to_microseconds(moment) for moment in firing.run_times]
        self._runs.append(
            [self._number, task_id, firing.kind.value, times, entry.order, once, record]
        )


def _microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else to_microseconds(moment)
