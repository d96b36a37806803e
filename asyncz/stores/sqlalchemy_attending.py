"""Attending to runs on their way: their next attempts, and those that are to be cancelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from asyncz.enums import Delivery, RunState
from asyncz.stores.cluster import Attended, OpenRun, RunRef
from asyncz.stores.fates import DELETED
from asyncz.stores.rows import Slices
from asyncz.stores.serializing import Codec
from asyncz.stores.sqlalchemy_batches import OPEN, WAITING, RunName
from asyncz.stores.sqlalchemy_details import because, read_asker
from asyncz.stores.sqlalchemy_history import id_of
from asyncz.stores.sqlalchemy_reaping import TaskOf, open_run, ref_of
from asyncz.stores.sqlalchemy_runs import Explain
from asyncz.stores.sqlalchemy_sharing import Sharing
from asyncz.tasks.base import Task

__all__ = ["Attendant"]

PAGE = 100
PAGES = 10
"""How many are looked at in one go. Of many that are held up, the next go looks at the rest."""


class _Fate(NamedTuple):
    """What is to become of a run that waits.

    Args:
        run: As it was read.
        task: What it is tried again with.
        explain: Why it is not, if it is not.
    """

    run: Row[Any]
    task: Task | None
    explain: Explain | None


class Attendant:
    """One attending. As in a `Reaper`, records are read while nothing is locked.

    Args:
        shared: What the store has.
        node_id: Who attends.
        task_of: Reads the task of a run.
        codec: Reads the rest.
    """

    def __init__(self, shared: Sharing, node_id: str, task_of: TaskOf, codec: Codec) -> None:
        self._shared = shared
        self._node_id = node_id
        self._task_of = task_of
        self._codec = codec
        self._taken: list[OpenRun] = []
        self._ended: list[RunRef] = []
        self._tasks: dict[tuple[Any, ...], Task | None] = {}

    async def attend(self, limit: int) -> Attended:
        """As `ClusterStore.attend`."""
        asked = await self._asked()
        if asked is None:
            return Attended((), (), ())
        shared = self._shared
        place, shared.attended_until = shared.attended_until, None
        for number in range(PAGES):
            rows = await self._page(place)
            fates = [fate async for fate in self._fates(rows)]
            if fates and not await self._carry_out(fates, limit - len(self._taken)):
                break
            if len(rows) < PAGE or len(self._taken) >= limit:
                break
            place = rows[-1]
            if number == PAGES - 1:
                shared.attended_until = place
        return Attended(tuple(self._taken), asked, tuple(self._ended))

    async def _asked(self) -> tuple[tuple[RunRef, str], ...] | None:
        """Which runs of this node somebody wants cancelled; None: the node is not alive."""
        shared, node_id = self._shared, self._node_id

        def work(connection: Connection, _: bool) -> list[Row[Any]] | None:
            if not shared.nodes.is_alive(connection, node_id):
                return None
            return shared.attempts.asked(connection, node_id)

        rows = await shared.database.run(work)
        if rows is None:
            return None
        return tuple(
            (ref_of(row, row.token), read_asker(self._codec, id_of(row), row.asked)) for row in rows
        )

    async def _page(self, after: Row[Any] | None) -> list[Row[Any]]:
        shared = self._shared

        def work(connection: Connection, _: bool) -> list[Row[Any]]:
            rows = shared.attempts.due(connection, after, PAGE)
            shared.attempts.clear(connection, [row for row in rows if row.active is None])
            return rows

        return await shared.database.run(work)

    async def _fates(self, rows: Sequence[Row[Any]]) -> AsyncIterator[_Fate]:
        """What is to become of those that wait; of whose task cannot be read here, nothing."""
        pause = Slices()
        for row in rows:
            await pause()
            if row.active != WAITING:
                continue
            if row.asked is not None:
                by = read_asker(self._codec, id_of(row), row.asked)
                yield self._ending(row, f"cancelled by {by}")
            elif row.record is None and row.task_record is None:
                yield self._ending(row, DELETED)
            elif (task := self._read(row)) is not None:
                yield _Fate(row, task, None)

    def _read(self, row: Row[Any]) -> Task | None:
        """The task of a run. Where many wait for a place, most are of a few tasks."""
        of_run = row.record is not None
        record, moment = (row.record, row.run_us) if of_run else (row.task_record, row.next_run_us)
        same = row.task, of_run, moment, bytes(record)
        if same not in self._tasks:
            self._tasks[same] = self._task_of(row)[0]
        return self._tasks[same]

    def _ending(self, row: Row[Any], reason: str) -> _Fate:
        return _Fate(row, None, because(self._codec, id_of(row), reason))

    async def _carry_out(self, fates: Sequence[_Fate], room: int) -> bool:
        """See to it that it becomes so, where nobody else was first; whether the node is alive."""

        def work(connection: Connection, in_doubt: bool) -> list[_Fate] | None:
            now = self._shared.nodes.hold_alive(connection, self._node_id)
            if now is None:
                return None
            return _Change(self._shared, self._node_id, connection, now).make(fates, room, in_doubt)

        made = await self._shared.database.run(work, transaction=True)
        for fate in made or []:
            self._note(fate)
        return made is not None

    def _note(self, fate: _Fate) -> None:
        run = fate.run
        if fate.task is None:
            self._ended.append(ref_of(run, run.token))
            return
        once = run.delivery == Delivery.AT_MOST_ONCE.value
        self._taken.append(
            open_run(run, [], fate.task, None)._replace(
                ref=ref_of(run, run.token + 1),
                attempt=run.attempt + 1,
                state=RunState.CLAIMED if once else RunState.RUNNING,
            )
        )


class _Change(NamedTuple):
    """What is made of runs that wait, in one transaction.

    Args:
        shared, node_id: As for an `Attendant`.
        connection: In the transaction.
        now: The time.
    """

    shared: Sharing
    node_id: str
    connection: Connection
    now: int

    def make(self, fates: Sequence[_Fate], room: int, in_doubt: bool) -> list[_Fate]:
        """Make it so; what was made.

        Args:
            room: At most so many are taken.
            in_doubt: Whether a try whose answer was lost may have made it so.
        """
        there = self._find_so(fates) if in_doubt else set()
        held = self._hold([fate.run for fate in fates if fate.task is not None])
        busy = self._names_in_use(fates)
        made = []
        for fate in fates:
            run, task = fate.run, fate.task
            if _identity(run) in there:
                is_made = True
            elif task is None:
                cancelled = RunState.CANCELLED.value
                is_made = self.shared.runs.settle(
                    self.connection, run, cancelled, self.now, fate.explain
                )
            elif room <= 0 or run.task not in held or _name(run) in busy:
                continue
            elif is_made := held[run.task] < task.max_instances and self._take(run):
                held[run.task] += 1
            if is_made:
                made.append(fate)
                room -= task is not None
        return made

    def _take(self, run: Row[Any]) -> bool:
        return self.shared.attempts.take(self.connection, self.node_id, run, self.now)

    def _hold(self, runs: Sequence[Row[Any]]) -> Counter[str]:
        """Keep others from beginning runs of these tasks; how many go on of each that is ours.

        Whoever begins runs has the row of the task to himself. What somebody else has is left out:
        he is about to change what is asked here.
        """
        connection, shared = self.connection, self.shared
        keys = sorted({run.task for run in runs})
        if not keys:
            return Counter()
        held = set(shared.batches.lock_tasks(connection, keys, waits=False))
        gone = {run.task for run in runs if run.task_record is None} - held
        if gone:
            shared.attempts.lock(connection, gone)
            held |= gone
        going = shared.batches.count_active(connection, keys)
        return Counter({key: going[key].active for key in held})

    def _names_in_use(self, fates: Sequence[_Fate]) -> set[RunName]:
        """Names under which a task runs that has the id of one that is gone."""
        kept = [_name(fate.run) for fate in fates if fate.task and fate.run.record is not None]
        found = self.shared.batches.find(self.connection, kept) if kept else []
        return {run.name for run in found if run.active == OPEN}

    def _find_so(self, fates: Sequence[_Fate]) -> set[tuple[RunName, int]]:
        """Of which of these it is so already."""
        wanted = {_identity(fate.run): fate for fate in fates}
        found = self.shared.batches.find(self.connection, [_name(fate.run) for fate in fates])
        there = set()
        for run in found:
            identity = (run.name, run.added)
            fate = wanted.get(identity)
            if fate is None:
                continue
            is_ended = (run.state, run.token) == (RunState.CANCELLED.value, fate.run.token)
            is_taken = (run.owner, run.token) == (self.node_id, fate.run.token + 1)
            if is_ended if fate.task is None else is_taken:
                there.add(identity)
        return there


def _name(run: Row[Any]) -> RunName:
    return RunName(run.task, run.run_us, run.kind)


def _identity(run: Row[Any]) -> tuple[RunName, int]:
    return _name(run), run.added
