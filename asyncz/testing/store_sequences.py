"""Random sequences of operations on a store, which must answer each as a small model does.

They need Hypothesis. Beside the suite, take one of these classes too; its test is not a coroutine:

    class TestSequencesOnMyStore(ClusterStoreSequences):
        async def make_store(self) -> MyStore: ...
        async def another(self, store: MyStore) -> MyStore: ...

One store is used for many examples. After each, everything is deleted and forgotten by the store's
own operations, and `leftovers` says what has stayed all the same.
"""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from asyncz.enums import RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import RunEnd, RunOutcome
from asyncz.tasks.query import SORTERS
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_model import TaskModel
from asyncz.testing.store_model_runs import RunModel
from asyncz.testing.store_steps import (
    NAMES,
    Add,
    Advance,
    Count,
    Delete,
    Draft,
    Due,
    Find,
    Look,
    NextRunTime,
    Pass,
    RemoveAll,
    Step,
    Update,
    World,
)
from asyncz.testing.store_steps_attempts import NOTES, Attend, Cancel, Note, Prune, TryAgain
from asyncz.testing.store_steps_history import (
    CountActive,
    Forget,
    LastRuns,
    LookAround,
    Nodes,
    OwnRuns,
    Reap,
    Runs,
)
from asyncz.testing.store_steps_runs import (
    SHAPES,
    Finish,
    Fire,
    Join,
    Leave,
    Pick,
    Release,
    Renew,
    RunWorld,
    Shot,
    Start,
)
from asyncz.testing.store_suite_basics import ALIAS, SuiteBase
from asyncz.testing.store_suite_cluster import ClusterBase
from asyncz.testing.store_suite_tools import NOON, SuiteHost

__all__ = ["ClusterStoreSequences", "StoreSequences"]

STORES = 2
ROUNDS = 25
"""Examples that are played on one store before another one is made."""
FEWEST, MOST = 15, 60
"""Steps in a sequence, twice the fewest on average. In what is left of one that fails, those that
do not matter let time pass."""
FORGOTTEN_AFTER = 8 * 86_400
"""Seconds after which a store may be expected to forget nodes that are gone."""

by = st.integers(0, 3)
names = st.sampled_from([*NAMES])
asked = st.sampled_from((*NAMES, "nobody's"))
dues = st.sampled_from((-120, -60, -60, 0, 0, 1, 30, None))
drafts = st.builds(
    Draft, names, dues, st.sampled_from("AB"), st.sampled_from((1, 1, 2)), st.booleans()
)
some_names = st.frozensets(asked, max_size=2)
queries = st.fixed_dictionaries(
    {},
    optional={
        "schedule_state": st.sampled_from(("scheduled", "paused")),
        "q": st.sampled_from(("a", "✓", "cc", "'")),
        "sort_by": st.sampled_from(sorted(SORTERS)),
        "descending": st.booleans(),
        "limit": st.integers(0, 3),
        "offset": st.integers(0, 2),
    },
).map(lambda fields: tuple(sorted(fields.items())))

TASK_STEPS: tuple[st.SearchStrategy[Step], ...] = (
    st.builds(Pass, st.sampled_from((1, 20, 31))),
    st.builds(Add, by, drafts.map(lambda draft: (draft,))),
    st.builds(Add, by, st.lists(drafts, min_size=1, max_size=3).map(tuple)),
    st.builds(Update, by, drafts),
    st.builds(Delete, by, names),
    st.builds(RemoveAll, by),
    st.builds(Look, by, asked),
    st.builds(
        Due, by, st.sampled_from((-90, 0, 90)), st.sampled_from((None, None, 0, 1, 2)), some_names
    ),
    st.builds(NextRunTime, by, st.sampled_from((None, -61, -60, 0, 30))),
    st.builds(Find, by, queries, some_names),
    st.builds(Count, by),
    st.builds(
        Advance,
        by,
        st.lists(
            st.tuples(asked, st.sampled_from((None, 30, 60)), st.sampled_from((True, True, False))),
            max_size=3,
        ).map(tuple),
    ),
)

shots = st.builds(
    Shot,
    names,
    st.sampled_from((True, True, True, False)),
    st.sampled_from(("one", "three", *sorted(SHAPES))),
    st.sampled_from((None, 0.5, 30, 60)),
    st.sampled_from((False, False, True)),
)
picks = st.lists(
    st.builds(
        Pick,
        st.integers(0, 3),
        st.sampled_from((0, 0, 0, 0, 1, -1)),
        st.sampled_from((True, True, True, False)),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
ENDS = (
    RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.LOST
)  # fmt: skip
firings = st.lists(shots, min_size=1, max_size=3, unique_by=lambda shot: shot.name).map(tuple)
fire = st.builds(Fire, by, firings, st.booleans())
reap = st.builds(
    Reap, by, st.booleans(), st.sampled_from((3, 3, 2, 1)), st.sampled_from((100, 100, 2, 1))
)

own_picks = st.lists(
    st.builds(Pick, st.integers(0, 2), st.sampled_from((0, 0, 0, 1)), st.just(True)),
    min_size=1,
    max_size=3,
).map(tuple)
again = st.builds(
    TryAgain,
    by,
    own_picks,
    st.sampled_from((0, 0, 0.002, 1, 20)),
    st.sampled_from(("all", "all", "head", "others")),
    st.sampled_from((None, *range(len(NOTES)))),
    st.booleans(),
    st.sampled_from((None, 0, 1)),
)
attend = st.builds(Attend, by, st.sampled_from((100, 100, 2, 1)))
cancel = st.builds(Cancel, by, st.sampled_from((None, *range(8))), st.booleans())
SETTLED = [state for state in RunState if not state.is_open]

prune = st.builds(
    Prune,
    by,
    st.integers(0, 2),
    st.sampled_from((*[frozenset(SETTLED)] * 8, *(frozenset((state,)) for state in SETTLED))),
    st.sampled_from((0, 0, 1, 2)),
    st.sampled_from((0, 10, 3_600)),
    st.sampled_from((1, 2, 1_000)),
)

CHANGES: tuple[st.SearchStrategy[Step], ...] = (
    fire,
    fire,
    fire,
    st.builds(Start, by, picks),
    st.builds(Finish, by, picks, st.sampled_from(ENDS), st.booleans(), st.booleans()),
    st.builds(Finish, by, picks, st.sampled_from(ENDS), st.booleans(), st.booleans()),
    again,
    again,
    attend,
    attend,
    st.builds(Note, by, own_picks, st.sampled_from(range(len(NOTES)))),
    cancel,
    prune,
    st.builds(Release, by, picks),
    reap,
    reap,
    st.builds(Join, by),
    st.builds(Renew, by, st.integers(0, 9)),
    st.builds(Leave, by),
    st.builds(Add, by, drafts.map(lambda draft: (draft,))),
    st.builds(Delete, by, names),
)
QUESTIONS: tuple[st.SearchStrategy[Step], ...] = (
    st.builds(LookAround, by),
    st.builds(OwnRuns, by),
    st.builds(Nodes, by),
    st.builds(
        Runs,
        by,
        st.one_of(st.none(), asked),
        st.frozensets(st.sampled_from(RunState), max_size=4),
        st.sampled_from((None, None, -60, 0)),
        st.sampled_from((None, None, -60, 0, 1)),
        st.sampled_from((1, 2, 100)),
    ),
    st.builds(LastRuns, by, st.lists(asked, max_size=4, unique=True).map(tuple)),
    st.builds(CountActive, by, st.lists(asked, max_size=4, unique=True).map(tuple)),
    st.builds(Forget, by, st.sampled_from((0, 10, 60)), st.sampled_from((1, 2, 1_000))),
)


def sequences(kinds: Sequence[st.SearchStrategy[Step]]) -> st.SearchStrategy[list[Step]]:
    """Sequences of steps of these kinds, after some tasks have been added."""
    start = st.lists(drafts, min_size=2, max_size=3, unique_by=lambda draft: draft.name)
    added = start.map(lambda all_: [Add(0, (draft,)) for draft in all_])
    # Not one_of(), which takes what is there more than once for once.
    step = st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)
    steps = st.lists(step, min_size=FEWEST, max_size=MOST)
    return st.builds(_joined, added, steps)


def _joined(first: list[Step], others: list[Step]) -> list[Step]:
    return first + others


class StoreSequences(SuiteBase):
    """For every store: its tasks."""

    examples: ClassVar[int] = 50
    """How many sequences there are."""
    is_random: ClassVar[bool] = False
    """Whether they are others each time."""
    kinds: ClassVar[Sequence[st.SearchStrategy[Step]]] = TASK_STEPS

    def test_any_sequence_of_operations_is_answered_as_the_model_does(self) -> None:
        with asyncio.Runner() as runner:
            self._stores: list[Any] = []
            self._rounds = 0
            self._clock = VirtualClock(NOON)

            @settings(
                max_examples=self.examples,
                derandomize=not self.is_random,
                database=None,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
                phases=(Phase.generate, Phase.shrink),
                print_blob=False,
            )
            @given(sequences(self.kinds))
            def play(steps: list[Step]) -> None:
                runner.run(self._play(steps))

            try:
                play()
            finally:
                runner.run(self._close())

    async def another(self, store: Any) -> Any:
        """Another store object on the same tasks, not started; None: one object is for all."""
        return None

    async def leftovers(self, store: Any) -> list[str]:
        """What the store still keeps when it was told to forget everything."""
        return []

    async def _play(self, steps: Sequence[Step]) -> None:
        if not self._stores:
            await self._open()
        try:
            world = await self._begin()
            for step in steps:
                world.tick()
                await step.play(world)
                await world.check()
            await self._empty(world)
            assert await self.leftovers(self._stores[0]) == []
            self._rounds += 1
            if self._rounds % ROUNDS == 0:
                await self._close()
        except BaseException:
            # The next one gets a new store, with nothing of this one in it.
            await self._close()
            raise

    async def _begin(self) -> World:
        return World(self._stores, TaskModel(), self._clock)

    async def _empty(self, world: World) -> None:
        store = self._stores[0]
        await store.remove_all_tasks()
        assert await store.get_all_tasks() == []

    async def _open(self) -> None:
        store = await self.make_store()
        for _ in range(STORES):
            await store.start(SuiteHost(clock=self._clock), ALIAS)
            self._stores.append(store)
            store = await self.another(store)
            if store is None:
                break

    async def _close(self) -> None:
        stores, self._stores = self._stores, []
        for store in stores:
            with suppress(Exception):
                await store.shutdown()


class ClusterStoreSequences(StoreSequences, ClusterBase):
    """For one that several schedulers may share: its nodes and runs too."""

    kinds = (*TASK_STEPS, *CHANGES, *CHANGES, *CHANGES, *QUESTIONS)

    async def _begin(self) -> RunWorld:
        world = RunWorld(self._stores, RunModel(self._clock), self._clock)
        await world.open()
        return world

    async def _empty(self, world: World) -> None:
        assert isinstance(world, RunWorld)
        await super()._empty(world)
        for member in world.members:
            await member.store.leave_node(member.id)
        last = await world.join(0)
        while (looked := await last.store.look()).has_unowned or looked.attend_at is not None:
            world.clock.jump(60)
            await last.store.reap(last.id, bury=None, max_attempts=3)
            await last.store.attend(last.id)
            own = await last.store.get_own_runs(last.id)
            ends = [
                RunEnd(run.ref, tuple(RunOutcome(at, RunState.FAILED) for at in run.run_times))
                for run in own
            ]
            assert await last.store.finish_runs(last.id, ends) == [True] * len(ends)
        await last.store.leave_node(last.id)
        world.clock.jump(FORGOTTEN_AFTER)
        while await last.store.forget_runs(world.clock.now()):
            pass
        assert await last.store.get_runs(RunQuery()) == []
