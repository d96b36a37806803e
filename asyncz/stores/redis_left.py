"""Open runs on a Redis server together with what they can be carried out by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

from asyncz.exceptions import UnreadableRecordError
from asyncz.stores.fates import DELETED
from asyncz.stores.quarantine import reason
from asyncz.stores.redis_rows import encode_key, read_row
from asyncz.stores.redis_run_rows import StoredRun, read_run
from asyncz.stores.rows import Slices, StoredRow
from asyncz.tasks.base import Task

__all__ = ["Left", "left_of", "read_left"]


ReadTask = Callable[[StoredRow], Task]
"""The task of a row. Raises UnreadableRecordError."""


class Left(NamedTuple):
    """An open run, and what it can be carried out by here."""

    run: StoredRun
    task: Task | None
    error: str | None

    @property
    def is_gone(self) -> bool:
        """Whether its task was deleted."""
        return self.task is None and self.error == DELETED

    @property
    def letter(self) -> bytes:
        """Whether its task can be run here, cannot be read here, or is gone."""
        if self.task is not None:
            return b"t"
        return b"g" if self.is_gone else b"u"


async def read_left(
    pairs: Iterable[tuple[bytes, bytes]], pause: Slices, read: ReadTask
) -> AsyncIterator[Left]:
    """What a script has put with `put_record`: of each run two pairs."""
    rest = iter(pairs)
    for (ident, value), (place, data) in zip(rest, rest, strict=True):
        await pause()
        yield left_of(read_run(ident, value), place, data, read)


def left_of(run: StoredRun, place: bytes, data: bytes, read: ReadTask) -> Left:
    """A run with the record that was found for it; no place: none was."""
    if not place:
        return Left(run, None, DELETED)
    try:
        return Left(run, read(read_row(place + encode_key(run.key), data)), None)
    except UnreadableRecordError as exc:
        return Left(run, None, reason(exc))
