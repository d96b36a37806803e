"""Tasks as documents of MongoDB: their fields, their indexes, and questions about them.

| field | |
|---|---|
| `_id` | the task's key |
| `next_run` | microseconds since the epoch; null: paused; false: not there (yet, or any more) |
| `order` | of insertion |
| `rev` | counts the changes |
| `record` | the record's bytes |
| `added` | the token of the call that added it |
| `claims` | the tokens of the last calls that made a step of it, or fired it |
| `active`, `waiting`, `ledger` | its open runs, see `mongo_runs`; they may outlive the task |
| `last` | the latest instant that was fired |
| `staged` | while the call that adds it goes on: its token (`call`) and the `next_run` to be |
| `ended` | when its last step was made; it is removed a moment later |
| `opaque` | true if what follows is secret, and missing |
| `id`, `name`, `executor`, `trigger`, `trigger_name`, `search`, `expects` | see `TaskSummary` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from pymongo import IndexModel

from asyncz.stores.mongo_client import Document
from asyncz.stores.rows import Place, Row, StoredRow
from asyncz.tasks.query import TaskQuery, TaskSummary

__all__ = [
    "BY_KEY",
    "DUE_ORDER",
    "ENDED",
    "EXPECTING",
    "GONE",
    "HAS_NOTHING_OPEN",
    "HAS_OPEN_RUNS",
    "INDEXES",
    "IS_GONE",
    "IS_PAUSED",
    "IS_SCHEDULED",
    "IS_THERE",
    "NOTES",
    "NOT_THERE",
    "OWNERS",
    "PAUSED_END",
    "ROW_FIELDS",
    "SCHEDULED_END",
    "WAITING",
    "Segment",
    "bound_after",
    "bound_until",
    "contents_of",
    "document_of",
    "long",
    "row_of",
    "segments_of",
    "surplus_of",
]

Bound = list[tuple[str, Any]]
Sort = list[tuple[str, int]]

NOT_THERE = False
"""The `next_run` of a document that does not count: no range of numbers has it, nor has null."""
LOWEST = Int64(-(2**63))
IS_THERE: Document = {"next_run": {"$ne": NOT_THERE}}
IS_GONE: Document = {"next_run": NOT_THERE, "staged": {"$exists": False}}
HAS_NOTHING_OPEN: Document = {
    f"{name}.0": {"$exists": False} for name in ("active", "waiting", "ledger")
}
HAS_OPEN_RUNS: list[Document] = [{f"{name}.0": {"$exists": True}} for name in ("active", "waiting")]
IS_SCHEDULED: Document = {"next_run": {"$gte": LOWEST}}
IS_PAUSED: Document = {"next_run": None}

BY_KEY: Sort = [("_id", 1)]
DUE_ORDER: Sort = [("next_run", 1), ("order", 1), ("_id", 1)]
ROW_FIELDS = {"next_run": 1, "order": 1, "record": 1}

FORGET_ENDED_AFTER = 7 * 86_400
"""Seconds after which the server removes what a process that was killed had no time to. Long, for
one that lost sight of the server may want to undo it."""

ENDED = "asyncz_ended"
EXPECTING = "asyncz_expecting"
OWNERS = "asyncz_owners"
NOTES = "asyncz_notes"
WAITING = "asyncz_waiting"
INDEXES = [
    IndexModel(DUE_ORDER, name="asyncz_due"),
    IndexModel([("staged.call", 1)], name="asyncz_staged", sparse=True),
    IndexModel([("ended", 1)], name=ENDED, sparse=True, expireAfterSeconds=FORGET_ENDED_AFTER),
    IndexModel([("opaque", 1)], name="asyncz_opaque", sparse=True),
    IndexModel(
        [("expects", 1), ("_id", 1)], name=EXPECTING, partialFilterExpression={"expects": True}
    ),
    # Nothing of a document whose arrays are empty is in these.
    IndexModel([("active.owner", 1)], name=OWNERS, sparse=True),
    IndexModel([("ledger.claim", 1)], name=NOTES, sparse=True),
    IndexModel([("waiting.retry", 1)], name=WAITING, sparse=True),
]


def long(number: int | None) -> Int64 | None:
    """A number as MongoDB's 64-bit one, however small it is."""
    return None if number is None else Int64(number)


def contents_of(row: Row) -> Document:
    """The fields that a row's replacement changes."""
    fields: Document = {"next_run": long(row.next_run), "record": row.data}
    if row.summary is None:
        return {**fields, "opaque": True}
    return {**fields, **row.summary._asdict()}


def surplus_of(row: Row) -> Document:
    """The fields that it takes away."""
    names = TaskSummary._fields if row.summary is None else ("opaque",)
    return dict.fromkeys(names, "")


def document_of(row: Row, token: ObjectId) -> Document:
    """A new document for a row."""
    return {
        "_id": row.key,
        "order": Int64(row.order),
        "rev": Int64(1),
        "added": token,
        **contents_of(row),
    }


GONE: Document = {
    "$set": {"next_run": NOT_THERE},
    "$unset": dict.fromkeys((*TaskSummary._fields, "opaque", "record", "staged"), ""),
    "$inc": {"rev": 1},
}
"""The change of a task that is deleted while runs of it are open: they cannot be run again."""


def row_of(document: Mapping[str, Any]) -> StoredRow:
    """The row of a document with at least `ROW_FIELDS`.

    People can have changed it. What cannot be a record's bytes is given as bytes that are none.
    """
    next_run, order, data = (document.get(name) for name in ROW_FIELDS)
    return StoredRow(
        str(document["_id"]),
        int(next_run) if isinstance(next_run, int) else None,
        int(order) if isinstance(order, int) else 0,
        data if isinstance(data, bytes) else b"",
    )


# Places in the order of the index `asyncz_due`. Between values of different types MongoDB orders
# by type: null, numbers, text and so on.

SCHEDULED_END: Bound = [("next_run", ""), ("order", MinKey()), ("_id", MinKey())]
PAUSED_END: Bound = [("next_run", None), ("order", MaxKey()), ("_id", MaxKey())]


def bound_after(place: Place | None, paused: bool) -> Bound:
    """Where the rows behind a place begin, among the scheduled or the paused ones."""
    if place is None or (place.next_run is None) is not paused:
        start = None if paused else LOWEST
        return [("next_run", start), ("order", MinKey()), ("_id", MinKey())]
    # No text comes between another and the same with a NUL at its end.
    order = Int64(place.order)
    return [("next_run", long(place.next_run)), ("order", order), ("_id", f"{place.key}\0")]


def bound_until(until: int | None) -> Bound:
    """Where the rows up to a next run time end."""
    if until is None:
        return SCHEDULED_END
    return [("next_run", Int64(until + 1)), ("order", MinKey()), ("_id", MinKey())]


class Segment(NamedTuple):
    """Rows in an order that an index or a sort of the server can give."""

    wanted: Document
    sort: Sort


SORTS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "name": ("name", "id"),
    "executor": ("executor", "id"),
    "store": ("id",),
    "trigger": ("trigger", "id"),
}


def segments_of(query: TaskQuery, alias: str, exclude: Set[str]) -> list[Segment]:
    """What a query asks for, in segments one after the other.

    Args:
        query: Its state is None, scheduled or paused.
        alias: The store's, in which text is searched too.
        exclude: Keys to pass over.
    """
    scheduled = _conditions(query, "scheduled", alias, exclude)
    paused = _conditions(query, "paused", alias, exclude)
    way = -1 if query.descending else 1
    if query.sort_by in SORTS:
        sort = _sort(SORTS[query.sort_by], way)
        if scheduled is not None and scheduled == paused:
            return [Segment({"$and": [IS_THERE, *scheduled]}, sort)]
        parts = (_wanted(IS_SCHEDULED, scheduled), _wanted(IS_PAUSED, paused))
        return [Segment({"$or": [part for part in parts if part]}, sort)]
    # Apart, since the server would put the paused ones, whose run time is null, first.
    names = ("name", "id") if query.sort_by == "next_run_time" else ("id",)
    segments = [
        Segment(_wanted(IS_SCHEDULED, scheduled), _sort(("next_run", *names), way)),
        Segment(_wanted(IS_PAUSED, paused), _sort(names, way)),
    ]
    # By state, "paused" comes before "scheduled".
    if (query.sort_by == "schedule_state") is not query.descending:
        segments.reverse()
    return [segment for segment in segments if segment.wanted]


def _wanted(state: Document, conditions: list[Document] | None) -> Document:
    return {} if conditions is None else {"$and": [state, *conditions]}


def _sort(names: Sequence[str], way: int) -> Sort:
    return [*((name, way) for name in names), ("order", 1), ("_id", 1)]


def _conditions(
    query: TaskQuery, state: str, alias: str, exclude: Set[str]
) -> list[Document] | None:
    """What rows of a state must be like; None: none of them is wanted."""
    if query.schedule_state not in (None, state):
        return None
    conditions: list[Document] = []
    if query.executor is not None:
        conditions.append({"executor": {"$eq": query.executor}})
    if query.trigger is not None:
        kind = {"$eq": query.trigger}
        conditions.append({"$or": [{"trigger": kind}, {"trigger_name": kind}]})
    if exclude:
        conditions.append({"_id": {"$nin": sorted(exclude)}})
    if query.needle and query.needle not in alias.lower() and query.needle not in state:
        # Not a regular expression, which cannot have every character in it.
        place = {"$indexOfBytes": [{"$ifNull": ["$search", ""]}, {"$literal": query.needle}]}
        conditions.append({"$expr": {"$gte": [place, 0]}})
    return conditions
