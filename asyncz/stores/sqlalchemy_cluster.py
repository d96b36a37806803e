"""A SQL database that several schedulers share: the operations of `ClusterStore`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from asyncz.enums import NodeState, RunState
from asyncz.exceptions import StoreError, UnreadableRecordError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.serializers.values import is_clean_text
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
)
from asyncz.stores.fates import DELETED
from asyncz.stores.quarantine import reason
from asyncz.stores.records import RecordStore, StoredRow
from asyncz.stores.rows import Slices
from asyncz.stores.sqlalchemy_attending import Attendant
from asyncz.stores.sqlalchemy_batches import MANY, OPEN, WAITING, RunName
from asyncz.stores.sqlalchemy_details import amend, because, seal, seal_asker
from asyncz.stores.sqlalchemy_ending import Ending
from asyncz.stores.sqlalchemy_firing import Shot, Volley
from asyncz.stores.sqlalchemy_history import Pruning, runs_of_query, show
from asyncz.stores.sqlalchemy_notices import ANNOUNCING, announce, channel_of
from asyncz.stores.sqlalchemy_reaping import Reaper, open_run
from asyncz.stores.sqlalchemy_schema import Tables
from asyncz.stores.sqlalchemy_sharing import Sharing
from asyncz.tasks.base import Task

__all__ = ["SQLClusterStore"]


class SQLClusterStore(RecordStore, ClusterStore):
    """The part of `SQLAlchemyStore` that knows runs and nodes."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._sharing: Sharing | None = None

    @property
    @abstractmethod
    def _all_tables(self) -> Tables:
        """The tables."""

    @property
    def _shared(self) -> Sharing:
        if self._sharing is None:
            _ = self.host  # raises
            raise StoreError(f"The store {self.alias!r} is being opened or closed.")
        return self._sharing

    # Nodes.

    async def join_node(self, node: Node, lease: float) -> None:
        shared = self._shared

        def work(connection: Connection, _: bool) -> None:
            shared.nodes.join(connection, node, lease)

        shared.members.add(node.id)
        await shared.database.run(work, transaction=True)

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        shared = self._shared

        def work(connection: Connection, _: bool) -> bool:
            return shared.nodes.renew(connection, node_id, lease, running)

        return await shared.database.run(work)

    async def leave_node(self, node_id: str) -> None:
        shared = self._shared

        def work(connection: Connection, _: bool) -> None:
            shared.nodes.leave(connection, node_id)

        await shared.database.run(work)
        shared.drop(node_id)

    async def get_nodes(self) -> list[NodeRecord]:
        shared = self._shared

        def work(connection: Connection, _: bool) -> tuple[int, list[Row[Any]]]:
            return shared.nodes.all(connection)

        now, rows = await shared.database.run(work)
        return [_node_record(row, now) for row in rows]

    # Claims and outcomes.

    @property
    def due_page(self) -> int:
        # On a file, most of what a page costs is the same for any number of tasks.
        return 256 if self._shared.database.family == "sqlite" else super().due_page

    @property
    def announces(self) -> bool:
        return self._sharing is not None and self._sharing.database.family in ANNOUNCING

    async def announce(self, node_id: str) -> None:
        shared, channel = self._shared, channel_of(self._all_tables)

        def work(connection: Connection, _: bool) -> None:
            announce(connection, channel, node_id)

        await shared.database.run(work)

    async def look(self) -> Look:
        shared = self._shared

        def work(connection: Connection, _: bool) -> tuple[int, int | None, bool, int | None]:
            return shared.runs.look(connection)

        now, moment, has_unowned, attend_us = await shared.database.run(work)
        next_run_time = None if moment is None else from_microseconds(moment)
        attend_at = None if attend_us is None else from_microseconds(attend_us)
        return Look(from_microseconds(now), next_run_time, has_unowned, attend_at)

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        shared = self._shared
        answer = shared.answers.get((node_id, claim))
        if answer is None:
            answer = await shared.claims_of(node_id).make(claim, self._volley(node_id, firings))
            shared.remember(node_id, claim, answer)
        return answer

    def _volley(
        self, node_id: str, firings: Sequence[Firing]
    ) -> Callable[[Connection, int | None], list[Fired]]:
        shared, bad = self._shared, self._quarantine
        shots = [Shot.of(self.key_of(str(firing.task.id)), firing) for firing in firings]
        if any(firing.forget for firing in firings):
            self._count_again_at = float("-inf")
        held = {shot.key for shot in shots if bad and shot.key in bad}
        made = [shot for shot in shots if shot.key not in held]
        volley = Volley(shared.batches, shared.runs, self._seal, node_id)

        def work(connection: Connection, now: int | None) -> list[Fired]:
            if now is None:
                return [Fired.FENCED] * len(shots)
            fired = iter(volley.fire(connection, now, made) if made else [])
            return [Fired.LOST if shot.key in held else next(fired) for shot in shots]

        return work

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        shared = self._shared
        named = [(self._name_of(ref), ref.token) for ref in refs]

        def work(connection: Connection, _: bool) -> list[bool]:
            return [shared.runs.start(connection, node_id, *each) for each in named]

        return await shared.database.run(work, transaction=len(refs) > 1)

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        if not ends:
            return []
        shared, ending = self._shared, Ending(ends, self.key_of, self._seal_outcome)

        def work(connection: Connection, _: bool) -> list[bool]:
            return ending.record(connection, shared, node_id)

        return await shared.database.run(work, transaction=True)

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        shared = self._shared
        named = [(self._name_of(ref), ref.token) for ref in refs]

        def work(connection: Connection, _: bool) -> None:
            for each in named:
                shared.runs.release(connection, node_id, *each)

        await shared.database.run(work, transaction=True)

    # What somebody else left.

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        shared = self._shared

        def work(connection: Connection, _: bool) -> list[tuple[Row[Any], list[int]]]:
            return shared.runs.with_followers(connection, shared.runs.owned(connection, node_id))

        pause = Slices()
        found = []
        for row, waiting in await shared.database.run(work):
            await pause()
            found.append(open_run(row, waiting, *self._task_of(row)))
        return found

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        codec = self._started_codec
        reaper = Reaper(self._shared, node_id, self._task_of, max_attempts, codec)
        return await reaper.reap(bury, limit)

    def _task_of(self, row: Row[Any]) -> tuple[Task | None, str | None]:
        """The task of a run, or why there is none."""
        if row.record is not None:
            stored = StoredRow(row.task, row.run_us, row.added, bytes(row.record))
        elif row.task_record is not None:
            stored = StoredRow(row.task, row.next_run_us, row.added, bytes(row.task_record))
        else:
            return None, DELETED
        try:
            return self._started_codec.build(self._unpack(stored)), None
        except UnreadableRecordError as exc:
            return None, reason(exc)

    # On their way.

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        shared = self._shared

        def note(connection: Connection, ref: RunRef, said: Mapping[str, Any]) -> bool:
            def explain(before: bytes | None) -> bytes:
                return amend(self._started_codec, ref.task_id, before, notes=said)

            name = self._name_of(ref)
            return shared.runs.note_of(connection, node_id, name, ref.token, explain)

        def work(connection: Connection, _: bool) -> list[bool]:
            return [note(connection, *each) for each in notes]

        return await shared.database.run(work, transaction=True) if notes else []

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        attendant = Attendant(self._shared, node_id, self._task_of, self._started_codec)
        return await attendant.attend(limit)

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        if not is_clean_text(task_id):
            return None
        shared, codec = self._shared, self._started_codec
        key, run_us = self.key_of(task_id), to_microseconds(scheduled_time)
        asker = seal_asker(codec, task_id, by)
        explain = because(codec, task_id, f"cancelled by {by}")

        def work(connection: Connection, _: bool) -> RunState | None:
            rows = shared.attempts.lock_named(connection, key, run_us)
            states = [shared.attempts.cancel(connection, row, asker, explain) for row in rows]
            # Of several of one instant, the one that most can be said of.
            return states[max(range(len(rows)), key=lambda it: _order(rows[it]))] if rows else None

        return await shared.database.run(work, transaction=True)

    # History.

    async def get_runs(self, query: RunQuery) -> list[Run]:
        key = None
        if query.task_id is not None:
            if not is_clean_text(query.task_id):
                return []
            key = self.key_of(query.task_id)
        wanted = runs_of_query(self._all_tables, query, key)

        def work(connection: Connection, _: bool) -> list[Row[Any]]:
            return list(connection.execute(wanted))

        pause = Slices()
        found = []
        for row in await self._shared.database.run(work):
            await pause()
            found.append(show(row, self.alias, self._started_codec))
        return found

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        shared = self._shared
        keys = {task_id: self.key_of(task_id) for task_id in task_ids if is_clean_text(task_id)}
        wanted = [*keys.values()]

        def work(connection: Connection, _: bool) -> dict[str, int]:
            return {
                key: going.active
                for start in range(0, len(wanted), MANY)
                for key, going in shared.batches.count_active(
                    connection, wanted[start : start + MANY]
                ).items()
            }

        counts = await shared.database.run(work)
        return {task_id: counts.get(keys.get(task_id, ""), 0) for task_id in task_ids}

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """As `ClusterStore.get_last_runs`, by one question to the database for many."""
        shared = self._shared
        keys = [*{self.key_of(task_id): None for task_id in task_ids if is_clean_text(task_id)}]

        def work(connection: Connection, _: bool) -> list[Row[Any]]:
            pages = (keys[start : start + MANY] for start in range(0, len(keys), MANY))
            return [row for page in pages for row in shared.batches.find_last(connection, page)]

        pause = Slices()
        found: dict[str, Run] = {}
        for row in await shared.database.run(work):
            await pause()
            run = show(row, self.alias, self._started_codec)
            found[run.task_id] = run
        return found

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        if not is_clean_text(task_id) or not states:
            return 0
        pruning, tables = Pruning(self.key_of(task_id), states, keep, before), self._all_tables

        def work(connection: Connection, _: bool) -> int:
            return pruning.prune(connection, tables, limit)

        return await self._shared.database.run(work)

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        shared, moment = self._shared, to_microseconds(before)

        def work(connection: Connection, _: bool) -> int:
            return shared.batches.forget(connection, moment, limit)

        return await shared.database.run(work)

    def _name_of(self, ref: RunRef) -> RunName:
        return RunName(
            self.key_of(ref.task_id), to_microseconds(ref.scheduled_time), ref.kind.value
        )

    def _seal(self, task_id: str, reason: str | None) -> bytes | None:
        return None if reason is None else seal(self._started_codec, task_id, reason)

    def _seal_outcome(self, task_id: str, said: RunOutcome) -> bytes | None:
        _, _, error, traceback, why, notes, _ = said
        if why is error is traceback is None and not notes:
            return None
        return seal(self._started_codec, task_id, why, error, traceback, notes)


def _order(run: Row[Any]) -> tuple[bool, bool, int]:
    return run.active in (OPEN, WAITING), run.active is not None, run.added


def _node_record(row: Row[Any], now: int) -> NodeRecord:
    is_stale = row.state == NodeState.ALIVE.value and row.lease_until_us < now
    return NodeRecord(
        Node(row.id, row.identity, row.host, row.pid),
        NodeState.STALE if is_stale else NodeState(row.state),
        from_microseconds(row.joined_us),
        from_microseconds(row.seen_us),
        from_microseconds(row.lease_until_us),
        row.running,
    )
