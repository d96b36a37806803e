"""Tasks as the rows of a store with a server, and what works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from asyncz.serializers.json import from_microseconds
from asyncz.tasks.query import TaskSummary

__all__ = [
    "Place",
    "Row",
    "Slices",
    "Step",
    "StoredRow",
    "added_at",
    "is_moment",
    "key_there_twice",
]

SLICE = 0.002
"""Seconds of reading or writing records before the event loop gets its turn."""


class Row(NamedTuple):
    """A task on its way into the store.

    Args:
        key: What the store knows it by: `RecordStore.key_of` its id.
        next_run: Microseconds since the epoch, or None while it is paused.
        order: Of insertion. Kept when a row is replaced.
        data: The record.
        summary: For queries; None if the serializer keeps such things secret.
    """

    key: str
    next_run: int | None
    order: int
    data: bytes
    summary: TaskSummary | None


class StoredRow(NamedTuple):
    """A task on its way out of the store."""

    key: str
    next_run: int | None
    order: int
    data: bytes

    @property
    def place(self) -> Place:
        """Where it stands among the others."""
        return Place(self.next_run, self.order, self.key)


class Place(NamedTuple):
    """A place in the order of rows: by next run time, then by insertion, then by key.

    Paused rows (`next_run` None) come after all others.
    """

    next_run: int | None
    order: int
    key: str


class Step(NamedTuple):
    """`TaskAdvance` in terms of rows: `expected` to `next_run`, or, None: remove the row."""

    key: str
    expected: int
    next_run: int | None


class Slices:
    """Awaited again and again, gives the event loop its turn every few milliseconds."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._deadline = self._time() + SLICE

    async def __call__(self) -> None:
        if self._time() > self._deadline:
            await asyncio.sleep(0)
            self._deadline = self._time() + SLICE


def added_at(order: int) -> datetime | None:
    """When a row was added: its order is the time of it, but for what others have put there."""
    try:
        return from_microseconds(order) if order > 0 else None
    except OverflowError:
        return None


def is_moment(value: object) -> bool:
    """Whether a record's next run time is one."""
    try:
        return isinstance(value, int) and from_microseconds(value) is not None
    except OverflowError:
        return False


def key_there_twice(rows: Sequence[Row]) -> str:
    """A key that is there twice."""
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            return row.key
        seen.add(row.key)
    raise AssertionError("no key is there twice")
