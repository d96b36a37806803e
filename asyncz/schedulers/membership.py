"""A scheduler as a node of one store: what it has claimed, how that ended, what others left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from asyncz.enums import Delivery
from asyncz.exceptions import SchedulerNotRunningError
from asyncz.executors.base import BaseExecutor
from asyncz.runs.base import Run, RunQuery
from asyncz.schedulers.accounts import as_firing
from asyncz.schedulers.heartbeat import Heartbeat
from asyncz.schedulers.ledger import Step
from asyncz.schedulers.nodes import new_node
from asyncz.schedulers.own_runs import Ask, Own, OwnRuns
from asyncz.schedulers.starting import Start, Starter
from asyncz.stores.cluster import (
    ClusterStore,
    Fired,
    Firing,
    Look,
    RunRef,
)

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["Membership"]

R = TypeVar("R")

WRITTEN = frozenset({Fired.WON, Fired.SKIPPED})
"""After which there are records of what is not run."""
FOREVER = 1e9
"""Seconds that a lease lasts where nobody else could take over."""


class Membership(OwnRuns):
    """This scheduler as a node of one store that keeps runs.

    Args:
        engine: The scheduler's.
        alias, store: The store.
        ask: Awaits an operation of the store, within the store timeout.
        wake: Has the store looked at, as another node has announced something.
        wake_for: Has it looked at by that instant.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: ClusterStore,
        ask: Ask,
        wake: Callable[[], None],
        wake_for: Callable[[datetime | None], None],
    ) -> None:
        super().__init__(engine, alias, store, ask, wake_for)
        self._wake = wake
        self._heartbeat: Heartbeat | None = None
        self._claim: str | None = None
        self._starter = Starter(engine, self)
        self._is_fenced = self._has_left = False
        self._doubtful: set[str] = set()
        """Ids of nodes that the store may have entered: it did not say so."""
        self._joining = asyncio.Lock()

    # The node.

    @property
    def is_shared(self) -> bool:
        """Whether other schedulers may use the store too."""
        return self._heartbeat is not None

    @property
    def is_trusted(self) -> bool:
        """Whether what this node has claimed is its own for sure."""
        beat = self._heartbeat
        if self._is_fenced:
            return False
        return beat is None or self._engine.clock.monotonic() < beat.trusted_until

    @property
    def has_long_contact(self) -> bool:
        """Whether the store has answered for a whole lease.

        After an outage of the store all leases have run out, and those that renew theirs a
        moment later are not dead.
        """
        beat = self._heartbeat
        return beat is not None and beat.has_contact_for(self._engine.settings.lease)

    async def join(self) -> None:
        """Enter the store as a new node, and keep its lease alive."""
        engine = self._engine
        self.node = new_node(engine.identity)
        pulse = self._store.pulse(self.node.id)
        lease = FOREVER if pulse is None else engine.settings.lease
        if pulse is not None:
            await self._look()  # before anything is planned by the machine's clock
        else:
            await self.look_for_attempts()
        began = engine.clock.monotonic()
        # What was asked for as another node is not ours, whatever the answer would have been.
        self._claim, self._claiming = None, ()
        node = self.node
        self._doubtful.add(node.id)
        await self._ask(self._store.join_node(node, lease))
        if self._has_left:
            # The shutdown has said goodbye for the node before this one.
            await self._ask(self._store.leave_node(node.id))
            raise SchedulerNotRunningError()
        await self._leave_as(self._doubtful - {node.id})
        self._doubtful.discard(node.id)
        self._is_fenced = False
        if pulse is not None:
            loop = engine.loop
            self._heartbeat = Heartbeat(
                pulse,
                engine.clock,
                began,
                lease,
                lambda: len(self._owned),
                partial(_call_on, loop, partial(self._fence, self.node.id)),
                partial(_call_on, loop, self._wake),
                f"asyncz heartbeat {engine.identity} {self._alias}",
                engine.logger,
            )
            self._heartbeat.start()

    def _fence(self, node_id: str) -> None:
        """Others have taken a node's runs over: it was not heard of for too long."""
        if node_id == self.node.id and not self._is_fenced and not self._has_left:
            self._is_fenced = True
            self._engine.logger.error(
                "This scheduler was not heard of in the store %r for longer than its lease; its "
                "runs were taken over by others, and what they do here from now on may be done "
                "twice. It joins again.",
                self._alias,
            )
            self._engine.wakeup()

    async def rejoin_if_fenced(self) -> None:
        """Enter again, as another node. A pass and a run by hand may want to at the same time."""
        if not self._is_fenced:
            return
        async with self._joining:
            if self._has_left:
                raise SchedulerNotRunningError()
            if self._is_fenced:
                if self._heartbeat is not None:
                    self._heartbeat.stop()
                await self.join()

    async def leave(self) -> None:
        """Record what is still to be recorded, and go: what is left is anybody's."""
        self._has_left = True
        self._sayings.stop()
        if self._heartbeat is not None:
            # First of all, so that it is not told that the node is not alive any more.
            self._heartbeat.stop()
        try:
            self.release_all()
            await self._outcomes.flush()
            await self._leave_as({self.node.id} | self._doubtful)
        finally:
            self._outcomes.stop()
        if self._heartbeat is not None:  # if the store does not answer, it ends by itself
            await self._heartbeat.ended()

    async def _leave_as(self, node_ids: Iterable[str]) -> None:
        for node_id in sorted(node_ids):
            await self._ask(self._store.leave_node(node_id))
            self._doubtful.discard(node_id)

    # Claims.

    async def get_ready(self) -> None:
        await self.rejoin_if_fenced()
        await self._starter.try_again()

    async def look(self) -> Look | None:
        """What there is to do; None: what the clock says, as nobody else is there."""
        if not self.is_shared:
            return None
        if self.attend_at is not None:  # what waits for another attempt may not be known there yet
            await self.flush()
        return await self._look()

    async def look_for_attempts(self) -> Look:
        """Look at the store, and see when it has something for `attend`."""
        # What is put off while the store answers may not be in the answer.
        before, self.attend_at, ends = self.attend_at, None, self._ends
        try:
            looked: Look = await self._ask(self._store.look())
        except BaseException:
            self.expect(before)
            raise
        self.expect(looked.attend_at)
        self.has_left_overs = looked.has_unowned
        if self._ends != ends:
            self._wake_for_attempts()
        return looked

    async def _look(self) -> Look:
        clock = self._engine.clock
        began = clock.monotonic()
        looked = await self.look_for_attempts()
        self._time.note(looked.now, began, clock.monotonic())
        return looked

    async def fire(self, steps: Sequence[Step]) -> list[Fired]:
        """Claim planned tasks. Asked again after an error, it answers for the first time."""
        self._notice_ended(steps)
        if self._outcomes and self._wait_for(steps):
            await self.flush()
        now, most = self.now(), self._engine.settings.max_catchup
        firings = [as_firing(task, plan, now, most) for task, plan, _ in steps]
        self._claim = self._claim or uuid4().hex
        refs = [_claimed(firing) if firing.run_times else None for firing in firings]
        self._claiming = tuple(ref for ref in refs if ref is not None)
        fired = await self._fire(self._claim, firings, refs)
        self._claim, self._claiming = None, ()
        return fired

    def _wait_for(self, steps: Sequence[Step]) -> bool:
        """Whether runs of these tasks have ended that the store counts as going on."""
        ended = self._outcomes.task_ids()
        return any(task.id in ended for task, _, _ in steps)

    async def _fire(
        self, claim: str, firings: Sequence[Firing], refs: Sequence[RunRef | None]
    ) -> list[Fired]:
        node_id = self.node.id  # it may be another one when the answer comes
        fired: list[Fired] = await self._ask(self._store.fire(node_id, claim, firings))
        for firing, ref, what in zip(firings, refs, fired, strict=True):
            if what is Fired.WON:
                if ref is not None:
                    own = Own(node_id, ref, firing.task.delivery, firing.task)
                    self._owned[ref.task_id, ref.scheduled_time] = own
            elif what is Fired.FENCED:
                self._fence(node_id)
            if what in WRITTEN:
                skipped = len(firing.run_times) if what is Fired.SKIPPED else 0
                self._pruner.note(firing.task, len(firing.unrun) + skipped)
        return fired

    def _notice_ended(self, steps: Sequence[Step]) -> None:
        """Do not let a run that ended without a word stand in the way of the next."""
        instances, alias = self._engine.instances, self._alias
        busy = {id(e): e for task, _, e in steps if (alias, task.id) in instances}
        for executor in busy.values():
            executor.sweep()

    async def fire_by_hand(self, firing: Firing, executor: BaseExecutor) -> Fired:
        """Claim a run that somebody has asked for."""
        if (str(firing.task.id), firing.run_times[0]) in self._owned:
            return Fired.REPEATED
        executor.sweep()
        await self.rejoin_if_fenced()
        await self.flush()
        return (await self._fire(uuid4().hex, [firing], [_claimed(firing)]))[0]

    async def settle(self, firings: Sequence[Firing]) -> list[Fired]:
        await self.rejoin_if_fenced()
        return await self._fire(uuid4().hex, firings, [None] * len(firings))

    def may_have_to_wait(self, steps: Sequence[Step]) -> bool:
        """Whether these cannot simply be run."""
        once = Delivery.AT_MOST_ONCE
        return self.is_shared or any(task.delivery is once for task, _, _ in steps)

    async def start(self, starts: Sequence[Start]) -> None:
        await self._starter.start(starts)

    async def get_runs(self, query: RunQuery) -> list[Run]:
        await self.flush()
        runs: list[Run] = await self._ask(self._store.get_runs(query))
        return runs

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = await self._ask(self._store.count_active(task_ids))
        return counts

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        runs: dict[str, Run] = await self._ask(self._store.get_last_runs(task_ids))
        return runs


def _call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the engine's loop was closed; nobody is there to be told
        loop.call_soon_threadsafe(callback)


def _claimed(firing: Firing) -> RunRef:
    """The run that a firing comes to, if it is won."""
    return RunRef(str(firing.task.id), firing.kind, firing.run_times[0], 1)
