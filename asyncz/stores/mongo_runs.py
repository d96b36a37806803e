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
| `tried` | how many of its attempts were claimed because it had failed; left out: none |
| `noted` | what it says of itself while it goes on, sealed |

`waiting` has those that failed and wait for their next attempt, so that they do not count for
`max_instances`. They are like those in `active`, each with one instant, and `retry`: when. What is
known of the attempt that failed is in a row, which the next outcome replaces; a row that is
`retrying` says nothing else. Also in `waiting` are the marks of open runs that somebody has asked
to cancel: `mark` true, the run's `claim`, who, sealed, and a `retry` that is long past. So the
first key of one index says when something is to be attended to.

Beside it, `ledger` has what is to be a row and is not one yet: a change of a schedule and what it
leaves out are one change too, and so are the end of an attempt and what is known of it. A row is a
document of `….runs`. Its `_id` is the occurrence: the task's key and its order of insertion, the
instant, the kind. `by` is the call that ended it, of one that waited.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import IndexModel

from asyncz.enums import RunKind, RunState
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import RunOutcome, RunRef
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import NOT_THERE

__all__ = [
    "ENDER",
    "MARK",
    "NOBODY",
    "OPEN_STATES",
    "RUN_INDEXES",
    "SETTLED_STATES",
    "SUCCEEDED",
    "UNLUCKY",
    "Held",
    "Identity",
    "Note",
    "Seal",
    "carried_over",
    "has_ended",
    "has_of",
    "held_in",
    "identity_of",
    "marks_in",
    "note_of",
    "note_of_row",
    "row_id",
    "row_of_note",
    "rows_of",
    "sealed_notes",
    "waiting_in",
]

NOBODY = ""
MARK = Int64(0)
"""The `retry` of a mark: in the past."""
OPEN_STATES = frozenset(state for state in RunState if state.is_open)
SETTLED_STATES = sorted(state.value for state in RunState if not state.is_open)
SUCCEEDED = RunState.SUCCEEDED.value
"""The last of all states by their letters, so that one comparison tells the others."""
UNLUCKY = "asyncz_unlucky"
RUN_INDEXES = [
    IndexModel([("state", 1), ("at", -1)], name="asyncz_latest"),
    # Of a task; those that succeed cost nothing here.
    IndexModel(
        [("_id", 1), ("state", 1)],
        name=UNLUCKY,
        partialFilterExpression={"state": {"$lt": SUCCEEDED}},
    ),
]

Identity = tuple[str, int, str, int]
"""Of a row: the task's key, the instant, the kind, the task's order of insertion."""
Seal = Callable[[str, Mapping[str, str]], Document]
"""Makes of a task's id and texts (reason, error, traceback, notes as JSON) the fields kept."""


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
    tried: int = 0
    retry: int | None = None

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
        """The element of `active`, or of `waiting`."""
        more: Document = {"tried": self.tried} if self.tried else {}
        if self.retry is not None:
            more["retry"] = Int64(self.retry)
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
            **more,
        }


def held_in(document: Mapping[str, Any]) -> Iterator[tuple[Held, Document]]:
    """The active runs in a task's document of at least `active`, `order` and `next_run`."""
    for entry in document.get("active") or ():
        yield _held_of(document, entry), entry


def waiting_in(document: Mapping[str, Any]) -> Iterator[tuple[Held, Document]]:
    """Those that wait for an attempt, in one of at least `waiting`, `order` and `next_run`."""
    for entry in document.get("waiting") or ():
        if "mark" not in entry:
            yield _held_of(document, entry), entry


def marks_in(document: Mapping[str, Any]) -> dict[str, Document]:
    """The marks of those that are to be cancelled, by claim, in one of at least `waiting`."""
    return {entry["claim"]: entry for entry in document.get("waiting") or () if "mark" in entry}


def _held_of(document: Mapping[str, Any], entry: Mapping[str, Any]) -> Held:
    started, retry = entry.get("started"), entry.get("retry")
    return Held(
        document["_id"],
        int(entry.get("order", document.get("order") or 0)),
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
        document.get("next_run") is NOT_THERE,
        int(entry.get("tried", 0)),
        None if retry is None else int(retry),
    )


def has_of(held: Held, ref: RunRef) -> bool:
    """Whether a reference means this run; not whether it has its token."""
    at = to_microseconds(ref.scheduled_time)
    return (held.key, held.kind, held.at) == (ref.task_id, ref.kind.value, at)


def carried_over(document: Mapping[str, Any]) -> Document:
    """`active`, `waiting`, `ledger` for a new task in the place of one that has open things."""
    order, record = Int64(document.get("order") or 0), document.get("record")
    own = {"order": order} if record is None else {"order": order, "record": record}
    kept: Document = {
        name: [
            entry if "order" in entry or "mark" in entry else {**entry, **own}
            for entry in document.get(name) or ()
        ]
        for name in ("active", "waiting")
    }
    kept["ledger"] = [{"order": order, **note} for note in document.get("ledger") or ()]
    return kept if any(kept.values()) else {}


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
            "finished": Int64(finished) if state is not RunState.RETRYING else None,
        }
        if outcome is not None and any((*outcome[2:5], outcome.notes)):
            row |= seal(held.key, _texts_of(outcome))
        rows.append(row)
    return rows


def _texts_of(outcome: RunOutcome) -> dict[str, str]:
    texts = {"reason": outcome.reason, "error": outcome.error, "traceback": outcome.traceback}
    if outcome.notes:
        texts["notes"] = json.dumps(dict(outcome.notes))
    return {name: text for name, text in texts.items() if text}


ENDER: Document = {"token": 1, "owner": 1}
"""The fields of a row that `has_ended` looks at."""


def has_ended(held: Held, row: Mapping[str, Any] | None) -> bool:
    """Whether a row says of an open run that it has ended, and is only to be taken out.

    Whoever has given it back, and has written a row all the same, is about to take that back.
    """
    return row is not None and (row["owner"], row["token"]) == (held.owner, held.token)


def sealed_notes(key: str, notes: Mapping[str, Any], seal: Seal) -> Document:
    """What is kept of what a run says of itself while it goes on."""
    return seal(key, {"notes": json.dumps(dict(notes))})


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


def note_of_row(row: Document, note: str) -> Document:
    """An element of `ledger` that is to be this row.

    Args:
        note: Names it, and all that are put there with it.
    """
    place = row["_id"]
    kept = {name: value for name, value in row.items() if name != "_id"}
    return {**kept, "kind": place["kind"], "order": place["order"], "note": note}


def row_of_note(key: str, order: int, note: Mapping[str, Any]) -> Document:
    """The row that an element of `ledger` is to be."""
    identity = key, int(note["at"]), note["kind"], int(note.get("order", order))
    kept = {name: value for name, value in note.items() if name not in ("kind", "order", "note")}
    given = {"attempt": 0, "token": 0, "started": None, "finished": note["claimed"]}
    return {"_id": row_id(identity), **given, **kept}
