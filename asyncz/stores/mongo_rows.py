"""The rows of a MongoDB store: reading, replacing, removing, finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import DeleteMany, UpdateMany
from pymongo.errors import AutoReconnect, DuplicateKeyError, ServerSelectionTimeoutError

from asyncz.exceptions import StoreFormatError
from asyncz.stores.mongo_client import Collection, Document, Link, repeated
from asyncz.stores.mongo_documents import (
    BY_KEY,
    DUE_ORDER,
    ENDED,
    EXPECTING,
    GONE,
    HAS_NOTHING_OPEN,
    HAS_OPEN_RUNS,
    INDEXES,
    IS_GONE,
    IS_PAUSED,
    IS_SCHEDULED,
    IS_THERE,
    PAUSED_END,
    ROW_FIELDS,
    SCHEDULED_END,
    WAITING,
    Bound,
    Segment,
    bound_after,
    bound_until,
    contents_of,
    long,
    row_of,
    surplus_of,
)
from asyncz.stores.mongo_notices import MongoNotices
from asyncz.stores.mongo_runs import RUN_INDEXES
from asyncz.stores.rows import Place, Row, StoredRow

__all__ = ["SCHEMA_VERSION", "Collections", "MongoRows"]

SCHEMA_VERSION = 3
SCHEMA = "schema"


class Collections(NamedTuple):
    """Where a store keeps what.

    Args:
        tasks: Its tasks.
        aside: Records that could not be read and whose place was needed.
        meta: The version of all this, and the calls that add tasks and have not ended.
        runs: What became of runs.
        nodes: The schedulers that share it.
        notices: What they announce.
    """

    tasks: Collection
    aside: Collection
    meta: Collection
    runs: Collection
    nodes: Collection
    notices: Collection

    @classmethod
    def through(cls, link: Link, database: str, name: str) -> Collections:
        """Those of a store."""
        beside = ("unreadable", "meta", "runs", "nodes", "notices")
        names = (name, *(f"{name}.{each}" for each in beside))
        return cls(*(link.collection(database, each) for each in names))


async def prepare(collections: Collections, alias: str) -> None:
    """Make the indexes, and see to it that all this is of a version that is understood.

    Safe when many do so at once.

    Raises:
        StoreFormatError: A newer release has written it.
    """
    meta = collections.meta
    found = await meta.find_one({"_id": SCHEMA})
    if found is None:
        try:
            await meta.insert_one({"_id": SCHEMA, "version": SCHEMA_VERSION})
        except DuplicateKeyError:
            found = await meta.find_one({"_id": SCHEMA})
    version = SCHEMA_VERSION if found is None else found.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise StoreFormatError(
            f"The store {alias!r} (MongoDBStore): the collection {collections.tasks.name!r} has "
            f"version {version!r}, and this release of asyncz understands {SCHEMA_VERSION}; "
            "upgrade asyncz, or give the store another collection."
        )
    await collections.tasks.create_indexes(INDEXES)
    await collections.runs.create_indexes(RUN_INDEXES)
    await MongoNotices(collections.notices).prepare()
    if version < SCHEMA_VERSION:
        # Before runs (2) or their attempts (3) were kept, documents lacked the fields, which is
        # how they say "none". An older release would delete a task together with what waits.
        older = {"_id": SCHEMA, "version": version}
        await meta.update_one(older, {"$set": {"version": SCHEMA_VERSION}})


class MongoRows:
    """The operations on single documents, and on pages of them."""

    def __init__(self, collections: Collections) -> None:
        self._tasks = collections.tasks
        self._aside = collections.aside

    async def fetch(self, key: str) -> StoredRow | None:
        """The row of a key."""
        found = await self._tasks.find_one({"_id": {"$eq": key}, **IS_THERE}, ROW_FIELDS)
        return None if found is None else row_of(found)

    async def page(self, after: Place | None, limit: int, until: int | None) -> list[StoredRow]:
        """A page of rows; see `RecordStore._fetch_page`."""
        rows: list[StoredRow] = []
        if after is None or after.next_run is not None:
            rows = await self._between(bound_after(after, False), bound_until(until), limit)
        if until is None and len(rows) < limit:
            start = bound_after(after, True)
            rows += await self._between(start, PAUSED_END, limit - len(rows))
        return rows

    async def find_place(self, number: int, until: int) -> Place | None:
        """The place of the row of this number among those due at or before a time, if any."""
        found = self._tasks.find({}, ROW_FIELDS, skip=number - 1, limit=1).sort(DUE_ORDER)
        start, end = bound_after(None, False), bound_until(until)
        rows = await _rows(found.hint(DUE_ORDER).min(start).max(end), 1)
        return rows[0].place if rows else None

    async def expecting(self, after: str | None, limit: int) -> list[StoredRow]:
        """Rows of tasks that have `expect_every`, by their keys, behind one of these."""
        wanted: Document = {"expects": True, **IS_THERE}
        if after is not None:
            wanted["_id"] = {"$gt": after}
        found = self._tasks.find(wanted, ROW_FIELDS, limit=limit).sort(BY_KEY).hint(EXPECTING)
        return await _rows(found, limit)

    async def _between(self, start: Bound, end: Bound, limit: int) -> list[StoredRow]:
        if limit <= 0:
            return []  # the server takes it for no limit
        found = self._tasks.find({}, ROW_FIELDS, limit=limit, batch_size=limit).sort(DUE_ORDER)
        # Bounds of the index, so that no page costs more than another.
        return await _rows(found.hint(DUE_ORDER).min(start).max(end), limit)

    async def replace(self, row: Row, before: StoredRow | None = None) -> bool:
        """Change what a replacement changes. False: there is no such row, or its next run time is
        not that of the one before."""
        change = {"$set": contents_of(row), "$unset": surplus_of(row), "$inc": {"rev": 1}}
        it: Document = {"_id": {"$eq": row.key}, **IS_THERE}
        if before is not None:
            it["next_run"] = {"$eq": long(before.next_run)}
        done = await repeated(lambda: self._tasks.update_one(it, change))
        return bool(done.matched_count)

    async def remove(self, keys: Sequence[str]) -> int:
        """Remove rows; returns how many there were. Open runs stay, and can still be ended."""
        these: Document = {"_id": {"$in": list(keys)}, **IS_THERE}
        changes: list[DeleteMany | UpdateMany] = [
            DeleteMany({**these, **HAS_NOTHING_OPEN}),
            UpdateMany(these, GONE),
        ]
        try:
            done = await self._tasks.bulk_write(changes)
            return int(done.deleted_count + done.matched_count)
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            # How many of them the first attempt has removed, nobody knows.
            await self._tasks.bulk_write(changes)
            return len(keys)

    async def remove_left_over(self) -> None:
        """Remove what is left of tasks that were deleted while runs of them were open."""
        # The server would remove these in a week, whatever still goes on or waits in them.
        lasting: Document = {"ended": {"$exists": True}, "$or": HAS_OPEN_RUNS}
        await self._tasks.update_many(lasting, {"$unset": {"ended": ""}}, hint=ENDED)
        ended = {**IS_GONE, **HAS_NOTHING_OPEN, "ended": {"$exists": False}}
        await self._tasks.delete_many(ended, hint=DUE_ORDER)

    async def first(self) -> int | None:
        """The earliest next run time there is."""
        rows = self._tasks.find({}, {"next_run": 1, "_id": 0}, limit=1).sort(DUE_ORDER)
        bounds = rows.hint(DUE_ORDER).min(bound_after(None, False)).max(SCHEDULED_END)
        found = await bounds.to_list(1)
        return int(found[0]["next_run"]) if found else None

    async def first_attempt(self) -> int | None:
        """The earliest `retry` there is of what waits, from the index alone; see `mongo_runs`."""
        # With a condition on it, the server would sort all that there is.
        cursor = self._tasks.find({}, limit=1, return_key=True).sort([("waiting.retry", 1)])
        found = await cursor.hint(WAITING).to_list(1)
        return int(found[0]["waiting.retry"]) if found else None

    async def set_aside(self, row: StoredRow) -> bool:
        """Move a row to where unreadable ones are kept. False: it is not what it was."""
        is_it: Document = {"_id": {"$eq": row.key}, **IS_THERE}
        found = await self._tasks.find_one(is_it)
        if found is None or row_of(found).data != row.data:
            return False
        # First there, then away from here: killed in between, it is in both places.
        kept = {"key": row.key, "document": found}
        copy = await self._aside.insert_one(kept)
        is_same = {**is_it, "rev": found.get("rev"), "record": found.get("record")}
        done = await self._tasks.delete_one({**is_same, **HAS_NOTHING_OPEN})
        is_away = bool(done.deleted_count)
        if not is_away:
            is_away = bool((await self._tasks.update_one(is_same, GONE)).matched_count)
        if not is_away:
            await self._aside.delete_one({"_id": copy.inserted_id})
        return is_away

    async def count(self) -> tuple[int, int]:
        """How many rows are scheduled and how many are paused."""
        scheduled = await self._tasks.count_documents(IS_SCHEDULED)
        return scheduled, await self._tasks.count_documents(IS_PAUSED)

    async def find(
        self, segments: Sequence[Segment], offset: int, limit: int | None
    ) -> tuple[list[StoredRow], int] | None:
        """A page of segments and the number of rows in all; None: some rows keep it secret."""
        if await self._tasks.find_one({"opaque": True, **IS_THERE}, {"_id": 1}) is not None:
            return None
        rows: list[StoredRow] = []
        total = 0
        for wanted, sort in segments:
            there = await self._tasks.count_documents(wanted)
            skip, room = max(0, offset - total), None if limit is None else limit - len(rows)
            total += there
            if skip < there and room != 0:
                cursor = self._tasks.find(
                    wanted, ROW_FIELDS, skip=skip, limit=room or 0, allow_disk_use=True
                )
                rows += await _rows(cursor.sort(sort), room)
        return rows, total

    async def matching(self, conditions: Mapping[str, Any]) -> list[StoredRow]:
        """All rows that a filter of the user's matches, in order."""
        rows: list[StoredRow] = []
        for state in (IS_SCHEDULED, IS_PAUSED):
            wanted = {"$and": [dict(conditions), state]}
            rows += await _rows(self._tasks.find(wanted, ROW_FIELDS).sort(DUE_ORDER), None)
        return rows


async def _rows(cursor: Any, limit: int | None) -> list[StoredRow]:
    return [row_of(document) for document in await cursor.to_list(limit)]
