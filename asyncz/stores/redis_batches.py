"""Adding many tasks at once to Redis: all of them or none, without holding the server up.

The rows are sent in parts, which nobody sees, and their ids are claimed. Then one script says that
the batch is kept: that is the instant of the change. From there its parts are published one by
one, by who added them or, if that one died, by the next store that looks. A batch that was not
kept leaves no trace: an addition of somebody else may take its ids at any time, and breaks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from asyncz.exceptions import StoreError
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_keys import new_id
from asyncz.stores.redis_rows import pack_row
from asyncz.stores.rows import Row

__all__ = ["RedisBatches"]

ROWS = 250
"""Rows in one call: about three milliseconds for the server."""
BYTES = 256 * 1024
TIME = re.compile(rb"(?<=:)\d{10}")
FORGOTTEN_AFTER = 60
"""Seconds after which a batch that was not kept is taken for that of a dead process."""


class RedisBatches:
    """Adds rows.

    Args:
        calls: To the server.
    """

    def __init__(self, calls: RedisCalls) -> None:
        self._calls = calls
        self._own: set[str] = set()

    async def insert(self, rows: Sequence[Row]) -> str | None:
        """Add all rows, or none and return a key that is taken."""
        parts = _parts(rows)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            return _taken(await self._calls("insert", first)) if first else None
        batch = new_id()
        self._own.add(batch)
        try:
            return await self._insert_batch(batch, [first, second], parts)
        finally:
            self._own.discard(batch)

    async def finish(self) -> None:
        """Publish what others left unpublished, and forget what they did not come to keep."""
        states, now = await self._calls("batches")
        for name, state in zip(states[::2], states[1::2], strict=True):
            batch = name.decode()
            if batch in self._own:
                continue
            if state == b"kept":
                await self._each_part("publish", batch)
            elif int(TIME.findall(state)[0]) < int(now) - FORGOTTEN_AFTER:
                await self._each_part("drop", batch)

    async def _insert_batch(
        self, batch: str, begun: list[bytes], parts: Iterator[bytes]
    ) -> str | None:
        key = self._calls.keys.batch(batch)
        count = 0
        for packed in chain(begun, parts):
            taken = _taken(await self._calls("claim", batch, count, packed, batch=key))
            if taken is not None:
                await self._each_part("drop", batch)
                return taken
            count += 1
        answer = await self._calls("commit", batch, count, batch=key)
        if answer == b"?":
            raise StoreError(
                f"Adding tasks to the store {self._calls.alias!r} took too long and was given up; "
                "none was added."
            )
        taken = _taken(answer)
        if taken is not None:
            await self._each_part("drop", batch)
            return taken
        await self._publish(batch)
        return None

    async def _publish(self, batch: str) -> None:
        try:
            await self._each_part("publish", batch)
        except StoreError as exc:
            raise StoreError(
                f"The store {self._calls.alias!r} failed when all tasks had been added, before "
                "all could be seen; they will be as soon as it answers again."
            ) from exc

    async def _each_part(self, script: str, batch: str) -> None:
        key = self._calls.keys.batch(batch)
        for number in sorted(await self._calls("parts", batch=key), key=int):
            await self._calls(script, batch, number, batch=key)


def _parts(rows: Sequence[Row]) -> Iterator[bytes]:
    packed: list[bytes] = []
    size = 0
    for row in rows:
        packed.append(pack_row(row))
        size += len(packed[-1])
        if len(packed) >= ROWS or size >= BYTES:
            yield b"".join(packed)
            packed, size = [], 0
    if packed:
        yield b"".join(packed)


def _taken(answer: bytes) -> str | None:
    """The key that an answer says is taken."""
    return answer[1:].decode("utf-8", "surrogateescape") if answer.startswith(b"!") else None
