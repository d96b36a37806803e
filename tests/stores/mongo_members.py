"""Nodes on MongoDB stores, for the tests of what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from asyncz.clock import Clock
from asyncz.stores.cluster import Node
from asyncz.tasks.base import Task
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_suite_cluster import LEASE, Member
from asyncz.testing.store_suite_tools import NOON, SuiteHost

from .mongo_databases import Place

__all__ = ["members", "open_documents", "virtual"]


def virtual() -> VirtualClock:
    """A clock that stands at noon."""
    return VirtualClock(NOON)


@asynccontextmanager
async def members(
    place: Place,
    tasks: Sequence[Task] = (),
    *,
    count: int = 2,
    clock: Clock | None = None,
    **options: Any,
) -> AsyncIterator[list[Member]]:
    """Nodes with a store each in one place, which has these tasks.

    Args:
        clock: Of all of them. Left out: one that stands at noon.
        options: Of the first one's store.
    """
    host = SuiteHost(clock=clock or virtual())
    found = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            store = place.store(**(options if number == 0 else {}))
            await store.start(host, "mongo")
            stack.push_async_callback(store.shutdown)
            node = Node(uuid4().hex, f"worker {number}", "host", number)
            await store.join_node(node, LEASE)
            found.append(Member(node.id, store))
        await found[-1].store.add_tasks(tasks)
        yield found


def open_documents(place: Place) -> int:
    """How many tasks' documents have something open."""
    parts = [{"active.0": {"$exists": True}}, {"ledger.0": {"$exists": True}}]
    return place.database.tasks.count_documents({"$or": parts})
