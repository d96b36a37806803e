"""Steps that take over what others left, and that ask for runs and nodes. See `store_steps`."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from asyncz.enums import NodeState, RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import OpenRun, Reaped
from asyncz.testing.store_model import TaskView
from asyncz.testing.store_model_runs import RunModel
from asyncz.testing.store_model_values import ModelRun, RunView
from asyncz.testing.store_steps import Step, World, id_of
from asyncz.testing.store_steps_runs import RunWorld

__all__ = [
    "CountActive",
    "Forget",
    "LastRuns",
    "LookAround",
    "Nodes",
    "OwnRuns",
    "Reap",
    "Runs",
    "open_view",
    "view_of",
]


@dataclass(frozen=True)
class LookAround(Step):
    """What time it is, and what there is to do."""

    by: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        model = world.model
        now, next_run_time, has_unowned, attend_at = await world.store(self.by).look()
        wanted = (world.clock.now(), model.next_run_time(), bool(model.unowned()))
        assert (now, next_run_time, has_unowned) == wanted
        if any(run.asked is not None for run in model.open()):
            assert attend_at is not None
            assert attend_at <= now
        else:
            moments = [run.retry_at for run in model.open() if run.retry_at is not None]
            assert attend_at == min(moments, default=None)


@dataclass(frozen=True)
class OwnRuns(Step):
    """What a node owns."""

    by: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model = world.member(self.by), world.model
        found = await member.store.get_own_runs(member.id)
        moments = [run.ref.scheduled_time for run in found]
        assert moments == sorted(moments)
        runs = [run for run in model.open() if run.owner == member.id and not run.waits]
        wanted = [open_view(model, run) for run in runs]
        assert sorted(map(view_of, found), key=named) == sorted(wanted, key=named)


@dataclass(frozen=True)
class Reap(Step):
    """A node takes over what nobody has. Which ones, if not all, is up to the store."""

    by: int
    bury: bool
    max_attempts: int
    limit: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model, now = world.member(self.by), world.model, world.clock.now()
        options = {"max_attempts": self.max_attempts, "limit": self.limit}
        reaped = await member.store.reap(member.id, bury=now if self.bury else None, **options)
        if not model.is_alive(member.id):
            assert reaped == Reaped((), (), ())
            return
        assert set(reaped.dead) == (model.bury(member.id, now) if self.bury else set())
        left = {run.ref: run for run in model.unowned()}
        assert len(reaped.taken) + len(reaped.ended) == min(self.limit, len(left))
        for taken in reaped.taken:
            run = left.pop(taken.ref._replace(token=taken.ref.token - 1))
            assert None in model.fates_of(run, self.max_attempts)
            model.take(member.id, run, None)
            assert view_of(taken) == open_view(model, run)
        for ref, state in reaped.ended:
            run = left.pop(ref)
            assert state in model.fates_of(run, self.max_attempts)
            model.take(member.id, run, state)


@dataclass(frozen=True)
class Runs(Step):
    """Ask for runs."""

    by: int
    name: str | None
    states: frozenset[RunState]
    since: float | None
    until: float | None
    limit: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        name = None if self.name is None else id_of(self.name)
        span = world.at(self.since), world.at(self.until)
        query = RunQuery(name, self.states, span[0], self.limit, span[1])
        found = [RunView.of(run) for run in await world.store(self.by).get_runs(query)]
        wanted = world.model.find(query)
        if len(wanted) <= query.limit:
            world.compare(found, wanted)
            return
        latest = sorted((view.at for view in wanted), reverse=True)[: query.limit]
        assert [view.at for view in found] == latest
        for view in found:
            wanted.remove(view)


@dataclass(frozen=True)
class LastRuns(Step):
    """Ask for the latest run of each of some tasks."""

    by: int
    names: tuple[str, ...]

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        task_ids = [*map(id_of, self.names)]
        found = await world.store(self.by).get_last_runs(task_ids)
        for name in task_ids:
            runs = world.model.find(RunQuery(name))
            latest = max((view.at for view in runs), default=None)
            assert (name in found) is (latest is not None)
            if latest is not None:
                assert RunView.of(found[name]) in [view for view in runs if view.at == latest]
        assert found.keys() <= {*task_ids}


@dataclass(frozen=True)
class CountActive(Step):
    """Count the runs of tasks that go on."""

    by: int
    names: tuple[str, ...]

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        wanted = {id_of(name): world.model.count_active(id_of(name)) for name in self.names}
        assert await world.store(self.by).count_active([*wanted]) == wanted


@dataclass(frozen=True)
class Forget(Step):
    """Forget runs that were settled a while ago. Which ones, if not all, is up to the store.

    It may also count the words that a later one has taken the place of.
    """

    by: int
    ago: float
    limit: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        store, model = world.store(self.by), world.model
        before = world.clock.now() - timedelta(seconds=self.ago)
        old = model.settled_before(before)
        count = await store.forget_runs(before, self.limit)
        records = model.records()
        found = [RunView.of(run) for run in await store.get_runs(RunQuery(limit=10_000))]
        gone = {identity for identity in old if records[identity] not in found}
        if any(run.was_lost for run in model.runs):
            assert len(gone) <= count <= self.limit
            assert count == self.limit or gone == old
        else:
            assert count == len(gone) == min(len(old), self.limit)
        model.forgotten |= gone


@dataclass(frozen=True)
class Nodes(Step):
    """Ask for the nodes. When those are forgotten that are gone, is up to the store."""

    by: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        found = await world.store(self.by).get_nodes()
        views = [
            (each.node.id, each.state, each.joined_at, *each[3:])
            if each.state in (NodeState.ALIVE, NodeState.STALE)
            else (each.node.id, each.state, each.joined_at)
            for each in found
            if each.node.id in world.model.nodes
        ]
        there = {view[0] for view in views}
        wanted = [view for view in node_views(world) if view[0] in there]
        assert views == wanted
        assert set(filter(world.model.is_alive, world.model.nodes)) <= there


def node_views(world: RunWorld) -> Iterator[tuple[Any, ...]]:
    """What is compared of the nodes; of those that are gone not much."""
    for node in world.model.nodes.values():
        if node.state is not NodeState.ALIVE:
            yield node.id, node.state, node.joined
            continue
        state = NodeState.STALE if node.lease_until < world.clock.now() else node.state
        yield node.id, state, node.joined, node.seen, node.lease_until, node.running


def named(view: tuple[Any, ...]) -> Any:
    """What an open run is called, of its view."""
    return view[0]


def view_of(run: OpenRun) -> tuple[Any, ...]:
    """What is compared of an open run of a store's."""
    assert (run.task is None) is (run.error is not None)
    task = None if run.task is None else TaskView.of(run.task)
    return run.ref, run.state, run.attempt, run.run_times, run.delivery, task


def open_view(model: RunModel, run: ModelRun) -> tuple[Any, ...]:
    """The same of the model's."""
    return run.ref, run.state, run.attempt, run.times, run.delivery, model.task_of(run)
