"""The tasks of a store with a server that have `expect_every`, by the mark beside their records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asyncz.stores.base import ExpectingTasks
from asyncz.stores.records import RecordStore
from asyncz.stores.rows import StoredRow, added_at

__all__ = ["MARKED", "expecting_tasks"]

MARKED = 100
"""Marked rows that are fetched at a time."""
UNMARKED = 100
"""Rows that are fetched at a time where none may be marked, since what they hold is secret."""

Fetch = Callable[[Any], Awaitable[tuple[Sequence[StoredRow], Any]]]
"""From a place of the store's own, or None, to the marked rows behind it and the place after
these, or None."""


async def expecting_tasks(store: RecordStore, fetch: Fetch, rest: Any) -> ExpectingTasks:
    """See `BaseStore.get_expecting_tasks`."""
    rows: Sequence[StoredRow]
    if store.keeps_secret:
        rows = await store._fetch_page(rest, UNMARKED)
        following = rows[-1].place if len(rows) == UNMARKED else None
    else:
        rows, following = await fetch(rest)
    found = [
        (task, added_at(row.order))
        async for row, task in store._tasks_of(rows)
        if task is not None and task.expect_every is not None
    ]
    return ExpectingTasks(found, following)
