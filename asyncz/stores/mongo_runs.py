"""Runs as MongoDB keeps them: open ones in their task's document, settled ones as rows.

An open run is an element of `active` in its task's document, so that the schedule, the claim and
the count of what goes on (`max_instances`) are changed by one atomic change of one document:

| field | |
|---|---|
| `at`, `kind` | its identity in its task; `at` is the first of `times` |
| `times` | the head's and its followers', microseconds since the epoch |
| `claim` | of the call that made it; with the task's key, as good as unique |
| `owner` | a node's id; empty: nobody's |
| `token`, `attempt`, `state` | see `Run` |
| `once` | whether it is `at_most_once` |
| `claimed`, `started` | when |
| `order`, `record` | of its task, if that is not the document's own any more (`carried_over`) |

Beside it, `ledger` has what is to be a row and is not one yet: a change of a schedule and what it
leaves out are one change too. A row is a document of `….runs`. Its `_id` is the occurrence: the
task's key and its order of insertion, the instant, the kind. `by` is the token of who wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import IndexModel

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import RunOutcome, RunRef
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import NOT_THERE

__all__ = [
    "NOBODY",
    "OPEN_STATES",
    "RUN_INDEXES",
    "SETTLED_STATES",
    "Held",
    "Identity",
    "Note",
    "Seal",
    "carried_over",
    "has_of",
    "held_in",
    "identity_of",
    "note_of",
    "open_runs_of",
    "row_id",
    "row_of_note",
    "rows_of",
    "run_of",
]

NOBODY = ""
OPEN_STATES = frozenset(state for state in RunState if state.is_open)
SETTLED_STATES = sorted(state.value for state in RunState if not state.is_open)
RUN_INDEXES = [IndexModel([("state", 1), ("at", -1)], name="asyncz_latest")]

Identity = tuple[str, int, str, int]
"""Of a row: the task's key, the instant, the kind, the task's order of insertion."""
Seal = Callable[[str, Mapping[str, str]], Document]
"""Makes of a task's id and its texts (reason, error, traceback) the fields that are kept."""


class Held(NamedTuple):
    """An open run as the store has it.

    Args:
        key: Its task's.
        order: Its task's, of insertion.
        is_last: Whether its task was forgotten with it, so that it is perhaps the document's
            last.
        The others: See the fields above.
    """

    key: str
    order: int
    kind: str
    times: tuple[int, ...]
    claim: str
    owner: str
    token: int
    attempt: int
    state: str
    once: bool
    claimed: int
    started: int | None
    is_last: bool = False

    @property
    def at(self) -> int:
        """The head's instant."""
        return self.times[0]

    @property
    def ref(self) -> RunRef:
        """What it is known by elsewhere."""
        return RunRef(self.key, RunKind(self.kind), from_microseconds(self.at), self.token)

    @property
    def identity(self) -> Identity:
        """Of its head's row."""
        return self.key, self.at, self.kind, self.order

    @property
    def element(self) -> Document:
        """A condition on an element of `active`: it is this one, with this owner and token."""
        return {"claim": self.claim, "owner": self.owner, "token": self.token}

    def entry(self) -> Document:
        """The element of `active`."""
        return {
            "at": Int64(self.at),
            "kind": self.kind,
            "times": [Int64(moment) for moment in self.times],
            "claim": self.claim,
            "owner": self.owner,
            "token": self.token,
            "attempt": self.attempt,
            "state": self.state,
            "once": self.once,
            "claimed": Int64(self.claimed),
            "started": None if self.started is None else Int64(self.started),
        }


def held_in(document: Mapping[str, Any]) -> Iterator[tuple[Held, Document]]:
    """The open runs in a task's document of at least `active`, `order` and `next_run`."""
    order = document.get("order") or 0
    is_gone = document.get("next_run") is NOT_THERE
    for entry in document.get("active") or ():
        started = entry.get("started")
        yield (
            Held(
                document["_id"],
                int(entry.get("order", order)),
                entry["kind"],
                tuple(int(moment) for moment in entry["times"]),
                entry["claim"],
                entry["owner"],
                int(entry["token"]),
                int(entry["attempt"]),
                entry["state"],
                bool(entry["once"]),
                int(entry["claimed"]),
                None if started is None else int(started),
                is_gone,
            ),
            entry,
        )


def has_of(held: Held, ref: RunRef) -> bool:
    """Whether a reference means this run; not whether it has its token."""
    at = to_microseconds(ref.scheduled_time)
    return (held.key, held.kind, held.at) == (ref.task_id, ref.kind.value, at)


def carried_over(document: Mapping[str, Any]) -> Document:
    """`active` and `ledger` for a new task in the place of one that has open things."""
    order, record = Int64(document.get("order") or 0), document.get("record")
    active = []
    for entry in document.get("active") or ():
        if "order" not in entry:
            own = {} if record is None else {"record": record}
            entry = {**entry, "order": order, **own}
        active.append(entry)
    ledger = [{"order": order, **note} for note in document.get("ledger") or ()]
    return {"active": active, "ledger": ledger} if active or ledger else {}


# Rows.


def row_id(identity: Identity) -> Document:
    """The `_id` of a row. Its fields are in this order so that a task's are beside one another."""
    key, at, kind, order = identity
    return {"task": key, "at": Int64(at), "kind": kind, "order": Int64(order)}


def identity_of(row: Mapping[str, Any]) -> Identity:
    """The reverse of `row_id`, of a row."""
    found = row["_id"]
    return found["task"], int(found["at"]), found["kind"], int(found["order"])


def rows_of(
    held: Held, outcomes: Sequence[RunOutcome], finished: int, seal: Seal
) -> list[Document]:
    """The rows of a run that has ended, the head's first. What is left out was cancelled."""
    said = {to_microseconds(outcome.scheduled_time): outcome for outcome in outcomes}
    finished = max(finished, held.claimed, held.started or 0)
    rows = []
    for moment in held.times:
        outcome = said.get(moment)
        state = RunState.CANCELLED if outcome is None else outcome.state
        row: Document = {
            "_id": row_id((held.key, moment, held.kind, held.order)),
            "at": Int64(moment),
            "state": state.value,
            "owner": held.owner,
            "attempt": held.attempt,
            "token": held.token,
            "claim": held.claim,
            "claimed": Int64(held.claimed),
            "started": None if held.started is None else Int64(held.started),
            "finished": Int64(finished),
        }
        if outcome is not None and (outcome.reason or outcome.error or outcome.traceback):
            texts = {
                "reason": outcome.reason,
                "error": outcome.error,
                "traceback": outcome.traceback,
            }
            row |= seal(held.key, {name: text for name, text in texts.items() if text})
        rows.append(row)
    return rows


class Note(NamedTuple):
    """Occurrences that are not run; in microseconds."""

    state: RunState
    first: int
    last: int
    occurrences: int
    reason: str


def note_of(key: str, kind: str, note: Note, seal: Seal) -> Document:
    """An element of `ledger`, without what its call adds: claim, owner, claimed."""
    return {
        "at": Int64(note.first),
        "last": Int64(note.last),
        "occurrences": note.occurrences,
        "kind": kind,
        "state": note.state.value,
        **seal(key, {"reason": note.reason}),
    }


def row_of_note(key: str, order: int, note: Mapping[str, Any]) -> Document:
    """The row that an element of `ledger` is to be."""
    identity = key, int(note["at"]), note["kind"], int(note.get("order", order))
    kept = {name: value for name, value in note.items() if name not in ("kind", "order")}
    given = {"attempt": 0, "token": 0, "started": None, "finished": note["claimed"]}
    return {"_id": row_id(identity), **kept, **given}


# Runs, for people.


def run_of(row: Mapping[str, Any], alias: str | None, texts: Mapping[str, str]) -> Run:
    """The run of a row.

    Args:
        texts: Its reason, error and traceback, those that it has.
    """
    key, at, kind, _ = identity_of(row)
    occurrences = int(row.get("occurrences", 1))
    return Run(
        task_id=key,
        store_alias=alias,
        kind=RunKind(kind),
        scheduled_time=from_microseconds(at),
        state=RunState(row["state"]),
        occurrences=occurrences,
        last_scheduled_time=_moment(row.get("last")) if occurrences > 1 else None,
        owner=row["owner"] or None,
        attempt=int(row["attempt"]),
        token=int(row["token"]),
        claimed_at=_moment(row["claimed"]),
        started_at=_moment(row["started"]),
        finished_at=_moment(row["finished"]),
        reason=texts.get("reason"),
        error=texts.get("error"),
        traceback=texts.get("traceback"),
    )


def open_runs_of(held: Held, alias: str | None) -> Iterator[Run]:
    """An open run and its followers."""
    for moment in held.times:
        yield Run(
            task_id=held.key,
            store_alias=alias,
            kind=RunKind(held.kind),
            scheduled_time=from_microseconds(moment),
            state=RunState(held.state) if moment == held.at else RunState.QUEUED,
            owner=held.owner or None,
            attempt=held.attempt,
            token=held.token,
            claimed_at=_moment(held.claimed),
            started_at=_moment(held.started),
        )


def _moment(count: int | None) -> datetime | None:
    return None if count is None else from_microseconds(count)
