"""Nodes in MongoDB, and the time: a lease is written and looked at by the server's clock.

A node is a document of the collection `….nodes`: `_id` its id; `identity`, `host`, `process_id`;
`state`; `joined`, `seen`, `lease` in microseconds since the epoch; `running`; `serial`, which
tells those apart that joined at the same instant.
"""

from __future__ import annotations

from collections.abc import Collection as Ids
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId

from asyncz.clock import Clock, SystemClock
from asyncz.enums import NodeState
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import Node, NodeRecord
from asyncz.stores.mongo_client import Collection, Document, repeated

__all__ = ["MongoNodes", "StoreClock"]

ALIVE = NodeState.ALIVE.value
SERVERS_NOW: Document = {"$multiply": [{"$toLong": "$$NOW"}, 1_000]}
SECOND = 1_000_000
FORGET_AFTER = 7 * 86_400 * SECOND


class StoreClock:
    """The store's time: the server's, or the host's if that is not the system's.

    Args:
        host: The host's.
    """

    def __init__(self, host: Clock) -> None:
        self._host = host
        self._ahead = 0
        self._is_known = False
        self.is_servers = isinstance(host, SystemClock)

    @property
    def now(self) -> Any:
        """Microseconds since the epoch, as an expression for the server."""
        return SERVERS_NOW if self.is_servers else Int64(to_microseconds(self._host.now()))

    def note(self, now: int) -> None:
        """The server has said what time it is."""
        self._ahead = now - int(self._host.monotonic() * SECOND)
        self._is_known = True

    def estimate(self) -> int:
        """The time, good for a record, as far as is known without asking."""
        if self.is_servers and self._is_known:
            return self._ahead + int(self._host.monotonic() * SECOND)
        return to_microseconds(self._host.now())


class MongoNodes:
    """The nodes of one store."""

    def __init__(self, nodes: Collection, clock: StoreClock) -> None:
        self._nodes = nodes
        self._clock = clock

    async def join(self, node: Node, lease: float) -> None:
        """Enter a node."""
        fields = {
            "identity": node.identity,
            "host": node.host,
            "process_id": node.process_id,
            "state": ALIVE,
            "running": 0,
            "serial": ObjectId(),
        }
        now = self._clock.now
        times = {"joined": now, "seen": now, "lease": {"$add": [now, _micros(lease)]}}
        said = {name: {"$literal": value} for name, value in fields.items()}
        change = [{"$set": {**said, **times}}]
        await repeated(lambda: self._nodes.update_one({"_id": node.id}, change, upsert=True))

    async def renew(self, node_id: str, lease: float, running: int) -> bool:
        """Renew a lease; False: the node is not alive any more."""
        now = self._clock.now
        times = {"seen": now, "lease": {"$add": [now, _micros(lease)]}}
        change = [{"$set": {**times, "running": running}}]
        it = {"_id": {"$eq": node_id}, "state": ALIVE}
        done = await repeated(lambda: self._nodes.update_one(it, change))
        return bool(done.matched_count)

    async def leave(self, node_id: str) -> None:
        """A node goes; if it has been buried, it stays so."""
        it = {"_id": {"$eq": node_id}, "state": ALIVE}
        change = {"$set": {"state": NodeState.LEFT.value, "running": 0}}
        await repeated(lambda: self._nodes.update_one(it, change))

    async def records(self) -> list[NodeRecord]:
        """All nodes, in the order in which they joined."""
        found = await self._asked([{"$sort": {"joined": 1, "serial": 1}}])
        return [_record(document) for document in found]

    async def time_if_alive(self, node_id: str) -> int | None:
        """The time; None if a node is not alive."""
        found = await self._asked([{"$match": {"_id": {"$eq": node_id}, "state": ALIVE}}])
        return found[0]["now"] if found else None

    async def alive(self) -> tuple[set[str], int | None]:
        """The ids of the nodes that nobody has buried, and which have not left; and the time.

        The time is None if there is no such node to ask for with it.
        """
        found = await self._asked([{"$match": {"state": ALIVE}}, {"$project": {"_id": 1}}])
        return {document["_id"] for document in found}, found[0]["now"] if found else None

    async def time(self) -> int:
        """The time."""
        if self._clock.is_servers:
            answer = await self._nodes.database.command("hello")
            self._clock.note(to_microseconds(_aware(answer["localTime"])))
        return self._clock.estimate()

    async def bury(self, moment: datetime, but: str) -> tuple[str, ...]:
        """Make dead whose lease had run out by then. Returns who was alive until now.

        Args:
            moment: By then.
            but: Not this one, which is there to ask.
        """
        has_run_out = {"lease": {"$lt": Int64(to_microseconds(moment))}}
        others = {"_id": {"$ne": but}, "state": ALIVE, **has_run_out}
        late = await self._nodes.find(others, {"_id": 1}).to_list(None)
        dead = []
        for node_id in (document["_id"] for document in late):
            it = {"_id": node_id, "state": ALIVE, **has_run_out}
            change = {"$set": {"state": NodeState.DEAD.value}}
            if (await self._nodes.update_one(it, change)).matched_count:
                dead.append(str(node_id))
        return tuple(dead)

    async def forget(self, but: Ids[str]) -> None:
        """Forget nodes that have been gone for a week.

        Args:
            but: Those that open runs still name.
        """
        limit = {"$subtract": [self._clock.now, FORGET_AFTER]}
        old = {"$expr": {"$lt": ["$lease", limit]}, "state": {"$ne": ALIVE}}
        await self._nodes.delete_many({**old, "_id": {"$nin": sorted(but)}})

    async def _asked(self, stages: list[Document]) -> list[Document]:
        """Documents with the time as `now`."""
        cursor: Any = self._nodes.aggregate([*stages, {"$set": {"now": self._clock.now}}])
        if isawaitable(cursor):  # PyMongo's is, Motor's is not
            cursor = await cursor
        found: list[Document] = await cursor.to_list(None)
        if found and self._clock.is_servers:
            self._clock.note(found[0]["now"])
        return found


def _record(document: Document) -> NodeRecord:
    node = Node(
        document["_id"], document["identity"], document["host"], int(document["process_id"])
    )
    state = NodeState(document["state"])
    if state is NodeState.ALIVE and document["lease"] < document["now"]:
        state = NodeState.STALE
    joined, seen, lease = (
        from_microseconds(document[name]) for name in ("joined", "seen", "lease")
    )
    return NodeRecord(node, state, joined, seen, lease, int(document["running"]))


def _micros(seconds: float) -> Int64:
    return Int64(round(seconds * SECOND))


def _aware(moment: datetime) -> datetime:
    # By the options of the user's client it is aware or not; it is in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
