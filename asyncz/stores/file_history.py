"""Occurrences as they stand in the journal of a file store, and how they are found again."""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Any

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import ENCODER, from_microseconds, to_microseconds
from asyncz.stores.cluster import RunOutcome, Unrun
from asyncz.stores.file_journal import Change, Journal
from asyncz.stores.file_ledger import LiveRun, Part, Row, RunKey
from asyncz.stores.file_thread import give_way
from asyncz.stores.serializing import Codec

__all__ = ["HistorySearch", "LatestSearch", "RowWriter", "SettledRuns", "rows_of"]

SCHEDULED = RunKind.SCHEDULED.value
REPLACED = frozenset({"texts", "sealed", "finished"})


class RowWriter:
    """Makes rows, and runs of rows.

    What an exception or a reason says may be a secret of the user's: if the store keeps such, the
    texts of an outcome are encrypted as the task's record is.

    Args:
        codec: The store's.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def settled(self, run: LiveRun, outcome: RunOutcome, *, state: str | None = None) -> Row:
        """The row of one occurrence of a run that has ended."""
        at = to_microseconds(outcome.scheduled_time)
        row = _row(run.task_id, run.kind, at, state or outcome.state.value, run.generation)
        row.update(owner=run.owner, tried=run.attempt, token=run.token, claimed=run.claimed)
        if run.started is not None:
            row["started"] = run.started
        self._add_texts(row, outcome)
        return row

    def amended(self, row: Row, outcome: RunOutcome) -> Row:
        """The row that takes the place of another one, of a run that was not lost after all."""
        kept = {name: value for name, value in row.items() if name not in REPLACED}
        kept.update(at=to_microseconds(outcome.scheduled_time), state=outcome.state.value, again=1)
        self._add_texts(kept, outcome)
        return kept

    def unrun(self, task_id: str, generation: int, owner: str, now: int, unrun: Unrun) -> Row:
        """The row of occurrences that were not run."""
        at = to_microseconds(unrun.first)
        row = _row(task_id, SCHEDULED, at, unrun.state.value, generation)
        row.update(owner=owner, claimed=now, count=unrun.occurrences, texts=[unrun.reason])
        if unrun.occurrences > 1:
            row["last"] = to_microseconds(unrun.last)
        return row

    def _add_texts(self, row: Row, outcome: RunOutcome) -> None:
        # The name of a file may be no valid text, and errors name files.
        texts = [
            None if text is None else text.encode(errors="backslashreplace").decode()
            for text in (outcome.reason, outcome.error, outcome.traceback)
        ]
        while texts and texts[-1] is None:
            texts.pop()
        if not texts:
            return
        if self._codec.is_secret:
            told = json.dumps({"id": row["task"], "texts": texts}).encode()
            row["sealed"] = b64encode(self._codec.encrypt(told)).decode()
        else:
            row["texts"] = texts

    def run(self, row: Row) -> Run:
        """What is known of the occurrence of a row."""
        reason, error, traceback = self._texts(row)
        return Run(
            task_id=row["task"],
            store_alias=self._codec.alias,
            kind=RunKind(row["kind"]),
            scheduled_time=from_microseconds(row["at"]),
            state=RunState(row["state"]),
            occurrences=row.get("count", 1),
            last_scheduled_time=_moment(row.get("last")),
            owner=row.get("owner"),
            attempt=row.get("tried", 0),
            token=row.get("token", 0),
            claimed_at=_moment(row.get("claimed")),
            started_at=_moment(row.get("started")),
            finished_at=_moment(row.get("finished")),
            reason=reason,
            error=error,
            traceback=traceback,
        )

    def _texts(self, row: Row) -> list[str | None]:
        texts: list[str | None] = list(row.get("texts", ()))
        if "sealed" in row:
            try:
                told = json.loads(self._codec.decrypt(b64decode(row["sealed"])))
                texts = told["texts"] if told["id"] == row["task"] else []
            except (UnreadableRecordError, Base64Error, ValueError, KeyError, TypeError):
                texts = ["what it said cannot be decrypted here"]
        return [*texts, None, None, None][:3]


def _row(task_id: str, kind: str, at: int, state: str, generation: int) -> Row:
    # An occurrence is not fired again, whatever became of it; only rows with `ran` are asked then.
    return {"task": task_id, "kind": kind, "at": at, "state": state, "gen": generation, "ran": 1}


def _moment(count: int | None) -> datetime | None:
    return None if count is None else from_microseconds(count)


def rows_of(changes: Iterable[Change]) -> Iterator[Row]:
    """The rows that are in changes, in order; each knows when it was settled."""
    for change in changes:
        for row in change.get("rows", ()):
            give_way()
            row["finished"] = change["at"]
            yield row


def open_rows(runs: Iterable[LiveRun]) -> Iterator[Row]:
    """The same of runs that are open."""
    for run in runs:
        for at in run.times:
            state = run.state if at == run.times[0] else RunState.QUEUED.value
            row = _row(run.task_id, run.kind, at, state, run.generation)
            row.update(owner=run.owner, tried=run.attempt, token=run.token, claimed=run.claimed)
            row["started"] = run.started
            yield row


class HistorySearch:
    """Goes through the journal from its end, a file at a time, until it has what is wanted.

    Args:
        query: What.
        runs: Those that are open.
        parts: The files, the last one first.
        until: How far to read the first of these; None: all of it.
        forgotten: The number of the first file, and how many of its rows are not to be seen.
    """

    def __init__(
        self,
        query: RunQuery,
        runs: Iterable[LiveRun],
        parts: Sequence[Part],
        until: int | None,
        forgotten: tuple[int, int],
    ) -> None:
        self._query = query
        self._states = {state.value for state in query.states}
        self._since = None if query.since is None else to_microseconds(query.since)
        self._parts = list(parts)
        self._until = until
        self._forgotten = forgotten
        self._replaced: set[tuple[Any, ...]] = set()
        self._best = self._choose(open_rows(runs))

    @property
    def goes_on(self) -> bool:
        """Whether there is a file left that may have more of it."""
        if not self._parts:
            return False
        full = len(self._best) >= self._query.limit
        due_until = max(part.due_until for part in self._parts)
        if self._since is not None and due_until < self._since:
            return False
        return not full or not self._best or due_until >= self._best[-1]["at"]

    def read_next(self, journal: Journal) -> None:
        """Look through the next file."""
        part, until = self._parts.pop(0), self._until
        self._until = None
        passed = self._forgotten[1] if part.number == self._forgotten[0] else 0
        having = b""
        if self._query.task_id is not None and not passed:
            having = ENCODER.encode(self._query.task_id).encode(errors="replace")
        try:
            rows = list(rows_of(journal.read_part(part.number, until, having)))
        except OSError:
            return  # it was forgotten meanwhile
        del rows[:passed]
        self._best = self._choose([*self._best, *self._current(reversed(rows))])

    def _current(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            identity = row["task"], row["kind"], row["at"], row["gen"]
            if identity in self._replaced:
                continue
            if "again" in row:
                self._replaced.add(identity)
            if self._matches(row):
                yield row

    def _choose(self, rows: Iterable[Row]) -> list[Row]:
        wanted = filter(self._matches, rows)
        return nlargest(self._query.limit, wanted, key=lambda row: (row["at"], row["task"]))

    def _matches(self, row: Row) -> bool:
        return (
            (self._query.task_id is None or row["task"] == self._query.task_id)
            and (not self._states or row["state"] in self._states)
            and (self._since is None or row["at"] >= self._since)
        )

    def result(self, writer: RowWriter) -> list[Run]:
        """What was found, the latest first."""
        return [writer.run(row) for row in self._best]


class LatestSearch(HistorySearch):
    """The same for the latest occurrence of each of some tasks, in one go through the files.

    Args:
        task_ids: Theirs.
        runs, parts, until, forgotten: As for `HistorySearch`.
    """

    def __init__(
        self,
        task_ids: Iterable[str],
        runs: Iterable[LiveRun],
        parts: Sequence[Part],
        until: int | None,
        forgotten: tuple[int, int],
    ) -> None:
        self._task_ids = frozenset(task_ids)
        super().__init__(RunQuery(limit=len(self._task_ids)), runs, parts, until, forgotten)

    def _choose(self, rows: Iterable[Row]) -> list[Row]:
        latest: dict[str, Row] = {}
        for row in filter(self._matches, rows):
            before = latest.get(row["task"])
            if before is None or before["at"] < row["at"]:
                latest[row["task"]] = row
        return super()._choose(latest.values())

    def _matches(self, row: Row) -> bool:
        return row["task"] in self._task_ids


class SettledRuns:
    """Says of a run whether it was settled before, in any of the files.

    A run is settled after it was due. So only files that were written since are looked at, which
    is none but the last one, as a rule.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, array[int]] = {}

    def find(
        self, journal: Journal, parts: Sequence[Part], last: dict[RunKey, Row], key: RunKey
    ) -> Row | None:
        """Its row; None: it was not.

        Args:
            journal: Where to look.
            parts: The sealed files.
            last: What was settled in the last file.
            key: The run.
        """
        if row := last.get(key):
            return row
        for part in reversed(parts):
            if part.settled_until >= key[2] and self._may_have(journal, part, key):
                for row in reversed(self._ran(journal, part)):
                    if (row["task"], row["kind"], row["at"]) == key:
                        return row
        return None

    def forget(self, parts: Sequence[Part]) -> None:
        """Keep nothing in mind of other files than these."""
        for number in self._hashes.keys() - {part.number for part in parts}:
            del self._hashes[number]

    def _may_have(self, journal: Journal, part: Part, key: RunKey) -> bool:
        hashes = self._hashes.get(part.number)
        if hashes is None:
            keys = ((row["task"], row["kind"], row["at"]) for row in self._ran(journal, part))
            self._hashes[part.number] = hashes = array("q", sorted(map(hash, keys)))
        wanted = hash(key)
        place = bisect_left(hashes, wanted)
        return place < len(hashes) and hashes[place] == wanted

    def _ran(self, journal: Journal, part: Part) -> list[Row]:
        try:
            return [row for row in rows_of(journal.read_part(part.number)) if "ran" in row]
        except OSError:
            return []
