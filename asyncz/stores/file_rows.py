"""Occurrences as they stand in the journal of a file store: from what is said of them, and back."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.runs.base import NOTES, Run, readable_notes
from asyncz.serializers.json import DECODER, ENCODER, from_microseconds, to_microseconds
from asyncz.stores.cluster import RunOutcome, Unrun
from asyncz.stores.file_journal import Change
from asyncz.stores.file_ledger import Row
from asyncz.stores.file_live import LiveRun, Said
from asyncz.stores.file_thread import give_way
from asyncz.stores.serializing import Codec

__all__ = ["RowWriter", "open_rows", "rows_of"]

SCHEDULED = RunKind.SCHEDULED.value
REPLACED = frozenset({"texts", "notes", "sealed", "said", "noted", "finished"})
UNREADABLE = "what it said cannot be decrypted here"
_HALF = re.compile("[\ud800-\udfff]")


class RowWriter:
    """Makes rows, and runs of rows.

    What an exception or a reason says may be a secret of the user's: if the store keeps such, the
    texts and notes of an outcome are encrypted as the task's record is.

    Args:
        codec: The store's.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def settled(self, run: LiveRun, outcome: RunOutcome) -> Row:
        """The row of one occurrence of a run that has ended."""
        at = to_microseconds(outcome.scheduled_time)
        row = _row(run.task_id, run.kind, at, outcome.state.value, run.generation)
        row.update(owner=run.owner, tried=run.attempt, token=run.token, claimed=run.claimed)
        if run.started is not None:
            row["started"] = run.started
        if said := self.say(run.task_id, outcome):
            row.update(said)
        return row

    def ended(self, run: LiveRun, state: RunState, why: str) -> Iterator[Row]:
        """The rows of a run that was ended by others: what was known of it is kept."""
        for at in run.times:
            row = self.settled(run, RunOutcome(from_microseconds(at), state, reason=why))
            if at == run.times[0]:
                row.update(_known_of(run))
            yield row

    def amended(self, row: Row, outcome: RunOutcome) -> Row:
        """The row that takes the place of another one, of a run that was not lost after all."""
        kept = {name: value for name, value in row.items() if name not in REPLACED}
        kept.update(at=to_microseconds(outcome.scheduled_time), state=outcome.state.value, again=1)
        if said := self.say(row["task"], outcome):
            kept.update(said)
        return kept

    def unrun(self, task_id: str, generation: int, owner: str, now: int, unrun: Unrun) -> Row:
        """The row of occurrences that were not run."""
        at = to_microseconds(unrun.first)
        row = _row(task_id, SCHEDULED, at, unrun.state.value, generation)
        row.update(owner=owner, claimed=now, count=unrun.occurrences, texts=[unrun.reason])
        if unrun.occurrences > 1:
            row["last"] = to_microseconds(unrun.last)
        return row

    def say(self, task_id: str, outcome: RunOutcome) -> Said | None:
        """What was said of an occurrence of a task; None: nothing.

        Returns:
            `texts`, which are the reason, the error and the traceback, and `notes`; or all of it
            as `sealed`.
        """
        # The name of a file may be no valid text, and errors name files.
        texts = [
            None if text is None else text.encode(errors="backslashreplace").decode()
            for text in (outcome.reason, outcome.error, outcome.traceback)
        ]
        while texts and texts[-1] is None:
            texts.pop()
        if not texts and not outcome.notes:
            return None
        return self._seal(task_id, {"texts": texts}, outcome.notes)

    def note(self, task_id: str, notes: Mapping[str, Any]) -> Said:
        """The same of what a run has said of itself."""
        return self._seal(task_id, {}, notes)

    def _seal(self, task_id: str, told: Said, notes: Mapping[str, Any] | None) -> Said:
        if notes is not None:
            told["notes"] = _copy(notes)
        if not self._codec.is_secret:
            return told
        data = json.dumps({"id": task_id, **told}).encode()
        return {"sealed": b64encode(self._codec.encrypt(data)).decode()}

    def run(self, row: Row) -> Run:
        """What is known of the occurrence of a row."""
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
            retry_at=_moment(row.get("retry")),
            **self._told(row),
        )

    def _told(self, row: Row) -> dict[str, Any]:
        """What was said of it, by fields of a run; what was said later counts."""
        found: dict[str, Any] = {}
        for said in (row.get("said"), row.get("noted"), row):
            told = {} if said is None else self._open(row["task"], said)
            texts = dict(zip(("reason", "error", "traceback"), told.get("texts", ()), strict=False))
            found |= {name: text for name, text in texts.items() if text is not None}
            if "notes" in told:
                found = {name: found[name] for name in found if name not in NOTES}
                found |= readable_notes(told["notes"])
        return found

    def _open(self, task_id: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        if "sealed" not in said:
            return said
        try:
            told = json.loads(self._codec.decrypt(b64decode(said["sealed"])))
            return told if told["id"] == task_id else {}
        except (UnreadableRecordError, Base64Error, ValueError, KeyError, TypeError):
            return {"texts": [UNREADABLE]}


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


def _known_of(run: LiveRun) -> Row:
    """What was said of a run before, for the row of its head."""
    known = {"said": run.said, "noted": run.noted}
    return {name: said for name, said in known.items() if said is not None}


def _copy(notes: Mapping[str, Any]) -> Any:
    """As it is read again; whoever has said it may change it later."""
    text = ENCODER.encode(notes)
    # Half of a surrogate pair is no valid text.
    return DECODER.decode(_HALF.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text))


def open_rows(runs: Iterable[LiveRun]) -> Iterator[Row]:
    """The same of runs that are open."""
    for run in runs:
        for at in run.times:
            state = run.state if at == run.times[0] else RunState.QUEUED.value
            row = _row(run.task_id, run.kind, at, state, run.generation)
            row.update(owner=run.owner, tried=run.attempt, token=run.token, claimed=run.claimed)
            row["started"] = run.started
            if at == run.times[0]:
                row.update(_known_of(run), retry=run.retry)
            yield row
