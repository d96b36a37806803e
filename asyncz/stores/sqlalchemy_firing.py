"""Firing tasks: who moves them on, what begins to run, what is only noted down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import Fired, Firing, Unrun
from asyncz.stores.sqlalchemy_batches import (
    OPEN,
    QUEUED,
    WAITING,
    Batches,
    Going,
    Head,
    LockedTask,
    Move,
    RunName,
    split_known,
)
from asyncz.stores.sqlalchemy_runs import RunRows

__all__ = ["Shot", "Volley"]

Seal = Callable[[str, str], bytes | None]
"""What is said of a run, for the database: task id, reason."""


class Shot(NamedTuple):
    """A firing in terms of rows.

    Args:
        key: The task's.
        expected, following: Its next run time now and afterwards.
        run_times: Those that are to be run.
    """

    key: str
    expected: int | None
    following: int | None
    run_times: tuple[int, ...]
    firing: Firing

    @classmethod
    def of(cls, key: str, firing: Firing) -> Shot:
        """A firing of the task with this key."""
        expected, following = firing.expected, firing.next_run_time
        return cls(
            key,
            None if expected is None else to_microseconds(expected),
            None if following is None else to_microseconds(following),
            tuple(map(to_microseconds, firing.run_times)),
            firing,
        )

    @property
    def name(self) -> RunName:
        """What its run is known by."""
        return RunName(self.key, self.run_times[0], self.firing.kind.value)


class Volley:
    """Firings that are made together, in one transaction.

    Args:
        batches, runs: What they are made with.
        seal: Makes the details of a run.
        node_id: Whose they are.
    """

    def __init__(self, batches: Batches, runs: RunRows, seal: Seal, node_id: str) -> None:
        self._batches = batches
        self._runs = runs
        self._seal = seal
        self._node_id = node_id

    def fire(self, connection: Connection, now: int, shots: Sequence[Shot]) -> list[Fired]:
        """Make them and say what became of each.

        The rows of the tasks are locked, in one order everywhere, before their runs are counted:
        a statement of its own sees what others have committed until then. A task that is due and
        that somebody has locked is somebody else's: if that one hangs, the others on the page must
        not wait for it. A run by hand waits, since nobody else would do it.
        """
        batches, said = self._batches, {}
        waits = any(shot.firing.kind is RunKind.MANUAL for shot in shots)
        found = batches.lock_tasks(connection, sorted(shot.key for shot in shots), waits)
        ours = [
            shot
            for shot in shots
            if shot.key in found and found[shot.key].next_run == shot.expected
        ]
        going = self._count_active(connection, ours, found)
        busy = {
            shot.key
            for shot in ours
            if shot.run_times and going[shot.key].active >= shot.firing.task.max_instances
        }
        moved = [
            shot
            for shot in sorted(ours)
            if shot.key not in busy or shot.firing.kind is not RunKind.MANUAL
        ]
        for shot in ours:
            said[shot.key] = Fired.SKIPPED if shot.key in busy else Fired.WON
        ending = [shot.key for shot in moved if shot.firing.forget and any(going[shot.key])]
        if ending:
            # Nobody has deleted the task: who takes these runs over needs its record.
            self._runs.keep_records(connection, ending)
        if moved:
            waiting = {key for key, runs in going.items() if runs.has_waiting}
            for name in self._make(connection, now, moved, found, busy, waiting):
                said[name.task] = Fired.REPEATED
        return [said.get(shot.key, Fired.LOST) for shot in shots]

    def _count_active(
        self, connection: Connection, shots: Sequence[Shot], found: dict[str, LockedTask]
    ) -> dict[str, Going]:
        """What runs go on of those tasks of which it matters."""
        known = {shot.key: found[shot.key].going for shot in shots}
        counts = {key: going for key, going in known.items() if going is not None}
        keys = [shot.key for shot in shots if shot.run_times or shot.firing.forget]
        unknown = [key for key in keys if key not in counts]
        if unknown:
            counts |= self._batches.count_active(connection, unknown)
        return counts

    def _make(
        self,
        connection: Connection,
        now: int,
        shots: Sequence[Shot],
        found: dict[str, LockedTask],
        busy: set[str],
        waiting: set[str],
    ) -> set[RunName]:
        """Move tasks on, and enter their runs. Returns those that were there already."""
        moves = [Move(shot.key, shot.following) for shot in shots if not shot.firing.forget]
        gone = [shot.key for shot in shots if shot.firing.forget]
        runs = [shot for shot in shots if shot.run_times]
        heads = [_head(shot, found[shot.key].added) for shot in runs if shot.key not in busy]
        there = self._find_waiting(connection, [head for head in heads if head.task in waiting])
        if there:
            heads = [head for head in heads if head.name not in there]
        there |= self._batches.begin(connection, self._node_id, now, moves, gone, heads)
        skipped = [shot for shot in runs if shot.key in busy]
        if skipped:
            there |= self._find_repeated(connection, skipped, found)
        self._note(connection, now, shots, found, busy, {name.task for name in there})
        return there

    def _find_waiting(self, connection: Connection, heads: Sequence[Head]) -> set[RunName]:
        """Those that may not begin. One that waits for its next attempt is in no index that would
        say so, if it is of a task that was removed."""
        if not heads:
            return set()
        found = self._batches.find(connection, [head.name for head in heads])
        return split_known(heads, found)[1]

    def _find_repeated(
        self,
        connection: Connection,
        shots: Sequence[Shot],
        found: dict[str, LockedTask],
    ) -> set[RunName]:
        runs = self._batches.find(connection, [shot.name for shot in shots])
        return {
            run.name
            for run in runs
            if run.added == found[run.task].added
            or run.active in (OPEN, WAITING)  # of a task that was removed
        }

    def _note(
        self,
        connection: Connection,
        now: int,
        shots: Sequence[Shot],
        found: dict[str, LockedTask],
        busy: set[str],
        repeated: set[str],
    ) -> None:
        """Note down what is not run, and what waits behind the first that is."""
        rows: list[dict[str, Any]] = []
        for shot in shots:
            if len(shot.run_times) < 2 and not shot.firing.unrun and shot.key not in busy:
                continue
            common = _common(shot, found[shot.key].added)
            unrun = [*shot.firing.unrun]
            if shot.key in repeated:
                pass
            elif shot.key in busy:
                unrun.append(_skipped(shot.firing))
            else:
                rows += [
                    common | self._follower(shot, moment, now) for moment in shot.run_times[1:]
                ]
            rows += [common | self._unrun(shot, each, now) for each in unrun]
        if rows:
            self._runs.note(connection, rows)

    def _follower(self, shot: Shot, moment: int, now: int) -> dict[str, Any]:
        return {
            "run_us": moment,
            "state": RunState.QUEUED.value,
            "active": QUEUED,
            "head_us": shot.run_times[0],
            "delivery": shot.firing.task.delivery.value,
            "owner": self._node_id,
            "token": 1,
            "attempt": 1,
            "claimed_us": now,
        }

    def _unrun(self, shot: Shot, unrun: Unrun, now: int) -> dict[str, Any]:
        several = unrun.occurrences > 1
        return {
            "kind": RunKind.SCHEDULED.value,  # also where a run by hand leaves them out
            "run_us": to_microseconds(unrun.first),
            "state": unrun.state.value,
            "occurrences": unrun.occurrences,
            "last_us": to_microseconds(unrun.last) if several else None,
            "owner": self._node_id,
            "claimed_us": now,
            "finished_us": now,
            "details": self._seal(str(shot.firing.task.id), unrun.reason),
        }


def _head(shot: Shot, added: int) -> Head:
    task = shot.firing.task
    return Head(
        shot.key,
        shot.run_times[0],
        shot.firing.kind.value,
        added,
        _long_id(shot),
        task.delivery is Delivery.AT_MOST_ONCE,
        len(shot.run_times) - 1,
        shot.key if shot.firing.forget else None,
    )


def _long_id(shot: Shot) -> bytes | None:
    """The id of a task whose key is not its id. As bytes: there may be any character in it."""
    task_id = str(shot.firing.task.id)
    return None if task_id == shot.key else task_id.encode()


def _common(shot: Shot, added: int) -> dict[str, Any]:
    """What the rows of one firing share, and what most of them have."""
    return {
        "task": shot.key,
        "kind": shot.firing.kind.value,
        "added": added,
        "task_id": _long_id(shot),
        "active": None,
        "head_us": None,
        "followers": 0,
        "occurrences": 1,
        "last_us": None,
        "delivery": None,
        "token": 0,
        "attempt": 0,
        "started_us": None,
        "finished_us": None,
        "details": None,
    }


def _skipped(firing: Firing) -> Unrun:
    run_times = firing.run_times
    why = f"{firing.task.max_instances} run(s) went on, as many as max_instances allows"
    return Unrun(RunState.SKIPPED, run_times[0], run_times[-1], len(run_times), why)
