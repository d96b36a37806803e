"""What MongoDB knows of runs: open ones, settled ones, and how many there are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from inspect import isawaitable
from typing import Any, NamedTuple

from bson.int64 import Int64
from bson.max_key import MaxKey

from asyncz.runs.base import RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY, OWNERS
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import OPEN_STATES, SETTLED_STATES, Held, held_in, identity_of

__all__ = ["History", "MongoHistory"]

FIELDS = (
    "at", "kind", "times", "claim", "owner", "token", "attempt", "state", "once", "claimed",
    "started", "order",
)  # fmt: skip
OPEN_RUNS = {"order": 1, "next_run": 1, **{f"active.{name}": 1 for name in FIELDS}}


class History(NamedTuple):
    """What there is for a query, perhaps more than it wants."""

    open: list[Held]
    rows: list[Document]


class MongoHistory:
    """Looks at the runs of one store."""

    def __init__(self, collections: Collections) -> None:
        self._tasks = collections.tasks
        self._runs = collections.runs

    async def find(self, query: RunQuery) -> History:
        """The runs that a query may want."""
        wants_open = not query.states or bool(query.states & OPEN_STATES)
        settled = [state.value for state in query.states - OPEN_STATES]
        open_ = await self._open(query.task_id) if wants_open else []
        rows = []
        if query.limit > 0 and (settled or not query.states):
            rows = await self._rows(query, settled or SETTLED_STATES)
        return _each_once(open_, rows)

    async def _open(self, key: str | None) -> list[Held]:
        if key is None:
            cursor = self._tasks.find({"active.owner": {"$gte": ""}}, OPEN_RUNS).hint(OWNERS)
        else:
            cursor = self._tasks.find({"_id": {"$eq": key}}, OPEN_RUNS)
        return [held for each in await cursor.to_list(None) for held, _ in held_in(each)]

    async def _rows(self, query: RunQuery, states: Sequence[str]) -> list[Document]:
        wanted: Document = {"state": {"$in": list(states)}}
        since = None if query.since is None else Int64(to_microseconds(query.since))
        order = [("at", -1)]
        if query.task_id is not None:
            start = {"task": query.task_id} if since is None else _place(query.task_id, since)
            wanted["_id"] = {"$gte": start, "$lt": _place(query.task_id, MaxKey())}
            order = [("_id", -1)]
        elif since is not None:
            wanted["at"] = {"$gte": since}
        cursor = self._runs.find(wanted, limit=query.limit).sort(order)
        if query.task_id is not None:
            cursor = cursor.hint(BY_KEY)
        found: list[Document] = await cursor.to_list(None)
        return found

    async def last(self, keys: Sequence[str]) -> History:
        """The open runs of tasks, and the latest row of each that has any."""
        open_, rows = await asyncio.gather(self._open_of(keys), self._last_rows(keys))
        return _each_once(open_, rows)

    async def _open_of(self, keys: Sequence[str]) -> list[Held]:
        those = {"_id": {"$in": list(keys)}, "active.0": {"$exists": True}}
        found = await self._tasks.find(those, OPEN_RUNS).hint(BY_KEY).to_list(None)
        return [held for each in found for held, _ in held_in(each)]

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
        those = {"_id": {"$in": list(keys)}, "active.0": {"$exists": True}}
        found = await self._tasks.find(those, {"active.at": 1}).hint(BY_KEY).to_list(None)
        return {document["_id"]: len(document["active"]) for document in found}

    async def forget(self, before: datetime, limit: int) -> int:
        """Forget rows that were written before an instant; how many."""
        moment = Int64(to_microseconds(before))
        # Nothing is settled before it is due, so that the index on that says where to look.
        old = {"state": {"$in": SETTLED_STATES}, "at": {"$lt": moment}, "finished": {"$lt": moment}}
        found = await self._runs.find(old, {"_id": 1}, limit=limit).to_list(None)
        if not found:
            return 0
        these = {"_id": {"$in": [row["_id"] for row in found]}}
        return int((await self._runs.delete_many(these)).deleted_count)


def _last_of(key: str) -> list[Document]:
    """Stages that give the latest row of a task; they go by the index of `_id`."""
    its = {"_id": {"$gte": {"task": key}, "$lt": _place(key, MaxKey())}}
    return [{"$match": its}, {"$sort": {"_id": -1}}, {"$limit": 1}]


def _place(key: str, at: Any) -> Document:
    return {"task": key, "at": at}


def _each_once(open_: Sequence[Held], rows: Sequence[Mapping[str, Any]]) -> History:
    """Of a run that has a row and is open too, the one with the later token; else the row."""
    written = {identity_of(row): int(row["token"]) for row in rows}
    tokens = {
        (held.key, at, held.kind, held.order): held.token for held in open_ for at in held.times
    }
    return History(
        [held for held in open_ if written.get(held.identity, -1) < held.token],
        [dict(row) for row in rows if tokens.get(identity_of(row), -1) <= row["token"]],
    )
