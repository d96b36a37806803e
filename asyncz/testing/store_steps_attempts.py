"""Steps about runs on their way: tried again, noted, cancelled, pruned. See `store_steps`."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asyncz.enums import RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import RunEnd, RunOutcome, RunRef
from asyncz.testing.store_model_runs import RunModel
from asyncz.testing.store_model_values import Identity, ModelRun, RunView
from asyncz.testing.store_steps import Step, World, id_of
from asyncz.testing.store_steps_history import open_view, view_of
from asyncz.testing.store_steps_runs import TEXTS, Pick, RunWorld, picked
from asyncz.testing.store_suite_cluster import Member

__all__ = ["NOTES", "Attend", "Cancel", "Note", "Prune", "TryAgain"]

SOMEBODY = "ann's ✓ {x}\n"
NOTES: tuple[Mapping[str, Any], ...] = (
    {"progress": 0.25, "message": "page 1 of 4 ö", "log": ["first", "second\n'x"]},
    {"result": {"n": [1, None, "✓"], "": 0.5}},
    {"result_repr": "<object>", "progress": 1},
    {},
)
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED


@dataclass(frozen=True)
class TryAgain(Step):
    """A node says of runs that they have failed, and are tried again; perhaps twice.

    Args:
        seconds: When, from now; of occurrences behind the head so much later each.
        which: Which occurrences: all, the head only, or only those behind it.
        then: Who attends at once; None: nobody.
    """

    by: int
    picks: tuple[Pick, ...]
    seconds: float
    which: str
    notes: int | None
    again: bool
    then: int | None

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model = busy_member(world, self.by), world.model
        chosen = {ref: run for ref, run in picked(world, member, self.picks).items() if _may(run)}
        ends = [RunEnd(ref, self._outcomes(run, world)) for ref, run in chosen.items()]
        wanted = [model.finish(member.id, end) for end in ends]
        assert await member.store.finish_runs(member.id, ends) == wanted
        if self.again:
            wanted = [model.finish(member.id, end) for end in ends]
            assert await member.store.finish_runs(member.id, ends) == wanted
        if self.then is not None:
            world.tick()
            await Attend(self.then, 100).play(world)

    def _outcomes(self, run: ModelRun, world: RunWorld) -> tuple[RunOutcome, ...]:
        now = world.clock.now()
        notes = None if self.notes is None else NOTES[self.notes]
        error, traceback, _ = TEXTS
        outcomes = []
        for number, at in enumerate(run.times):
            if self.which == ("others" if number == 0 else "head"):
                outcomes.append(RunOutcome(at, RunState.SUCCEEDED, notes=notes))
            else:
                retry_at = now + timedelta(seconds=self.seconds * (number + 1))
                outcomes.append(RunOutcome(at, RETRYING, error, traceback, None, notes, retry_at))
        return tuple(outcomes)


def busy_member(world: RunWorld, number: int) -> Member:
    """One of the nodes that own something, if there are such."""
    owners = {run.owner for run in world.model.open() if not run.waits}
    busy = [member for member in world.members if member.id in owners]
    return busy[number % len(busy)] if busy else world.member(number)


def _may(run: ModelRun) -> bool:
    """Whether there is one answer: not of what has ended, nor of what is to be cancelled."""
    return run.finished is None and run.asked is None


@dataclass(frozen=True)
class Attend(Step):
    """A node takes runs whose next attempt is due. Which ones, if not all, is up to the store."""

    by: int
    limit: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model, now = world.member(self.by), world.model, world.clock.now()
        taken, asked, ended = await member.store.attend(member.id, self.limit)
        if not model.is_alive(member.id):
            assert (taken, ended) == ((), ())
            return
        assert len(taken) <= self.limit
        due = {run.ref: run for run in model.runs if run.waits and is_due(run, now)}
        for ref in ended:
            run = due.pop(ref)
            assert model.task_of(run) is None
            model.end_by_others(run, CANCELLED)
        for each in taken:
            run = due.pop(each.ref._replace(token=each.ref.token - 1))
            assert may_be_tried(model, run)
            model.try_again(member.id, run)
            assert view_of(each) == open_view(model, run)
            await self._hear_of_claim(world, run, now)
        if len(taken) + len(ended) < self.limit:
            assert not any(
                model.task_of(run) is None or may_be_tried(model, run) for run in due.values()
            )
        owned = [run for run in model.open() if run.owner == member.id and not run.waits]
        assert sorted(asked) == sorted((run.ref, run.asked) for run in owned if run.asked)

    async def _hear_of_claim(self, world: RunWorld, run: ModelRun, now: datetime) -> None:
        """Whether it counts as claimed now, or when it was first, is a store's own affair."""
        at = run.times[0]
        found = await world.store(self.by).get_runs(RunQuery(run.task_id, since=at, until=at))
        claimed = [
            each.claimed_at
            for each in found
            if (each.kind, each.token, each.state) == (run.kind, run.token, run.state)
        ]
        run.claimed = now if now in claimed else run.claimed


def is_due(run: ModelRun, now: datetime) -> bool:
    """Whether its next attempt is."""
    return run.retry_at is not None and run.retry_at <= now


def may_be_tried(model: RunModel, run: ModelRun) -> bool:
    """Whether the limit of its task lets it go on."""
    task = model.task_of(run)
    return task is not None and model.count_active(run.task_id) < task.max_instances


@dataclass(frozen=True)
class Note(Step):
    """A node says what its runs are at."""

    by: int
    picks: tuple[Pick, ...]
    notes: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        member, model = busy_member(world, self.by), world.model
        chosen = picked(world, member, self.picks)
        said = [(ref, NOTES[self.notes]) for ref, run in chosen.items() if not run.waits]
        wanted = [self._note(model, member.id, ref) for ref, _ in said]
        assert await member.store.note_runs(member.id, said) == wanted

    def _note(self, model: RunModel, node_id: str, ref: RunRef) -> bool:
        run = model.owned(node_id, ref)
        if run is not None:
            run.noted = NOTES[self.notes]
        return run is not None


@dataclass(frozen=True)
class Cancel(Step):
    """Somebody cancels a run; perhaps twice.

    Args:
        number: Which, of all records there are, the latest first; or one that there is not.
    """

    by: int
    number: int | None
    again: bool

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        model = world.model
        known = sorted(model.records(), key=lambda each: (each.at, each.task_id), reverse=True)
        task_id, at = id_of("a"), world.clock.now()
        if known and self.number is not None:
            task_id, _, _, at = known[self.number % len(known)]
        called = [each for each in known if (each.task_id, each.at) == (task_id, at)]
        for _ in range(1 + self.again):
            if is_ambiguous(model, task_id, at, called):
                return
            found = await world.store(self.by).cancel_run(task_id, at, SOMEBODY)
            self._compare(model, found, task_id, at)

    def _compare(self, model: RunModel, found: RunState | None, task_id: str, at: datetime) -> None:
        views = [
            view for view in model.records().values() if (view.task_id, view.at) == (task_id, at)
        ]
        open_ = [run for run in model.open() if run.task_id == task_id and at in run.times]
        if not open_:
            assert found is (views[0].state if views else None)
            return
        (run,) = open_
        if run.times[0] != at:
            assert found is RunState.QUEUED
            return
        is_nobodys = run.waits or run.owner is None
        if is_nobodys or (found is CANCELLED and not model.is_alive(run.owner)):
            assert found is CANCELLED
            model.end_by_others(run, CANCELLED)
        else:
            assert found is run.state
            run.asked = SOMEBODY


def is_ambiguous(model: RunModel, task_id: str, at: datetime, called: Sequence[Identity]) -> bool:
    """Whether it is up to the store which run is meant: several are called the same."""
    if any((each.task_id, each.at) == (task_id, at) for each in model.forgotten):
        return True
    open_ = [run for run in model.open() if run.task_id == task_id and at in run.times]
    return len(open_) > 1 or (not open_ and len(called) > 1)


@dataclass(frozen=True)
class Prune(Step):
    """Forget runs of a task that are behind its latest. Of one instant, any of them may be."""

    by: int
    number: int
    states: frozenset[RunState]
    keep: int
    ago: float
    limit: int

    async def play(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        store, model = world.store(self.by), world.model
        known = sorted({view.task_id for view in model.records().values() if view.finished})
        task_id = known[self.number % len(known)] if known else id_of("a")
        before = world.clock.now() - timedelta(seconds=self.ago)
        records = {
            identity: view
            for identity, view in model.records().items()
            if view.task_id == task_id and view.state in self.states
        }
        count = await store.prune_runs(task_id, self.states, self.keep, before, self.limit)
        found = [RunView.of(run) for run in await store.get_runs(RunQuery(limit=10_000))]
        gone = {identity for identity, view in records.items() if view not in found}
        self._check(gone, records, before, count)
        if not any(run.was_lost for run in model.runs):
            assert count == len(gone)
        assert len(gone) <= count <= self.limit
        model.forgotten |= gone

    def _check(
        self, gone: set[Identity], records: dict[Identity, RunView], before: datetime, count: int
    ) -> None:
        for identity, view in records.items():
            later = sum(other.at > view.at for other in records.values())
            alike = sum(other.at == view.at for other in records.values()) - 1
            is_old = view.finished is not None and view.finished < before
            if identity in gone:
                assert is_old or later + alike >= self.keep
            elif count < self.limit:
                assert not is_old
                assert later < self.keep
