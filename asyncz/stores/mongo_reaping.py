"""What nobody has in MongoDB: open runs of nodes that are not alive, and who takes them over.

A claim and its node's state are different documents, so a claim of a node may land after others
have taken the node for dead. That is why not only the runs of those who have just died are looked
for, but those of everybody who is not alive, each time; an index tells who has runs at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.enums import RunState
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY, NOT_THERE, OWNERS, row_of
from asyncz.stores.mongo_ending import SEEN_RUNS, MongoEnding
from asyncz.stores.mongo_known import Known
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.stores.mongo_nodes import MongoNodes
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import ENDER, Held, has_ended, held_in
from asyncz.stores.rows import StoredRow

__all__ = ["WITH_RECORDS", "Found", "MongoReaping", "row_of_task"]

WITH_RECORDS = {**SEEN_RUNS, "record": 1}


class Found(NamedTuple):
    """An open run, and the row of its task; None if that was deleted.

    Args:
        kept: What the run keeps of its own.
        noted: What it says of itself; None: nothing, or it was not asked for.
    """

    held: Held
    row: StoredRow | None
    kept: Document | None = None
    noted: Document | None = None


class MongoReaping:
    """Finds and takes the open runs of one store."""

    def __init__(
        self, collections: Collections, nodes: MongoNodes, ledger: MongoLedger,
        ending: MongoEnding, known: Known,
    ) -> None:  # fmt: skip
        self._tasks = collections.tasks
        self._nodes = nodes
        self._ledger = ledger
        self._ending = ending
        self._known = known

    async def owners(self) -> set[str]:
        """Who has open runs; nobody's are those of the empty id."""
        return set(await self._tasks.distinct("active.owner"))

    async def ownerless(self) -> tuple[set[str], int | None]:
        """Who has open runs and is not alive; and the time, if somebody is."""
        owners = await self.owners()
        # Asked for second: who has claimed by then has joined by now.
        alive, now = await self._nodes.alive()
        return owners - alive, now

    async def own(self, node_id: str) -> list[Found]:
        """The open runs of a node."""
        return await self._found({node_id}, (), None)

    async def left(self, but: Iterable[str], limit: int) -> list[Found]:
        """Open runs of those who are not alive, but not of tasks with these keys."""
        owners, _ = await self.ownerless()
        return await self._found(owners, but, limit) if owners else []

    async def _found(self, owners: set[str], but: Iterable[str], limit: int | None) -> list[Found]:
        theirs: Document = {"active": {"$elemMatch": {"owner": {"$in": sorted(owners)}}}}
        if excluded := list(but):
            theirs["_id"] = {"$nin": excluded}
        cursor = self._tasks.find(theirs, WITH_RECORDS, limit=limit or 0).hint(OWNERS)
        found = [
            Found(held, row_of_task(document, entry, held), noted=entry.get("noted"))
            for document in await cursor.to_list(None)
            for held, entry in held_in(document)
            if held.owner in owners
        ]
        return await self._without_ended(found[:limit])

    async def _without_ended(self, found: Sequence[Found]) -> list[Found]:
        """Those without rows; the others were killed before they took their runs out."""
        runs = [each.held for each in found]
        rows = await self._ledger.find((held.identity for held in runs), ENDER)
        ended = {held for held in runs if has_ended(held, rows.get(held.identity))}
        await self._ending.close(list(ended))
        return [each for each in found if each.held not in ended]

    async def take(self, node_id: str, runs: Sequence[Held]) -> list[Held]:
        """Make runs a node's; returns those that are, as they are now."""
        if not runs:
            return []
        now = await self._nodes.time_if_alive(node_id)
        if now is None:
            return []
        taken = [_taken(held, node_id, now) for held in runs]
        changes = [_take_over(*pair) for pair in zip(runs, taken, strict=True)]
        try:
            done = await self._tasks.bulk_write(changes, ordered=False)
            is_sure = done.matched_count == len(changes)
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            await self._tasks.bulk_write(changes, ordered=False)
            is_sure = False
        if not is_sure:
            keys = [held.key for held in runs]
            found = await self._tasks.find({"_id": {"$in": keys}}, SEEN_RUNS).to_list(None)
            there = {
                (held.key, held.claim, held.owner, held.token)
                for document in found
                for held, _ in held_in(document)
            }
            taken = [
                held for held in taken if (held.key, held.claim, held.owner, held.token) in there
            ]
        self._known.hold(taken)
        return taken


def _taken(held: Held, node_id: str, now: int) -> Held:
    """A run as it is when it has a new owner."""
    state, started = (held.state, held.started) if held.once else (RunState.RUNNING.value, now)
    return held._replace(
        owner=node_id, token=held.token + 1, attempt=held.attempt + 1, state=state, started=started
    )


def _take_over(held: Held, taken: Held) -> UpdateOne:
    started = None if taken.started is None else Int64(taken.started)
    values = {
        "owner": taken.owner,
        "token": taken.token,
        "attempt": taken.attempt,
        "state": taken.state,
        "started": started,
    }
    return UpdateOne(
        {"_id": {"$eq": held.key}, "active": {"$elemMatch": held.element}},
        {
            "$set": {f"active.$.{name}": value for name, value in values.items()},
            "$inc": {"rev": 1},
        },
        hint=BY_KEY,
    )


def row_of_task(
    document: Mapping[str, object], entry: Mapping[str, object], held: Held
) -> StoredRow | None:
    """The row of an open run's task: its own, if the task was forgotten; None: it was deleted."""
    is_own = "order" in entry
    record = entry.get("record") if is_own else document.get("record")
    if record is None:
        return None
    next_run = document.get("next_run")
    was_forgotten = is_own or next_run is NOT_THERE
    return row_of(
        {
            "_id": held.key,
            "next_run": held.at if was_forgotten else next_run,
            "order": held.order,
            "record": record,
        }
    )
