"""Taking over the runs of nodes that are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import OpenRun, Reaped, RunRef
from asyncz.stores.fates import why_ended
from asyncz.stores.rows import Slices
from asyncz.stores.serializing import Codec
from asyncz.stores.sqlalchemy_batches import RunName
from asyncz.stores.sqlalchemy_details import because
from asyncz.stores.sqlalchemy_history import id_of
from asyncz.stores.sqlalchemy_sharing import Sharing
from asyncz.tasks.base import Task

__all__ = ["Reaper", "TaskOf", "open_run", "ref_of"]

TaskOf = Callable[[Row[Any]], tuple[Task | None, str | None]]
"""The task of a run, or why there is none."""

ONCE = Delivery.AT_MOST_ONCE.value
RUNNING = RunState.RUNNING.value


class _Fate(NamedTuple):
    """What is to become of a run that nobody has.

    Args:
        run: As it was read.
        ends_as: None: it is taken over, with its task.
    """

    run: Row[Any]
    ends_as: RunState | None
    task: Task | None


class Reaper:
    """One reaping.

    What is found is looked at without holding any lock, since reading a record may import the
    modules of the user's. Then each run is changed only if it is as it was.

    Args:
        shared: What the store has.
        node_id: Who reaps.
        task_of: Reads the task of a run.
        max_attempts: How often a run is claimed at most.
        codec: The store's, for the reasons.
    """

    def __init__(
        self, shared: Sharing, node_id: str, task_of: TaskOf, max_attempts: int, codec: Codec
    ) -> None:
        self._codec = codec
        self._shared = shared
        self._node_id = node_id
        self._task_of = task_of
        self._max_attempts = max_attempts
        self._taken: list[OpenRun] = []
        self._ended: list[tuple[RunRef, RunState]] = []

    async def reap(self, bury: datetime | None, limit: int) -> Reaped:
        """As `ClusterStore.reap`."""
        dead = await self._begin(bury)
        if dead is None:
            return Reaped((), (), ())
        last: Row[Any] | None = None
        while (room := limit - len(self._taken) - len(self._ended)) > 0:
            rows = await self._page(last, limit)
            fates = [fate async for fate in self._fates(rows)]
            if fates and not await self._carry_out(fates[:room]):
                break
            if len(rows) < limit:
                break
            last = rows[-1]
        return Reaped(tuple(dead), tuple(self._taken), tuple(self._ended))

    async def _begin(self, bury: datetime | None) -> list[str] | None:
        """Bury, if that is wanted. Who was; None: this node is not alive itself."""
        nodes = self._shared.nodes

        def work(connection: Connection, _: bool) -> list[str] | None:
            if nodes.hold_alive(connection, self._node_id) is None:
                return None
            if bury is None:
                return []
            return nodes.bury(connection, to_microseconds(bury), self._node_id)

        return await self._shared.database.run(work, transaction=bury is not None)

    async def _page(self, after: Row[Any] | None, limit: int) -> list[Row[Any]]:
        def work(connection: Connection, _: bool) -> list[Row[Any]]:
            return self._shared.runs.unowned(connection, after, limit)

        return await self._shared.database.run(work)

    async def _fates(self, rows: Sequence[Row[Any]]) -> AsyncIterator[_Fate]:
        """What is to become of runs; those are left out whose task cannot be read here."""
        pause = Slices()
        for row in rows:
            await pause()
            if row.delivery == ONCE and row.state == RUNNING:
                yield _Fate(row, RunState.LOST, None)
            elif row.attempt - (row.retries or 0) >= self._max_attempts:
                yield _Fate(row, RunState.ABANDONED, None)
            elif row.record is None and row.task_record is None:
                yield _Fate(row, RunState.CANCELLED, None)
            elif (task := self._task_of(row)[0]) is not None:
                yield _Fate(row, None, task)

    async def _carry_out(self, fates: Sequence[_Fate]) -> bool:
        """See to it that it becomes so, where nobody else was first; whether the node is alive."""
        shared, node_id = self._shared, self._node_id

        def work(connection: Connection, in_doubt: bool) -> list[tuple[_Fate, list[int]]] | None:
            now = shared.nodes.hold_alive(connection, node_id)
            if now is None:
                return None
            made = []
            for fate in fates:
                waiting = shared.runs.with_followers(connection, [fate.run])[0][1]
                if self._make_so(connection, fate, now) or (
                    in_doubt and self._is_so(connection, fate)
                ):
                    made.append((fate, waiting))
            return made

        made = await shared.database.run(work, transaction=True)
        for fate, waiting in made or []:
            self._note(fate, waiting)
        return made is not None

    def _make_so(self, connection: Connection, fate: _Fate, now: int) -> bool:
        runs = self._shared.runs
        if fate.ends_as is None:
            return runs.take(connection, self._node_id, fate.run, now)
        run, ends_as = fate.run, fate.ends_as
        why = because(self._codec, id_of(run), why_ended(ends_as, run.owner, run.attempt))
        return runs.settle(connection, run, ends_as.value, now, why)

    def _is_so(self, connection: Connection, fate: _Fate) -> bool:
        """Whether a try whose answer was lost has made it so."""
        run, ends_as = fate.run, fate.ends_as
        name = RunName(run.task, run.run_us, run.kind)
        return any(
            (found.owner, found.token) == (self._node_id, run.token + 1)
            if ends_as is None
            else (found.state, found.token) == (ends_as.value, run.token)
            for found in self._shared.batches.find(connection, [name])
            if found.added == run.added
        )

    def _note(self, fate: _Fate, waiting: Sequence[int]) -> None:
        run = fate.run
        if fate.ends_as is not None:
            self._ended.append((ref_of(run, run.token), fate.ends_as))
            return
        taken = open_run(run, waiting, fate.task, None)
        self._taken.append(
            taken._replace(
                ref=ref_of(run, run.token + 1),
                attempt=run.attempt + 1,
                state=RunState.CLAIMED if run.delivery == ONCE else RunState.RUNNING,
            )
        )


def open_run(
    row: Row[Any], followers: Sequence[int], task: Task | None, error: str | None
) -> OpenRun:
    """A run of a row.

    Args:
        followers: When those were due that wait behind it.
        task, error: Its task, or why there is none.
    """
    run_times = tuple(map(from_microseconds, (row.run_us, *followers)))
    return OpenRun(
        ref_of(row, row.token),
        RunState(row.state),
        row.attempt,
        run_times,
        Delivery(row.delivery),
        task,
        error,
    )


def ref_of(row: Row[Any], token: int) -> RunRef:
    """What the owner of a run knows it by."""
    return RunRef(id_of(row), RunKind(row.kind), from_microseconds(row.run_us), token)
