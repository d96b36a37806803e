"""What MongoDB knows of runs: open ones, settled ones, how many there are; and forgetting them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from inspect import isawaitable
from typing import Any, NamedTuple

from bson.int64 import Int64
from bson.max_key import MaxKey

from asyncz.enums import RunState
from asyncz.runs.base import RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY, HAS_OPEN_RUNS, OWNERS, WAITING
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import (
    MARK,
    NOBODY,
    OPEN_STATES,
    SETTLED_STATES,
    SUCCEEDED,
    UNLUCKY,
    Held,
    held_in,
    identity_of,
    row_id,
    waiting_in,
)

__all__ = ["History", "MongoHistory"]

FIELDS = (
    "at", "kind", "times", "claim", "owner", "token", "attempt", "state", "once", "claimed",
    "started", "order", "tried", "noted", "retry", "mark",
)  # fmt: skip
OPEN_RUNS = {
    "order": 1,
    "next_run": 1,
    **{f"{array}.{name}": 1 for array in ("active", "waiting") for name in FIELDS},
}
HAS_ACTIVE: Document = {"active.0": {"$exists": True}}
ACTIVE_STATES = OPEN_STATES - {RunState.RETRYING}


class Shown(NamedTuple):
    """An open run.

    Args:
        noted: What it says of itself; None: nothing.
        row: Of its last attempt that failed; None: it is the first, or it is not known any more.
    """

    held: Held
    noted: Document | None
    row: Document | None = None


class History(NamedTuple):
    """What there is for a query, perhaps more than it wants."""

    open: list[Shown]
    rows: list[Document]


class MongoHistory:
    """Looks at the runs of one store."""

    def __init__(self, collections: Collections) -> None:
        self._tasks = collections.tasks
        self._runs = collections.runs

    async def find(self, query: RunQuery) -> History:
        """The runs that a query may want."""
        settled = [state.value for state in query.states - OPEN_STATES]
        open_ = await self._open(query)
        rows = []
        if query.limit > 0 and (settled or not query.states):
            rows = await self._rows(query, settled or SETTLED_STATES)
        history = _each_once(open_, rows)
        return await self._with_rows(history._replace(open=_latest(history.open, query)))

    async def _open(self, query: RunQuery) -> list[Shown]:
        cursors = []
        if query.task_id is not None:
            cursors.append(self._tasks.find({"_id": {"$eq": query.task_id}}, OPEN_RUNS))
        else:
            if not query.states or query.states & ACTIVE_STATES:
                active = self._tasks.find({"active.owner": {"$gte": NOBODY}}, OPEN_RUNS)
                cursors.append(active.hint(OWNERS))
            if not query.states or RunState.RETRYING in query.states:
                waiting = self._tasks.find({"waiting.retry": {"$gt": MARK}}, OPEN_RUNS)
                cursors.append(waiting.hint(WAITING))
        found = await asyncio.gather(*(cursor.to_list(None) for cursor in cursors))
        # One may go from one array to the other between two looks: what is there counts.
        documents = {each["_id"]: each for some in found for each in some}
        return [shown for each in documents.values() for shown in _shown_in(each)]

    async def _with_rows(self, history: History) -> History:
        """With what is known of attempts that failed."""
        tried = [each for each in history.open if each.held.tried or each.held.retry is not None]
        if not tried:
            return history
        ids = [row_id(each.held.identity) for each in tried]
        found = await self._runs.find({"_id": {"$in": ids}}).to_list(None)
        rows = {identity_of(row): row for row in found}
        open_ = [each._replace(row=rows.get(each.held.identity)) for each in history.open]
        return history._replace(open=open_)

    async def _rows(self, query: RunQuery, states: Sequence[str]) -> list[Document]:
        wanted: Document = {"state": {"$in": list(states)}}
        since = None if query.since is None else Int64(to_microseconds(query.since))
        behind = None if query.until is None else Int64(to_microseconds(query.until) + 1)
        order = [("at", -1)]
        if SUCCEEDED not in states:
            wanted["state"]["$lt"] = SUCCEEDED  # or the server does not see what the index is of
        if query.task_id is not None:
            wanted["_id"] = _between(query.task_id, since, behind)
            order = [("_id", -1)]
        elif bounds := {
            name: value for name, value in (("$gte", since), ("$lt", behind)) if value is not None
        }:
            wanted["at"] = bounds
        cursor = self._runs.find(wanted, limit=query.limit).sort(order)
        if query.task_id is not None:
            cursor = cursor.hint(BY_KEY if SUCCEEDED in states else UNLUCKY)
        found: list[Document] = await cursor.to_list(None)
        return found

    async def last(self, keys: Sequence[str]) -> History:
        """The open runs of tasks, and the latest row of each that has any."""
        open_, rows = await asyncio.gather(self._open_of(keys), self._last_rows(keys))
        latest: dict[str, Shown] = {}
        history = _each_once(open_, rows)
        for each in sorted(history.open, key=lambda each: max(each.held.times)):
            latest[each.held.key] = each
        return await self._with_rows(history._replace(open=list(latest.values())))

    async def _open_of(self, keys: Sequence[str]) -> list[Shown]:
        those = {"_id": {"$in": list(keys)}, "$or": HAS_OPEN_RUNS}
        found = await self._tasks.find(those, OPEN_RUNS).hint(BY_KEY).to_list(None)
        return [shown for each in found for shown in _shown_in(each)]

    async def _last_rows(self, keys: Sequence[str]) -> list[Document]:
        stages: list[Document] = []
        for key in keys:
            its_last = _last_of(key)
            union = {"$unionWith": {"coll": self._runs.name, "pipeline": its_last}}
            stages += [union] if stages else its_last
        cursor: Any = self._runs.aggregate(stages)
        if isawaitable(cursor):  # PyMongo's is, Motor's is not
            cursor = await cursor
        found: list[Document] = await cursor.to_list(None)
        return found

    async def active(self, keys: Sequence[str]) -> dict[str, int]:
        """How many open runs there are of tasks that have any."""
        those = {"_id": {"$in": list(keys)}, **HAS_ACTIVE}
        found = await self._tasks.find(those, {"active.at": 1}).hint(BY_KEY).to_list(None)
        return {document["_id"]: len(document["active"]) for document in found}

    async def settled_state(self, key: str, at: int) -> RunState | None:
        """The state of the latest row of an instant; None: there is none."""
        wanted = {"_id": _between(key, at, at + 1), "state": {"$in": SETTLED_STATES}}
        found = self._runs.find(wanted, {"state": 1}, limit=1).sort([("_id", -1)]).hint(BY_KEY)
        rows = await found.to_list(1)
        return RunState(rows[0]["state"]) if rows else None

    async def prune(
        self, key: str, states: Collection[RunState], keep: int, before: datetime, limit: int
    ) -> int:
        """See `ClusterStore.prune_runs`."""
        wanted = sorted(state.value for state in states if not state.is_open)
        if not wanted or limit <= 0:
            return 0
        moment = Int64(to_microseconds(before))
        of_states: Document = {"state": {"$in": wanted}}
        theirs = {**of_states, "_id": _between(key)}
        late = {**of_states, "_id": _between(key, None, moment), "finished": {"$lt": moment}}
        behind = self._runs.find(theirs, {"_id": 1}, skip=keep, limit=limit).sort([("_id", -1)])
        old = self._runs.find(late, {"_id": 1}, limit=limit)
        found = await asyncio.gather(
            *(cursor.hint(BY_KEY).to_list(None) for cursor in (behind, old))
        )
        rows = {identity_of(row): row for some in found for row in some}
        return await self._remove(list(rows.values())[:limit])

    async def forget(self, before: datetime, limit: int) -> int:
        """Forget rows that were written before an instant; how many."""
        moment = Int64(to_microseconds(before))
        # Nothing is settled before it is due, so that the index on that says where to look.
        old = {"state": {"$in": SETTLED_STATES}, "at": {"$lt": moment}, "finished": {"$lt": moment}}
        found = await self._runs.find(old, {"_id": 1}, limit=limit).to_list(None)
        return await self._remove(found)

    async def _remove(self, rows: Sequence[Document]) -> int:
        if not rows:
            return 0
        # Asked for second: what has a row and is not open is settled for good.
        keys = list({row["_id"]["task"] for row in rows})
        those = {"_id": {"$in": keys}, **HAS_ACTIVE}
        documents = await self._tasks.find(those, OPEN_RUNS).hint(BY_KEY).to_list(None)
        open_ = {
            (held.key, at, held.kind, held.order)
            for each in documents
            for held, _ in held_in(each)
            for at in held.times
        }
        these = [row["_id"] for row in rows if identity_of(row) not in open_]
        return int((await self._runs.delete_many({"_id": {"$in": these}})).deleted_count)


def _last_of(key: str) -> list[Document]:
    """Stages that give the latest row of a task; they go by the index of `_id`."""
    its = {"_id": _between(key), "state": {"$in": SETTLED_STATES}}
    return [{"$match": its}, {"$sort": {"_id": -1}}, {"$limit": 1}]


def _between(key: str, since: int | None = None, behind: int | None = None) -> Document:
    """A condition on the `_id` of a task's rows, by instant."""
    start = {"task": key} if since is None else {"task": key, "at": Int64(since)}
    end = MaxKey() if behind is None else Int64(behind)
    return {"$gte": start, "$lt": {"task": key, "at": end}}


def _shown_in(document: Document) -> Iterator[Shown]:
    for held, entry in (*held_in(document), *waiting_in(document)):
        yield Shown(held, entry.get("noted"))


def _latest(open_: Sequence[Shown], query: RunQuery) -> list[Shown]:
    """Those with the latest occurrences that a query wants, as many as it wants."""
    since = None if query.since is None else to_microseconds(query.since)
    until = None if query.until is None else to_microseconds(query.until)
    found = []
    for shown in open_:
        held = shown.held
        times = [
            at
            for at in held.times
            if (since is None or at >= since)
            and (until is None or at <= until)
            and (not query.states or _state_at(held, at) in query.states)
        ]
        if times:
            found.append((max(times), held.key, shown))
    found.sort(key=lambda each: each[:2], reverse=True)
    return [shown for _, _, shown in found[: max(0, query.limit)]]


def _state_at(held: Held, at: int) -> RunState:
    return RunState(held.state) if at == held.at else RunState.QUEUED


def _each_once(open_: Sequence[Shown], rows: Sequence[Mapping[str, Any]]) -> History:
    """Of a run that has a row and is open too, the one with the later token; else the row."""
    written = {identity_of(row): int(row["token"]) for row in rows}
    tokens = {
        (each.held.key, at, each.held.kind, each.held.order): each.held.token
        for each in open_
        for at in each.held.times
    }
    return History(
        [each for each in open_ if written.get(each.held.identity, -1) < each.held.token],
        [dict(row) for row in rows if tokens.get(identity_of(row), -1) <= row["token"]],
    )
