"""Announcements in MongoDB: a capped collection that schedulers follow to its end.

Not a change stream: those exist on replica sets only, and each one reads all that is written on
the server to find what it is asked for. This works on a standalone server too.
"""

from __future__ import annotations

from collections.abc import Callable

from pymongo import CursorType
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from asyncz.exceptions import StoreError
from asyncz.stores.mongo_client import Collection

__all__ = ["MongoNotices"]

SIZE = 16_384
"""Bytes of the collection: some two hundred announcements, of which all but the last are old."""
AWAIT = 10_000
"""Milliseconds that the server waits for the next one before it says that there is none."""
EXISTS = 48
"""The server's code for a collection that is there already."""


class MongoNotices:
    """The announcements of one store.

    Args:
        notices: The collection.
    """

    def __init__(self, notices: Collection) -> None:
        # What is lost with the server is nothing that matters.
        self._notices = notices.with_options(write_concern=WriteConcern(w=1))

    async def prepare(self) -> None:
        """Make the collection."""
        database, name = self._notices.database, self._notices.name
        try:
            await database.command("create", name, capped=True, size=SIZE)
        except OperationFailure as exc:
            if exc.code != EXISTS:
                raise
        else:
            await self.announce("")  # there is no following an empty one

    async def announce(self, node_id: str) -> None:
        """Tell who listens."""
        await self._notices.insert_one({"node": node_id})

    async def listen(self, node_id: str, heard: Callable[[], None]) -> None:
        """Call `heard` at once, and for each announcement of another node from now on.

        Raises:
            StoreError: The server has ended it, as it does when it is restarted.
        """
        mark = (await self._notices.insert_one({"listener": node_id})).inserted_id
        found = self._notices.find({}, cursor_type=CursorType.TAILABLE_AWAIT)
        cursor = found.max_await_time_ms(AWAIT)
        is_new = False  # what comes before the mark is old
        try:
            while cursor.alive:
                async for notice in cursor:
                    if notice["_id"] == mark:
                        is_new = True
                        heard()
                    elif is_new and notice.get("node", node_id) != node_id:
                        heard()
        finally:
            await cursor.close()
        raise StoreError(f"The collection {self._notices.name!r} cannot be followed any more.")
