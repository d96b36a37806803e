"""Nodes on the directory of one file store, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.cluster import Fired, Firing, Node, RunEnd, RunOutcome, RunRef
from asyncz.stores.file import FileStore
from asyncz.tasks.base import Task
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after

LEASE = 30.0
SCHEDULED = RunKind.SCHEDULED
SUCCEEDED = RunState.SUCCEEDED


class FileNode(NamedTuple):
    """A node with a store object of its own."""

    id: str
    store: FileStore
    clock: VirtualClock

    async def fire(self, *tasks: Task, claim: str = "", forget: bool = False) -> list[Fired]:
        """Run these, each at its next run time, and again a minute later."""
        firings = []
        for task in tasks:
            moment = task.next_run_time or NOON
            following = None if forget else after(60)
            firings.append(Firing(task, moment, following, forget, SCHEDULED, (moment,)))
        return await self.store.fire(self.id, claim or uuid4().hex, firings)

    async def finish(self, *names: str, token: int = 1, **said: Any) -> list[bool]:
        """Say that runs due at noon have ended."""
        outcome = RunOutcome(NOON, said.pop("state", SUCCEEDED), **said)
        refs = [RunRef(name, SCHEDULED, NOON, token) for name in names]
        return await self.store.finish_runs(self.id, [RunEnd(ref, (outcome,)) for ref in refs])

    async def run_all(self) -> list[Fired]:
        """Fire what is due at noon, and let it end."""
        due = await self.store.get_due_tasks(NOON)
        fired = await self.fire(*due, forget=True)
        assert all(await self.finish(*(str(task.id) for task in due)))
        return fired

    async def runs(self, **wanted: Any) -> list[Run]:
        """The runs there are."""
        return await self.store.get_runs(RunQuery(**wanted))


@asynccontextmanager
async def node(
    directory: Path, name: str, clock: VirtualClock | None = None, **options: Any
) -> AsyncIterator[FileNode]:
    """A node that has joined; it does not leave."""
    clock = clock or VirtualClock(NOON)
    store = FileStore(directory, **options)
    await store.start(SuiteHost(clock=clock), "files")
    try:
        await store.join_node(Node(name, name, "host", 1), LEASE)
        yield FileNode(name, store, clock)
    finally:
        await store.shutdown()
