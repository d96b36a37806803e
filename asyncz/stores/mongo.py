"""Tasks in MongoDB, one document each, on Motor or PyMongo's own asyncio client."""

from __future__ import annotations

try:
    # Here, and not in the modules that use it: this is the first that is imported.
    import pymongo.asynchronous.collection  # noqa: F401  # older ones have none
except ImportError as exc:
    raise ImportError(
        "MongoDBStore needs the package pymongo; pip install 'asyncz[mongo]'.", name=exc.name
    ) from exc

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, PrivateAttr, field_validator

from asyncz.clock import SystemClock
from asyncz.exceptions import ConfigurationError
from asyncz.stores.base import ExpectingTasks
from asyncz.stores.cluster import Pulse
from asyncz.stores.expecting import MARKED, expecting_tasks
from asyncz.stores.mongo_adding import MongoAdding
from asyncz.stores.mongo_attending import MongoAttending
from asyncz.stores.mongo_client import Link, check_client, check_uri, open_link
from asyncz.stores.mongo_cluster import Parts
from asyncz.stores.mongo_documents import segments_of
from asyncz.stores.mongo_pulse import MongoPulse
from asyncz.stores.mongo_rows import Collections, MongoRows, prepare
from asyncz.stores.mongo_steps import MongoSteps
from asyncz.stores.rows import Place, Row, Step, StoredRow
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery

__all__ = ["MongoDBStore"]

DEFAULT_URI = "mongodb://localhost:27017"
SWEEP_EVERY = 60.0

T = TypeVar("T")


class MongoDBStore(MongoAttending):
    """Keeps each task as a document of a MongoDB collection, on a standalone server as well.

    Writes are acknowledged by a majority of the replica set, from the journal. Beside the
    collection there are `NAME.unreadable`, for records that `delete_task` or `update_task` has set
    aside, `NAME.runs`, `NAME.nodes`, `NAME.notices` and `NAME.meta`. Several schedulers may share
    it.

    Args:
        database: Its name.
        collection: The collection's.
        client: An `AsyncIOMotorClient` of Motor or an `AsyncMongoClient` of PyMongo. It is used on
            the event loop that it belongs to, and not closed. Or a URI.
        uri: Makes a client of the store's own, of Motor if that is installed, which is closed at
            the shutdown. With neither, `mongodb://localhost:27017`.
        serializer, allowed_callables, max_payload: See `SerializingStore`.

    Raises:
        ConfigurationError: The client or the URI is none that can be used.
    """

    # The options may hold a password, which the errors of Pydantic would show.
    model_config = ConfigDict(hide_input_in_errors=True)

    database: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,62}$")] = "asyncz"
    collection: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,99}$")] = "tasks"
    client: Any = Field(default=None, repr=False, exclude=True)
    uri: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False, exclude=True)

    _link: Link | None = PrivateAttr(default=None)
    _started_parts: Parts | None = PrivateAttr(default=None)
    _rows: MongoRows | None = PrivateAttr(default=None)
    _adding: MongoAdding | None = PrivateAttr(default=None)
    _steps: MongoSteps | None = PrivateAttr(default=None)
    _sweep_at: float = PrivateAttr(default=0.0)

    def __init__(self, **options: Any) -> None:
        if isinstance(options.get("client"), str):
            if options.get("uri") is not None:
                raise ConfigurationError("MongoDBStore: give a client or a uri, not both.")
            options["uri"] = options.pop("client")
        super().__init__(**options)
        if self.client is not None and self.uri is not None:
            raise ConfigurationError("MongoDBStore: give a client or a uri, not both.")
        check_client(self.client)
        if self.uri is not None:
            check_uri(self.uri)

    @field_validator("collection")
    @classmethod
    def _can_be_a_collection(cls, name: str) -> str:
        if name.startswith("system.") or ".." in name or name.endswith("."):
            raise ValueError("it must not begin with 'system.', nor have '..' or a dot at its end")
        return name

    async def get_tasks(self, conditions: Mapping[str, Any] | None = None) -> list[Task]:
        """The readable tasks that match a filter of MongoDB, in the order of `get_all_tasks`.

        Args:
            conditions: On fields such as `name`, `executor` and `next_run` (microseconds since
                the epoch; None: paused). It is handed to the server as it is, so nothing in it
                may come from strangers. Left out: all tasks.
        """
        if conditions is None:
            return await self.get_all_tasks()
        rows = await self._call(lambda: self._started_rows.matching(conditions))
        return [task async for _, task in self._tasks_of(rows) if task is not None]

    # The rows.

    async def _open(self) -> None:
        alias = self.alias or ""
        self._link = await open_link(self.client, self.uri or DEFAULT_URI, self.host, alias)
        collections = Collections.through(self._link, self.database, self.collection)
        self._started_parts = Parts(collections, self.host.clock, self._seal)
        self._rows = self._started_parts.rows
        self._adding = MongoAdding(collections, alias)
        self._steps = MongoSteps(collections.tasks)
        await self._call(lambda: prepare(collections, alias))
        await self._sweep()

    async def _close(self) -> None:
        link, self._link = self._link, None
        steps, self._steps = self._steps, None
        self._rows = self._adding = self._started_parts = None
        if link is None:
            return
        try:
            if steps is not None and steps.has_ended:
                await link.call(steps.remove_ended)
        finally:
            await link.close()

    async def _insert(self, rows: Sequence[Row]) -> str | None:
        adding = self._adding
        if adding is None:
            raise self._not_started()
        return await self._call(lambda: adding.insert(rows)) if rows else None

    async def _replace(self, row: Row, before: StoredRow | None = None) -> bool:
        return await self._call(lambda: self._started_rows.replace(row, before))

    async def _remove(self, keys: Sequence[str]) -> int:
        return await self._call(lambda: self._started_rows.remove(keys)) if keys else 0

    async def _set_aside(self, row: StoredRow) -> bool:
        return await self._call(lambda: self._started_rows.set_aside(row))

    async def _fetch(self, key: str) -> StoredRow | None:
        return await self._call(lambda: self._started_rows.fetch(key))

    async def _fetch_page(
        self, after: Place | None, limit: int, until: int | None = None
    ) -> list[StoredRow]:
        if until is not None:
            await self._look_after()
        rows = await self._call(lambda: self._started_rows.page(after, limit, until))
        if until is not None:
            self._parts.known.saw((row.key, row.order) for row in rows)
        await asyncio.sleep(0)  # the driver decodes a page in one go; reading it is another
        return rows

    async def _find_place(self, number: int, until: int) -> Place | None:
        return await self._call(lambda: self._started_rows.find_place(number, until))

    async def _advance(self, steps: Sequence[Step]) -> list[bool]:
        await asyncio.sleep(0)  # they were planned in one go
        return await self._call(lambda: self._started_steps.advance(steps)) if steps else []

    async def _count(self) -> tuple[int, int]:
        return await self._call(self._started_rows.count)

    async def _find(
        self, query: TaskQuery, exclude: Set[str]
    ) -> tuple[list[StoredRow], int] | None:
        segments = segments_of(query, self.alias or "", exclude)
        rows = self._started_rows
        return await self._call(lambda: rows.find(segments, query.offset, query.limit))

    async def get_expecting_tasks(self, rest: Any = None) -> ExpectingTasks:
        return await expecting_tasks(self, self._fetch_expecting, rest)

    async def _fetch_expecting(self, after: Any) -> tuple[list[StoredRow], Any]:
        rows = await self._call(lambda: self._started_rows.expecting(after, MARKED))
        return rows, rows[-1].key if len(rows) == MARKED else None

    async def _look_after(self) -> None:
        """What a pass does beside looking for what is due."""
        steps = self._started_steps
        if steps.has_ended:
            await self._call(steps.remove_ended)
        if self._monotonic() >= self._sweep_at:
            await self._sweep()

    async def _sweep(self) -> None:
        self._sweep_at = self._monotonic() + SWEEP_EVERY
        if self._adding is not None:
            await self._call(self._adding.sweep)
            await self._call(self._started_rows.remove_left_over)

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._link is None:
            raise self._not_started()
        return await self._link.call(work)

    def pulse(self, node_id: str) -> Pulse | None:
        if not isinstance(self.host.clock, SystemClock):
            return None
        uri, alias = self.uri or DEFAULT_URI, self.alias or ""
        return MongoPulse(self.client, uri, self.database, self.collection, node_id, alias)

    @property
    def _parts(self) -> Parts:
        if self._started_parts is None:
            raise self._not_started()
        return self._started_parts

    @property
    def _started_rows(self) -> MongoRows:
        if self._rows is None:
            raise self._not_started()
        return self._rows

    @property
    def _started_steps(self) -> MongoSteps:
        if self._steps is None:
            raise self._not_started()
        return self._steps
