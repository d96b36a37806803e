"""What the cases of a shared store work with: nodes, firings, runs."""

# these are tests

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Node,
    RunEnd,
    RunOutcome,
    RunRef,
    Unrun,
)
from asyncz.tasks.base import Task
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_suite_basics import ALIAS, SuiteBase
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after

__all__ = ["LATER", "LEASE", "Cluster", "ClusterBase", "Member", "firing", "ref"]

LEASE = 30.0
LATER = after(60)
SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING


class Member(NamedTuple):
    """A node, and the store object that it uses."""

    id: str
    store: Any

    async def fire(self, *firings: Firing, claim: str | None = None) -> list[Fired]:
        """Fire with a claim of its own."""
        fired: list[Fired] = await self.store.fire(self.id, claim or uuid4().hex, firings)
        return fired

    async def finish(self, *refs: RunRef, state: RunState = SUCCEEDED) -> list[bool]:
        """Say that runs without followers ended so."""
        ends = [RunEnd(ref, (RunOutcome(ref.scheduled_time, state),)) for ref in refs]
        counted: list[bool] = await self.store.finish_runs(self.id, ends)
        return counted

    async def reap(self, *, bury: bool = True, max_attempts: int = 3) -> Any:
        """Take over what can be."""
        moment = (await self.store.look()).now if bury else None
        return await self.store.reap(self.id, bury=moment, max_attempts=max_attempts)

    async def runs(self, **wanted: Any) -> list[Run]:
        """The runs there are."""
        found: list[Run] = await self.store.get_runs(RunQuery(**wanted))
        return found

    async def states(self) -> dict[str, RunState]:
        """The states of all runs, by task."""
        return {run.task_id: run.state for run in await self.runs()}


class Cluster(NamedTuple):
    """Nodes on one store, and the clock of all of them."""

    clock: VirtualClock
    members: list[Member]


def firing(
    task: Task,
    *run_times: datetime,
    following: datetime | None = LATER,
    kind: RunKind = RunKind.SCHEDULED,
    unrun: Sequence[Unrun] = (),
) -> Firing:
    """Run a task that is due, at its next run time, and move it on."""
    times = run_times or (task.next_run_time or NOON,)
    moved = following if kind is RunKind.SCHEDULED else task.next_run_time
    forget = kind is RunKind.SCHEDULED and following is None
    return Firing(task, task.next_run_time, moved, forget, kind, times, tuple(unrun))


def ref(task_id: str, token: int = 1, at: datetime = NOON, **options: Any) -> RunRef:
    """A run at noon."""
    return RunRef(task_id, options.get("kind", RunKind.SCHEDULED), at, token)


class ClusterBase(SuiteBase):
    """How the cases get their nodes. To write for several store objects: `another`."""

    async def another(self, store: Any) -> Any:
        """Another store object on the same tasks, not started; None: one object is for all."""
        return None

    @asynccontextmanager
    async def cluster(self, *tasks: Task, count: int = 2) -> AsyncIterator[Cluster]:
        """Nodes on a store with these tasks."""
        clock = VirtualClock(NOON)
        host = SuiteHost(clock=clock)
        async with AsyncExitStack() as stack:
            first = await self.make_store()
            stores = [first]
            await first.start(host, ALIAS)
            stack.push_async_callback(first.shutdown)
            await first.add_tasks(tasks)
            for _ in range(1, count):
                store = await self.another(first)
                if store is None:
                    stores.append(first)
                    continue
                await store.start(host, ALIAS)
                stack.push_async_callback(store.shutdown)
                stores.append(store)
            members = []
            for number, used in enumerate(stores):
                node = Node(uuid4().hex, f"worker {number}", "host", 1000 + number)
                await used.join_node(node, LEASE)  # type: ignore[attr-defined]
                members.append(Member(node.id, used))
            yield Cluster(clock, members)
