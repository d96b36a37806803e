"""What must hold, at each step and at the end."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.stores.cluster import Firing, RunEnd
from asyncz.tasks.base import Task
from tests.simulation.server import Row, Server, Watcher
from tests.simulation.world import ORIGIN, NodeLoop, Process, World

__all__ = ["Broken", "Execution", "Monitor"]

LOST_BEATS = 3
"""Beats in a row that are lost on the way, after which a node may be taken for dead."""

INEXACT = 1.5
"""Seconds by which a node may be wrong about the store's time, when answers take that long."""


class Broken(AssertionError):
    """A promise was not kept."""


class Execution:
    """User code that was started for a run.

    Args:
        process, node_id: Where, and as which node.
        task: What.
        head: The first of its run times.
    """

    def __init__(self, process: Process, node_id: str, task: Task, head: datetime) -> None:
        self.process = process
        self.node_id = node_id
        self.task_id = str(task.id)
        self.head = head
        self.calls = 1
        self.is_active = True
        self.was_cut_off = False
        self.succeeded = 0
        self.failed = 0


class Monitor(Watcher):
    """Looks on, and raises `Broken`.

    Args:
        world: Where.
        lease: Seconds.
        tasks: As they are at the beginning.
    """

    def __init__(self, world: World, lease: float, tasks: list[Task]) -> None:
        self._world = world
        self._lease = lease
        self._tasks = {str(task.id): task for task in tasks}
        self.server: Server
        self.processes: dict[str, Process] = {}
        self.runs: dict[tuple[str, datetime], list[Execution]] = {}
        self.excused: set[str] = set()
        """Nodes that were rightly taken for dead, or have left: what they did may be done again."""
        self.error: str | None = None
        """The first promise that was broken. The schedulers may have caught what was raised."""
        self._renewed: dict[str, float] = {}
        self._lost_beats: Counter[str] = Counter()

    def _fail(self, error: str) -> None:
        self.error = self.error or f"at {self._world.now:.3f} s: {error}"
        self._world.is_over = True
        raise Broken(error)

    # The store's server.

    def renewed(self, node_id: str) -> None:
        self._renewed[node_id] = self._world.now
        self._lost_beats[_process_of(node_id)] = 0

    def dropped(self, loop: NodeLoop) -> None:
        """A message of a process is lost."""
        if loop is loop.process.beat:
            self._lost_beats[loop.process.name] += 1

    def left(self, node_id: str) -> None:
        self.excused.add(node_id)

    def buried(self, node_id: str, by: str) -> None:
        process = self.processes[_process_of(node_id)]
        if not process.alive or process.has_stopped or self._was_unreachable(process, node_id):
            self.excused.add(node_id)
        elif process.current_node() == node_id:
            self._fail(f"{by} took {node_id} for dead, which lives and could be reached")

    def _was_unreachable(self, process: Process, node_id: str) -> bool:
        paused = process.paused_since(self._renewed[node_id])
        lost = self._lost_beats[process.name] >= LOST_BEATS
        return lost or paused >= self._lease / 6

    def moved(self, before: datetime | None, firing: Firing) -> None:
        after = firing.next_run_time
        if before is not None and after is not None:
            back = after < before if firing.kind is RunKind.MANUAL else after <= before
            if back:
                self._fail(f"the schedule of {firing.task.id} went from {before} to {after}")

    def finished(self, row: Row, node_id: str, end: RunEnd) -> None:
        where = f"{row.key} by {node_id} with token {end.ref.token}"
        if (row.owner, row.token) != (node_id, end.ref.token):
            self._fail(f"the outcome of a stale owner counts: {where}; {row.owner}, {row.token}")
        done = self.runs.get((row.key[0], row.key[2]), [])
        here = [run for run in done if run.process.name == _process_of(node_id)]
        states = Counter(outcome.state for outcome in end.outcomes)
        for state, number in (
            (RunState.SUCCEEDED, sum(run.succeeded for run in here)),
            (RunState.FAILED, sum(run.failed for run in here)),
        ):
            if states[state] > number:
                self._fail(f"recorded as {state} what was not: {where}: {end.outcomes}")
        grace = row.task.mistrigger_grace_time
        for outcome in end.outcomes:
            late = (self._world.clock - outcome.scheduled_time).total_seconds()
            if outcome.state is RunState.MISSED and (grace is None or late < grace - INEXACT):
                self._fail(f"called missed what was in time: {where}, {late} s late")

    # User code.

    def handed_over(self, node_id: str, task_id: str, head: datetime) -> None:
        """A scheduler has decided to start a run: nobody else may have it."""
        rows = [self.server.rows.get((task_id, kind, head)) for kind in RunKind]
        if not any(row is not None and row.is_open and row.owner == node_id for row in rows):
            self._fail(f"{node_id} starts {task_id} {head}, which is not its: {rows}")

    def started(
        self,
        process: Process,
        node_id: str,
        task: Task,
        run_times: list[datetime],
        handed_at: float,
    ) -> Execution:
        """A run begins that was handed over a moment before; nobody can foresee a pause."""
        was_paused = process.paused_since(handed_at) > 0
        head = run_times[0]
        run = Execution(process, node_id, task, head)
        before = self.runs.setdefault((run.task_id, head), [])
        for other in before:
            if task.delivery is Delivery.AT_MOST_ONCE:
                self._fail(f"{task.id} {head} was started twice: {_names(before, run)}")
            if other.process.alive and not self._may_be_redone(other) and not was_paused:
                self._fail(f"{task.id} {head} was started again: {_names(before, run)}")
        before.append(run)
        going = [other for other in self.going(run.task_id) if not self._may_be_redone(other)]
        if not was_paused and len(going) > task.max_instances:
            self._fail(f"{task.id}: {len(going)} runs at once: {_names(going)}")
        return run

    def _may_be_redone(self, run: Execution) -> bool:
        return run.node_id in self.excused or run.was_cut_off or run.process.has_stopped

    def going(self, task_id: str | None = None) -> list[Execution]:
        """The runs that go on in processes that live."""
        return [
            run
            for runs in self.runs.values()
            for run in runs
            if run.is_active and run.process.alive and task_id in (None, run.task_id)
        ]

    # The end.

    def check_end(self) -> None:
        """All that has happened is recorded, once, and as it was."""
        for task_id, task in self._tasks.items():
            self._check_all_recorded(task_id, task)
        for row in self.server.rows.values():
            self._check_row(row)
        if unnoticed := self._world.unnoticed():
            self._fail(f"failed unnoticed: {unnoticed}")
        for process in self.processes.values():
            left = process.left_over() if process.alive else ""
            if left:
                self._fail(f"{process.name} has left over {left}")

    def _check_all_recorded(self, task_id: str, task: Task) -> None:
        rows = [row for row in self.server.rows.values() if row.key[0] == task_id]
        recorded = Counter(at for row in rows for at in row.run_times)
        moments = set(_moments(task))
        for unrun_id, state, first, last, number in self.server.unrun:
            if unrun_id == task_id:
                within = [at for at in moments if first <= at <= last]
                if len(within) != number:
                    self._fail(f"{task_id}: {number} {state} from {first} to {last}: {within}")
                recorded.update(within)
        if task.trigger is not None and task.trigger.alias == "date" and rows:
            return  # run early by hand, it is done
        for at in sorted(moments):
            if recorded[at] != 1:
                self._fail(f"{task_id} {at} is recorded {recorded[at]} times")

    def _check_row(self, row: Row) -> None:
        owner = self.processes.get(_process_of(row.owner or ""))
        once = row.task.delivery is Delivery.AT_MOST_ONCE
        stopping = owner is not None and owner.is_stopping
        gone = owner is None or not owner.alive or owner.has_stopped
        excused = gone or stopping or row.owner in self.excused
        if row.state is RunState.LOST and not (once and excused):
            self._fail(f"{row.key} is lost, though {row.owner} lives")
        if row.state is RunState.ABANDONED and row.attempt < 3:
            self._fail(f"{row.key} is abandoned after {row.attempt} attempts")
        if row.state is RunState.CANCELLED and not (once and stopping):
            self._fail(f"{row.key} is cancelled")


def _process_of(node_id: str) -> str:
    return node_id.split("-")[-2]


def _names(runs: list[Execution], *more: Execution) -> str:
    return ", ".join(run.node_id for run in [*runs, *more])


def _moments(task: Task) -> list[datetime]:
    """All run times of a task."""
    moments: list[datetime] = []
    moment: datetime | None = task.next_run_time
    trigger: Any = task.trigger
    while moment is not None:
        moments.append(moment)
        moment = trigger.get_next_trigger_time(ORIGIN.tzinfo, moment, moment + timedelta(0))
    return moments
