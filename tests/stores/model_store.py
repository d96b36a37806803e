"""A store in memory that keeps runs too: the model that real ones are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import inf
from typing import Any

from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.base import StoreHost, is_same_instant
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Pulse,
    Reaped,
    RunEnd,
    RunRef,
)
from asyncz.stores.memory import MemoryStore
from asyncz.tasks.base import Task

from .model_life import ModelLife

__all__ = ["ModelStore"]


class ModelStore(MemoryStore, ClusterStore):
    """The protocol for one process."""

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        await super().start(scheduler, alias)
        self._runs = ModelLife(alias, scheduler.clock.now, self._find, self._move)

    def _find(self, task_id: str) -> tuple[Task, int] | None:
        entry = self._entries.get(task_id)
        return None if entry is None else (self._tasks[task_id], entry[1])

    async def join_node(self, node: Node, lease: float) -> None:
        self._runs.join(node, lease)

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        return self._runs.renew(node_id, lease, running)

    async def leave_node(self, node_id: str) -> None:
        self._runs.leave(node_id)

    async def get_nodes(self) -> list[NodeRecord]:
        return self._runs.nodes()

    def pulse(self, node_id: str) -> Pulse | None:
        return None

    async def look(self) -> Look:
        now = self.host.clock.now()
        moment = await self.get_next_run_time()
        return Look(now, moment, self._runs.has_unowned(), self._runs.attend_at())

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        return self._runs.fire(node_id, claim, firings)

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        return self._runs.start(node_id, refs)

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        return self._runs.finish(node_id, ends)

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        self._runs.release(node_id, refs)

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        return self._runs.own_runs(node_id)

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        return self._runs.reap(node_id, bury, max_attempts, limit)

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        return self._runs.note(node_id, notes)

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        return self._runs.attend(node_id, limit)

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        return self._runs.cancel(task_id, scheduled_time, by)

    async def get_runs(self, query: RunQuery) -> list[Run]:
        return self._runs.runs(query)

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        return self._runs.count_active(task_ids)

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        return self._runs.last_runs(task_ids)

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        return self._runs.prune(task_id, states, keep, before, limit)

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        return self._runs.forget(before, limit)

    def _move(self, firing: Firing) -> bool:
        task_id: str = firing.task.id  # type: ignore[assignment]  # it came out of this store
        entry = self._entries.get(task_id)
        expected = inf if firing.expected is None else firing.expected.timestamp()
        # By instant: Python takes the two passes of a repeated hour in one zone for equal.
        if entry is None or entry[0] != expected:
            return False
        if firing.forget:
            self._forget(task_id)
        elif not is_same_instant(firing.expected, firing.next_run_time):
            kept = self._tasks[task_id]
            kept.next_run_time = firing.next_run_time
            self._enter(task_id, kept, entry[1])
        return True
