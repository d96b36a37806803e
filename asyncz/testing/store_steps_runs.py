"""Steps of a sequence of operations on nodes and runs. See `store_steps`."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import Fired, Firing, Node, RunEnd, RunOutcome, RunRef, Unrun
from asyncz.tasks.base import Task
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_model_runs import RunModel
from asyncz.testing.store_model_values import Identity, ModelRun, RunView
from asyncz.testing.store_steps import Step, World, id_of
from asyncz.testing.store_suite_cluster import LEASE, Member

__all__ = [
    "MOST_NODES",
    "SHAPES",
    "Finish",
    "Fire",
    "Join",
    "Leave",
    "Pick",
    "Release",
    "Renew",
    "RunWorld",
    "Shot",
    "Start",
]

TEXTS = ("ValueError: ö\n'x'", "Traceback …", "why")
MOST_NODES = 8
FIRST_NODES = 3
GONE = 3

Shape = tuple[tuple[datetime, ...], tuple[Unrun, ...]]


class RunWorld(World):
    """And its nodes, and what they have seen of the tasks."""

    model: RunModel

    def __init__(self, stores: Sequence[Any], model: RunModel, clock: VirtualClock) -> None:
        super().__init__(stores, model, clock)
        self.members: list[Member] = []
        self.remembered: dict[str, Task] = {}

    def member(self, number: int) -> Member:
        """One of the nodes that are alive; 3: one that is not, if there is any."""
        alive = [member for member in self.members if self.model.is_alive(member.id)]
        gone = [member for member in self.members if member not in alive]
        chosen = gone if (number == GONE and gone) or not alive else alive
        return chosen[number % len(chosen)]

    async def join(self, number: int) -> Member:
        """Another node, on one of the stores."""
        node = Node(uuid4().hex, f"worker {len(self.members)}", "host", 1)
        member = Member(node.id, self.store(number))
        await member.store.join_node(node, LEASE)
        self.members.append(member)
        return member

    async def open(self) -> None:
        """The first nodes join."""
        for number in range(FIRST_NODES):
            self.tick()
            self.model.join((await self.join(number)).id, LEASE)

    def goes_on(self, task_id: str) -> bool:
        return any(run.task_id == task_id for run in self.model.open())

    async def check(self) -> None:
        await super().check()
        found = await self.store(self._checks).get_runs(RunQuery(limit=10_000))
        views = [RunView.of(run) for run in found]
        self._hear_of_orphans(views)
        self.compare(views, [*self.model.records().values()])

    def _hear_of_orphans(self, views: Sequence[RunView]) -> None:
        """What waits for an attempt of a task that was deleted ends when it is due, or before."""
        for run in [run for run in self.model.runs if run.waits]:
            if self.model.task_of(run) is None:
                known = [*self.model.records().values()]
                if _cancelled_like(run, views) > _cancelled_like(run, known):
                    self.model.end_by_others(run, RunState.CANCELLED)

    def compare(self, found: Sequence[RunView], wanted: Sequence[RunView]) -> None:
        """These are all records there are, the latest first."""
        assert [view.at for view in found] == sorted((view.at for view in wanted), reverse=True)
        assert sorted(found, key=order_of) == sorted(wanted, key=order_of)


def _cancelled_like(run: ModelRun, views: Sequence[RunView]) -> int:
    name = run.times[0], run.task_id, run.kind, run.token, RunState.CANCELLED
    return sum((view.at, view.task_id, view.kind, view.token, view.state) == name for view in views)


def order_of(view: RunView) -> tuple[Any, ...]:
    """What puts records in an order, without what is a store's own affair."""
    return view.at, view.task_id, view.kind, view.claimed, view.token, view.state


# Nodes.


@dataclass(frozen=True)
class Join(Step):
    """Another node joins, if there are not many."""

    by: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        if len(world.members) < MOST_NODES:
            world.model.join((await world.join(self.by)).id, LEASE)


@dataclass(frozen=True)
class Renew(Step):
    """A node renews its lease."""

    by: int
    running: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member = world.member(self.by)
        renewed = await member.store.renew_node(member.id, LEASE, self.running)
        assert renewed is world.model.renew(member.id, LEASE, self.running)


@dataclass(frozen=True)
class Leave(Step):
    """A node leaves."""

    by: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member = world.member(self.by)
        await member.store.leave_node(member.id)
        world.model.leave(member.id)


# Claims.


class Shot(NamedTuple):
    """A firing to be.

    Args:
        name: What the task is called.
        is_fresh: Whether the task is looked up for it; otherwise, as it was looked up before.
        shape: One of `SHAPES`.
        following: When it is due after it, in seconds from now; None: never.
        by_hand: Whether somebody asks for it.
    """

    name: str
    is_fresh: bool
    shape: str
    following: float | None
    by_hand: bool


def _after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _three(due: datetime) -> Shape:
    return (due, _after(due, 1), _after(due, 2)), ()


def _folded(due: datetime) -> Shape:
    folded = Unrun(RunState.COALESCED, due, _after(due, 5), 3, "folded into a later one")
    return (_after(due, 10),), (folded,)


def _late(due: datetime) -> Shape:
    return (), (Unrun(RunState.MISSED, due, due, 1, "too late: ö"),)


def _late_but_one(due: datetime) -> Shape:
    return (_after(due, 10),), (Unrun(RunState.MISSED, due, _after(due, 5), 2, "too late"),)


SHAPES: dict[str, Callable[[datetime], Shape]] = {
    "one": lambda due: ((due,), ()),
    "three": _three,
    "folded": _folded,
    "late": _late,
    "late but one": _late_but_one,
}
"""What a plan for a task that is due comes to: what is run, and what is not."""


@dataclass(frozen=True)
class Fire(Step):
    """A node fires some tasks; perhaps it asks again, since it has not heard the answer."""

    by: int
    shots: tuple[Shot, ...]
    again: bool

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, firings = world.member(self.by), []
        for shot in self.shots:
            if firing := await self._aim(world, member, shot):
                firings.append(firing)
        claim, wanted = uuid4().hex, world.model.fire(member.id, firings)
        assert await member.store.fire(member.id, claim, firings) == wanted
        if self.again and Fired.FENCED not in wanted:
            assert await member.store.fire(member.id, claim, firings) == wanted

    async def _aim(self, world: RunWorld, member: Member, shot: Shot) -> Firing | None:
        """A firing as a scheduler would plan it; None if it would not."""
        task = world.remembered.get(shot.name)
        if shot.is_fresh or task is None:
            task = await member.store.lookup_task(id_of(shot.name))
        if task is None:
            return None
        world.remembered[shot.name] = task
        firing = _planned(task, shot, world.clock.now())
        return firing if firing and _is_unambiguous(world.model, firing) else None


def _planned(task: Task, shot: Shot, now: datetime) -> Firing | None:
    due = task.next_run_time
    if due is not None and due <= now:
        times, unrun = SHAPES[shot.shape](due)
        if times and times[-1] > now:
            times, unrun = (due,), ()
        if shot.by_hand and not times:
            times = (now,)
        following = None if shot.following is None else _after(now, shot.following)
        kind = RunKind.MANUAL if shot.by_hand else RunKind.SCHEDULED
        return Firing(task, due, following, following is None, kind, times, unrun)
    if not shot.by_hand:
        return None
    forget = due is not None and shot.following is None
    following = None if shot.shape == "three" or forget else due
    return Firing(task, due, following, forget, RunKind.MANUAL, (now,))


def _is_unambiguous(model: RunModel, firing: Firing) -> bool:
    """Whether there is one answer: what was forgotten may be remembered for a while, and nobody
    plans instants behind the head that were run before."""
    kept = model.tasks.get(str(firing.task.id))
    if kept is None:
        return True
    times = [(firing.kind, at) for at in firing.run_times]
    unrun = [(RunKind.SCHEDULED, each.first) for each in firing.unrun]
    instants = times + unrun
    if any(Identity(kept.id, kept.generation, *each) in model.forgotten for each in instants):
        return False
    return not any(model.was_run(kept, *each) for each in times[1:] + unrun)


# Outcomes.


class Pick(NamedTuple):
    """A run that is referred to.

    Args:
        number: Counted from the last one on, first through the open ones.
        token: How much the token is beside the right one.
        own: Whether it is counted among the node's own.
    """

    number: int
    token: int
    own: bool


def picked(world: RunWorld, member: Member, picks: Sequence[Pick]) -> dict[RunRef, ModelRun]:
    """The runs that are meant, each once; not those of which something was forgotten."""
    chosen: dict[RunRef, ModelRun] = {}
    for number, token, own in picks:
        runs = [
            run
            for run in reversed(world.model.runs)
            if (not own or run.owner == member.id)
            and world.model.forgotten.isdisjoint(run.identities())
            and run.ref not in chosen
            and not run.is_part
        ]
        runs.sort(key=lambda run: run.finished is not None)
        if runs:
            run = runs[number % len(runs)]
            chosen[run.ref._replace(token=run.token + token)] = run
    return chosen


@dataclass(frozen=True)
class Start(Step):
    """A node starts runs that it has claimed."""

    by: int
    picks: tuple[Pick, ...]

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member = world.member(self.by)
        refs = [*picked(world, member, self.picks)]
        wanted = [world.model.start(member.id, ref) for ref in refs]
        assert await member.store.start_runs(member.id, refs) == wanted


@dataclass(frozen=True)
class Release(Step):
    """A node gives runs back."""

    by: int
    picks: tuple[Pick, ...]

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member = world.member(self.by)
        refs = [*picked(world, member, self.picks)]
        for ref in refs:
            world.model.release(member.id, ref)
        await member.store.release_runs(member.id, refs)


@dataclass(frozen=True)
class Finish(Step):
    """A node says how runs ended; perhaps again.

    Args:
        state: Of all of them. Lost is said of those only that the node may have started.
        partly: Whether the head's outcome is the only one.
    """

    by: int
    picks: tuple[Pick, ...]
    state: RunState
    partly: bool
    again: bool

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model = world.member(self.by), world.model
        chosen = picked(world, member, self.picks)
        ends = [self._end(ref, run, member) for ref, run in chosen.items()]
        wanted = [model.finish(member.id, end) for end in ends]
        assert await member.store.finish_runs(member.id, ends) == wanted
        if self.again:
            assert await member.store.finish_runs(member.id, ends) == wanted

    def _end(self, ref: RunRef, run: ModelRun, member: Member) -> RunEnd:
        state = self.state
        may_be_lost = run.delivery is Delivery.AT_MOST_ONCE and run.state is RunState.RUNNING
        if state is RunState.LOST and not (may_be_lost and run.owner == member.id):
            state = RunState.SUCCEEDED
        failed = state is RunState.FAILED
        error, traceback, reason = TEXTS if failed else (None, None, None)
        times = run.times[:1] if self.partly else run.times
        return RunEnd(ref, tuple(RunOutcome(at, state, error, traceback, reason) for at in times))
