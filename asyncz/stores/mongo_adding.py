"""Adding documents, all or none, on a server that need not have transactions.

One document is one atomic insert. Several are added as documents that do not count yet
(`next_run` false, `staged`), and one change of one document, the call's own in the collection
`….meta`, decides that they do: from `adding` to `added`, or to `dropped`. After it they are
published, or removed. Whoever adds may be killed at any point:

- before the decision, they never count; their ids are taken until somebody drops them, which one
  does who wants such an id, starts or makes a pass, a minute after the last sign of life;
- after it, they count; whoever starts, makes a pass or wants such an id publishes the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import islice
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo.errors import BulkWriteError, DuplicateKeyError

from asyncz.exceptions import StoreError
from asyncz.stores.mongo_client import Document, repeated
from asyncz.stores.mongo_documents import (
    GONE,
    HAS_NOTHING_OPEN,
    NOT_THERE,
    document_of,
    surplus_of,
)
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import carried_over
from asyncz.stores.rows import Row

__all__ = ["MongoAdding"]

CHUNK = 500
ABREAST = 3
CHUNK_BYTES = 1 << 20
"""What is sent at a time: a driver encodes it in one go, while nothing else runs."""
LIFE_SIGN_EVERY = 10.0
DEAD_AFTER_MS = 60_000
FORGET_AFTER_MS = 86_400_000
ATTEMPTS = 5
MAX_DOUBTS = 100_000
DUPLICATE_KEY = 11000
SEEN = ("added", "rev", "next_run", "order", "staged", "active.at", "waiting.retry", "ledger.at")


class _Way(Enum):
    """What is to be done about a document in the place of a new one."""

    DONE = "it is the new one"
    TAKEN = "the place is taken"
    FREE = "it is gone, or will not be in the way again"


class MongoAdding:
    """Adds the rows of one store."""

    def __init__(self, collections: Collections, alias: str) -> None:
        self._tasks = collections.tasks
        self._meta = collections.meta
        self._alias = alias
        # The tokens of calls that failed and may have come through all the same, by key.
        self._doubts: dict[str, ObjectId] = {}

    async def insert(self, rows: Sequence[Row]) -> str | None:
        """Insert all, or none and return a key that is taken.

        An insert that is repeated after an error does not find itself in the way.
        """
        token = ObjectId()
        try:
            if len(rows) == 1:
                taken = await self._insert_one(rows[0], document_of(rows[0], token))
            else:
                taken = await self._insert_all(rows, token)
        except BaseException:
            self._doubt(rows, token)
            raise
        if self._doubts:
            for row in rows:
                self._doubts.pop(row.key, None)
        return taken

    async def sweep(self) -> None:
        """Bring calls to their end whose callers are gone."""
        for call in await self._tasks.distinct("staged.call"):
            await self._settle(call)
        await self._meta.delete_many({"state": {"$exists": True}, **_silent(FORGET_AFTER_MS)})

    def _doubt(self, rows: Sequence[Row], token: ObjectId) -> None:
        if len(self._doubts) < MAX_DOUBTS:
            self._doubts.update({row.key: token for row in rows})

    # One document.

    async def _insert_one(self, row: Row, document: Document) -> str | None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await repeated(lambda: self._tasks.insert_one(document))
                return None
            except DuplicateKeyError:
                way = await self._make_way(row, document)
                if way is not _Way.FREE:
                    return None if way is _Way.DONE else row.key
                if attempt == ATTEMPTS:
                    raise
        return row.key

    async def _make_way(self, row: Row, document: Document) -> _Way:
        found = await self._tasks.find_one({"_id": {"$eq": row.key}}, SEEN)
        if found is None:
            return _Way.FREE
        if found.get("added") == document["added"]:
            return _Way.DONE  # the first attempt had come through
        staged = found.get("staged")
        if isinstance(staged, dict):
            return await self._settle(staged.get("call"), row.key)
        is_left_over = found.get("next_run") is NOT_THERE
        is_ours = found.get("rev") == 1 and found.get("added") == self._doubts.get(row.key, 0)
        if is_left_over or is_ours:
            return await self._take_over(row, document, found)
        return _Way.TAKEN

    async def _take_over(self, row: Row, document: Document, found: Document) -> _Way:
        """Put the new one in the place of one that does not count, or was ours.

        It keeps the tokens of steps, for those who are about to look which ones they made, and
        the open runs of the one before, which go on.
        """
        is_same = {"_id": {"$eq": row.key}, "rev": found.get("rev"), "added": found.get("added")}
        fields = {name: value for name, value in document.items() if name not in ("_id", "rev")}
        surplus = {**surplus_of(row), "ended": ""}
        if found.get("order") != document["order"]:
            surplus["last"] = ""
            if any(found.get(name) for name in ("active", "waiting", "ledger")):
                before = await self._tasks.find_one(is_same)
                if before is None:
                    return _Way.FREE
                fields |= carried_over(before)
        change = {"$set": fields, "$unset": surplus, "$inc": {"rev": 1}}
        done = await self._tasks.update_one(is_same, change)
        return _Way.DONE if done.matched_count else _Way.FREE

    # Several documents.

    async def _insert_all(self, rows: Sequence[Row], token: ObjectId) -> str | None:
        time = asyncio.get_running_loop().time
        await self._show_life(token, upsert=True)
        last_sign = time()
        chunks = _chunks(rows)
        while abreast := list(islice(chunks, ABREAST)):
            taken = await self._insert_abreast(abreast, token)
            if taken is not None:
                await self._drop(token)
                return taken
            if time() > last_sign + LIFE_SIGN_EVERY:
                await self._show_life(token)
                last_sign = time()
        if not await self._decide(token, "added"):
            await self._drop(token)
            raise StoreError(
                f"The store {self._alias!r} (MongoDBStore): adding {len(rows)} tasks took so long "
                "that they were given up; nothing was added. Add fewer at a time."
            )
        await self._publish(token, rows[len(rows) // 2].order)
        return None

    async def _insert_abreast(self, chunks: Sequence[Sequence[Row]], token: ObjectId) -> str | None:
        """One is made ready while the server is at work on another."""
        results = await asyncio.gather(
            *(self._insert_chunk(chunk, token) for chunk in chunks), return_exceptions=True
        )
        # Only now: none may be on its way any more when the call is given up.
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return next((result for result in results if isinstance(result, str)), None)

    async def _insert_chunk(self, chunk: Sequence[Row], token: ObjectId) -> str | None:
        documents = [_staged(row, token) for row in chunk]
        try:
            await repeated(lambda: self._tasks.insert_many(documents, ordered=False))
        except BulkWriteError as exc:
            errors: list[dict[str, Any]] = exc.details["writeErrors"]
            if exc.details["writeConcernErrors"] or any(
                error["code"] != DUPLICATE_KEY for error in errors
            ):
                raise
            for index in (error["index"] for error in errors):
                taken = await self._insert_one(chunk[index], documents[index])
                if taken is not None:
                    return taken
        return None

    async def _show_life(self, token: ObjectId, upsert: bool = False) -> None:
        wanted = {"_id": token} if upsert else {"_id": token, "state": "adding"}
        await repeated(lambda: self._meta.update_one(wanted, _state("adding"), upsert=upsert))

    async def _decide(self, token: ObjectId, state: str, **conditions: Any) -> bool:
        """Whether a call has this state now, for good."""
        wanted = {"_id": token, "state": "adding", **conditions}
        done = await repeated(lambda: self._meta.update_one(wanted, _state(state)))
        if done.modified_count:
            return True
        found = await self._meta.find_one({"_id": token})
        return found is not None and found["state"] == state

    async def _publish(self, token: ObjectId, middle: int | None = None) -> None:
        """Let the documents of a call count.

        Args:
            token: The call's.
            middle: The order of one in the middle, if it is known: the server changes one document
                after the other, and two halves at the same time.
        """
        halves: list[Document] = [{}]
        if middle is not None:
            halves = [{"order": {"$lt": Int64(middle)}}, {"order": {"$gte": Int64(middle)}}]
        await asyncio.gather(*(self._publish_those(token, half) for half in halves))
        await self._meta.delete_one({"_id": token})

    async def _publish_those(self, token: ObjectId, wanted: Document) -> None:
        change: list[Document] = [{"$set": {"next_run": "$staged.next_run"}}, {"$unset": "staged"}]
        those = {"staged.call": token, **wanted}
        await repeated(lambda: self._tasks.update_many(those, change))

    async def _drop(self, token: ObjectId) -> None:
        """Give up a call of our own; it sends nothing any more."""
        await self._decide(token, "dropped")
        await self._remove_staged(token)
        await self._meta.delete_one({"_id": token})

    async def _remove_staged(self, token: ObjectId) -> None:
        # In the place of one whose runs are still open, it leaves them.
        those = {"staged.call": token}
        with_open = {**those, "$or": [{name: {"$exists": True}} for name in HAS_NOTHING_OPEN]}
        await repeated(lambda: self._tasks.update_many(with_open, GONE))
        await repeated(lambda: self._tasks.delete_many(those))

    async def _settle(self, call: Any, key: str = "") -> _Way:
        """See whether a call still goes on, and bring it to its end if not."""
        found = await self._meta.find_one({"_id": {"$eq": call}})
        if found is not None and found["state"] == "added":
            await self._publish(call)
            return _Way.FREE  # the next look finds a document that counts
        if found is not None and found["state"] == "adding":
            # Our own that has failed need not be waited for.
            is_ours = bool(key) and self._doubts.get(key) == call
            if not await self._decide(call, "dropped", **({} if is_ours else _silent())):
                return _Way.TAKEN
        # The decision is kept for a day: what a frozen caller still sends comes to nothing.
        await self._remove_staged(call)
        return _Way.FREE


def _staged(row: Row, token: ObjectId) -> Document:
    document = document_of(row, token)
    staged = {"call": token, "next_run": document["next_run"]}
    return {**document, "next_run": NOT_THERE, "staged": staged}


def _state(state: str) -> list[Document]:
    return [{"$set": {"state": state, "since": "$$NOW"}}]


def _silent(milliseconds: int = DEAD_AFTER_MS) -> Document:
    """A condition on calls: the last sign of life is so long ago, by the server's clock."""
    return {"$expr": {"$lt": ["$since", {"$subtract": ["$$NOW", milliseconds]}]}}


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows in pieces of a size that is encoded and sent in a moment."""
    start = size = 0
    for index, row in enumerate(rows):
        if index > start and (index - start == CHUNK or size + len(row.data) > CHUNK_BYTES):
            yield rows[start:index]
            start, size = index, 0
        size += len(row.data)
    if rows:
        yield rows[start:]
