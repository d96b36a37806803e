"""What happens to runs on their way, in a MongoDB store that several schedulers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncz.enums import RunState
from asyncz.serializers.json import to_microseconds
from asyncz.serializers.values import is_clean_text
from asyncz.stores.cluster import Attended, OpenRun, RunRef
from asyncz.stores.fates import DELETED
from asyncz.stores.mongo_attempts import Changes
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_cluster import ROUNDS, MongoCluster, open_run
from asyncz.stores.mongo_runs import Held
from asyncz.stores.mongo_waiting import Waiting
from asyncz.stores.rows import Slices
from asyncz.tasks.base import Task

__all__ = ["MongoAttending"]

MANY = 100
"""Attempts that are ended by one change of a document."""


class MongoAttending(MongoCluster):
    """Attempts, notes, being cancelled, and what is kept of runs."""

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        ending = self._parts.ending
        return await self._call(lambda: ending.note(node_id, notes)) if notes else []

    # Attempts.

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        parts = self._parts
        now = await self._call(lambda: parts.nodes.time_if_alive(node_id))
        if now is None:
            return Attended((), (), ())
        asked, changes = await self._call(lambda: parts.attempts.marked(node_id, self._why))
        _, ended = await self._call(lambda: parts.attempts.make(node_id, now, changes))
        taken, deleted = await self._take_due(node_id, now, limit)
        return Attended(
            tuple(taken),
            tuple((each.ref, self._who(each.ref.task_id, each.mark)) for each in asked),
            tuple(held.ref for held in (*ended, *deleted)),
        )

    async def _take_due(
        self, node_id: str, now: int, limit: int
    ) -> tuple[list[OpenRun], list[Held]]:
        """Attempts that are the node's now; and those of deleted tasks, ended."""
        attempts = self._parts.attempts
        taken: list[OpenRun] = []
        ended: list[Held] = []
        passed_over: set[str] = set()
        # Where something goes on, an attempt may have to wait: these must not hold up others.
        for idle in (True, False):
            for _ in range(ROUNDS):
                room = limit - len(taken)
                if room <= 0:
                    break
                page = await self._call(
                    lambda: attempts.due(now, passed_over, room, idle=idle)  # noqa: B023
                )
                if not page:
                    break
                passed_over |= {seen.key for seen in page}
                changes, tasks = await self._changes(page, room)
                begun, gone = await self._call(
                    lambda: attempts.make(node_id, now, changes)  # noqa: B023
                )
                taken += (open_run(held, tasks[held.key, held.claim], None) for held in begun)
                ended += gone
        return taken, ended

    async def _changes(
        self, page: Sequence[Waiting], room: int
    ) -> tuple[list[Changes], dict[tuple[str, str], Task]]:
        """What is to be done about documents, and the tasks of the attempts that begin."""
        pause = Slices()
        tasks: dict[tuple[str, str], Task] = {}
        changes = []
        for seen in page:
            await pause()
            wanted = Changes(seen, [], [], [])
            limits: dict[bytes, int] = {}
            for found in seen.due:
                held, row = found.held, found.row
                if held.claim in seen.marks:
                    continue
                if row is None:
                    if len(wanted.end) < MANY:
                        wanted.end.append((found, DELETED))
                    continue
                is_full = seen.active + len(wanted.take) >= limits.get(row.data, 1 << 62)
                if is_full or len(tasks) >= room:
                    continue
                task, _ = self._task_of(found)
                limits[row.data] = 0 if task is None else task.max_instances
                if task is not None and seen.active + len(wanted.take) < task.max_instances:
                    wanted.take.append(found)
                    tasks[held.key, held.claim] = task
            if wanted.take or wanted.end:
                changes.append(wanted)
        return changes, tasks

    # Being cancelled.

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        if not is_clean_text(task_id):
            return None
        key, at, parts = self.key_of(task_id), to_microseconds(scheduled_time), self._parts

        async def cancel() -> RunState | None:
            mark = self._seal(key, {"asked": by})
            goes_on = await parts.attempts.cancel(key, at, f"cancelled by {by}", mark)
            return goes_on or await parts.history.settled_state(key, at)

        return await self._call(cancel)

    def _who(self, key: str, mark: Document) -> str:
        """Who has asked, as a mark says."""
        return self._texts_of(key, mark).get("asked", "somebody")

    def _why(self, key: str, mark: Document) -> str:
        return f"cancelled by {self._who(key, mark)}"

    # History.

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        if not is_clean_text(task_id):
            return 0
        key, history = self.key_of(task_id), self._parts.history
        return await self._call(lambda: history.prune(key, states, keep, before, limit))
