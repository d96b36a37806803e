"""What others left, and what got lost: taking over the runs of the dead, and minding one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from random import random
from typing import TYPE_CHECKING, Any

from asyncz.enums import Delivery, NodeState, RunState
from asyncz.runs.base import RunQuery
from asyncz.schedulers.collecting import short_lived
from asyncz.schedulers.membership import Membership
from asyncz.schedulers.nodes import has_ended
from asyncz.schedulers.reactions import react_to_loss
from asyncz.schedulers.rota import Rota
from asyncz.schedulers.starting import Start
from asyncz.schedulers.submission import report_cancelled, report_taken_over, report_unfinished
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Look,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
)
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["FORGOTTEN", "Caretaker"]

MAX_ATTEMPTS = 3
"""How often a run is started whose worker is killed each time."""
AT_ONCE = 100
LOOK_UPS = 10
"""How often it is tried to look up what a task has called after a loss."""
FIRST_PATIENCE = 0.5
"""Seconds before what nobody could take over is looked at again; then twice as long each time."""
FIRST_HUSH = 0.05
"""The same for what is to be tried again or cancelled, and could not be."""
FIRST_ALONE = 1.0
"""Seconds until the list of nodes is read again after the start, as others start too; then twice as
long each time, up to a third of the lease."""
DISPUTE = 1.0
"""Seconds between looks at the list of nodes, while those who share a store seem to see others."""
FORGET_EVERY = 600.0
FORGOTTEN = 500
"""Runs that a store forgets by one call."""
FORGETTING = 2
"""Calls in one pass: what is due has to wait for them."""


class Caretaker:
    """Looks after the open runs of one store, every now and then.

    Args:
        engine, alias, store: Whose.
        member: This scheduler in that store.
        rota: Who wants to know which nodes there are.
        ask: Awaits an operation of the store, within the store timeout.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: ClusterStore,
        member: Membership,
        rota: Rota,
        ask: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._store = store
        self._member = member
        self._rota = rota
        self._ask = ask
        self._suspects: set[RunRef] = set()
        self._losses: dict[RunRef, int] = {}
        """Runs of which a loss is still to be told, and how often it was tried in vain."""
        now = engine.clock.monotonic()
        self._reap_at = now + self._pause()
        self._audit_at = now + self._pause()
        self._look_around_at = now  # first at the start: after a crash nobody has to wait
        self._looked_around_at = now
        self._alone_for = FIRST_ALONE
        self._next_try, self._patience = now, FIRST_PATIENCE
        self._attend_again_at, self._hush = now, FIRST_HUSH
        self._forget_at = now + FORGET_EVERY * random()  # noqa: S311

    async def maintain(self, looked: Look) -> None:
        """Take over what nobody has, and look after what this node owns, every now and then."""
        now = self._engine.clock.monotonic()
        if self._losses:
            await self._react_to_losses()
        since = now - self._looked_around_at
        if now >= self._look_around_at or (self._rota.is_disputed and since >= DISPUTE):
            self._look_around_at = now + min(self._pause(), self._alone_for)
            self._alone_for *= 2
            self._looked_around_at = now
            await self._look_around()
        if now >= self._reap_at:
            self._reap_at = now + self._pause()
            await self._reap(looked.now if self._member.has_long_contact else None)
        elif not looked.has_unowned:
            self._patience = FIRST_PATIENCE
        elif now >= self._next_try and not await self._reap(None):
            # What nobody has, this one cannot read or carry out; others may.
            self._next_try = now + self._patience
            self._patience = min(2 * self._patience, self._pause())
        if looked.attend_at is not None and looked.attend_at <= looked.now:
            await self._attend_patiently(now)
        if now >= self._audit_at:
            self._audit_at = now + self._pause()
            await self._audit()
        if now >= self._forget_at and not await self._forget(looked.now - self._keep_for()):
            self._forget_at = now + FORGET_EVERY

    async def _forget(self, before: datetime) -> bool:
        """Forget some runs; whether there may be more, for the next pass to go on with."""
        for _ in range(FORGETTING):
            async with short_lived():
                forgotten = await self._ask(self._store.forget_runs(before, FORGOTTEN))
            if forgotten < FORGOTTEN:
                return False
        return True

    async def _attend_patiently(self, now: float) -> None:
        """`attend`, but less often while there is only what somebody else has to see to."""
        if now < self._attend_again_at:
            return
        if await self.attend():
            self._hush = FIRST_HUSH
            return
        self._attend_again_at = now + self._hush
        self._hush = min(2 * self._hush, 1.0)

    async def attend(self) -> bool:
        """Make the attempts that are due, and hear which runs are to be cancelled; whether there
        were any."""
        any_at_all = False
        while self._member.is_trusted:
            await self._member.flush()
            node_id = self._member.node.id
            attended: Attended = await self._ask(self._store.attend(node_id, AT_ONCE))
            for ref in attended.ended:
                why = "its task was deleted, or somebody has cancelled it"
                at = ref.scheduled_time
                report_cancelled(self._engine, self._alias, ref.task_id, at, why)
            for ref, by in attended.asked:
                any_at_all = self._member.cancel(ref, by) or any_at_all
            any_at_all = bool(attended.taken or attended.ended) or any_at_all
            refused = await self._carry_out(attended.taken)
            if refused or len(attended.taken) < AT_ONCE:
                break
        await self._member.look_for_attempts()
        return any_at_all

    def _keep_for(self) -> timedelta:
        """How long any run is kept, also those of tasks that do not run any more."""
        history = self._engine.settings.history
        longest = self._engine.overdue.longest(self._alias)
        return max(history.age, history.failures_age, longest)

    def _pause(self) -> float:
        """A third of the lease, more or less, so that nodes do not all do the same at once."""
        return self._engine.settings.lease / 3 * (0.9 + 0.2 * random())  # noqa: S311

    async def _look_around(self) -> None:
        """See who there is. The leases of nodes on this machine whose processes have ended are not
        waited for."""
        alive = set[str]()
        for record in await self._ask(self._store.get_nodes()):
            if record.state not in (NodeState.ALIVE, NodeState.STALE):
                continue
            if has_ended(record.node):
                await self._ask(self._store.leave_node(record.node.id))
                self._engine.logger.warning(
                    "The process of the scheduler %s on the store %r has ended; its runs are taken "
                    "over.",
                    record.node.id,
                    self._alias,
                )
            elif record.state is NodeState.ALIVE:
                alive.add(record.node.id)
        self._rota.see(alive)

    async def take_left_overs(self) -> None:
        """Take over what the scheduler before has left, where there can be no other."""
        await self._reap(None)
        await self._member.look_for_attempts()

    async def _reap(self, bury: datetime | None) -> bool:
        """Take over what can be; whether anything was."""
        carried_out = 0
        while self._member.is_trusted:
            some, more = await self._reap_some(bury)
            carried_out += some
            if not more:
                break
            bury = None
        return bool(carried_out)

    async def _reap_some(self, bury: datetime | None) -> tuple[int, bool]:
        """How many runs were seen to, and whether there may be more."""
        node_id = self._member.node.id
        reaped: Reaped = await self._ask(
            self._store.reap(node_id, bury=bury, max_attempts=MAX_ATTEMPTS, limit=AT_ONCE)
        )
        for node_id in reaped.dead:
            self._engine.logger.warning(
                "The scheduler %s on the store %r is dead: its lease has run out.",
                node_id,
                self._alias,
            )
        for ref, state in reaped.ended:
            report_unfinished(self._engine, self._alias, ref, state)
            self._losses[ref] = 0
        for run in reaped.taken:
            report_taken_over(self._engine, self._alias, run)
        refused = await self._carry_out(reaped.taken)
        await self._react_to_losses()
        found = len(reaped.ended) + len(reaped.taken)
        return found - refused, found >= AT_ONCE and not refused

    async def _react_to_losses(self) -> None:
        """Some look-ups may fail, which must neither hold up the runs that were taken over nor
        keep the others from being told of: they are made again in a later pass."""
        for ref, tries in list(self._losses.items()):
            try:
                await self._react_to_loss(ref)
            except Exception as exc:
                self._losses[ref] = tries + 1
                self._engine.logger.warning(
                    "What the task %r has called after a loss cannot be looked up: %s",
                    ref.task_id,
                    reason(exc),
                )
                if tries + 1 < LOOK_UPS:
                    continue
            del self._losses[ref]

    async def _react_to_loss(self, ref: RunRef) -> None:
        """Call what the task wants to have called, if there is the task still."""
        task: Task | None = await self._ask(self._store.lookup_task(ref.task_id))  # type: ignore[attr-defined]
        if task is None or task.on_failure is None:
            return
        moment = ref.scheduled_time
        query = RunQuery(ref.task_id, since=moment, until=moment)
        for run in await self._ask(self._store.get_runs(query)):
            if run.state in (RunState.LOST, RunState.ABANDONED):
                react_to_loss(self._engine, task, run)

    async def _audit(self) -> None:
        """A claim whose answer was lost belongs to this node, which does not know of it."""
        if not self._member.is_trusted:
            return
        await self._member.flush()
        known = self._member.known_runs()
        own_runs = await self._ask(self._store.get_own_runs(self._member.node.id))
        known |= self._member.known_runs()
        unknown = {run.ref: run for run in own_runs if run.ref not in known}
        for ref in [ref for ref in unknown if ref in self._suspects]:
            run = unknown.pop(ref)
            if run.delivery is Delivery.AT_MOST_ONCE and run.state is RunState.RUNNING:
                why = f"its worker {self._member.node.id} does not know whether it was started"
                lost = tuple(RunOutcome(at, RunState.LOST, reason=why) for at in run.run_times)
                await self._ask(self._store.finish_runs(self._member.node.id, [RunEnd(ref, lost)]))
                report_unfinished(self._engine, self._alias, ref, RunState.LOST)
                self._losses[ref] = 0
            else:
                await self._carry_out([run])
        self._suspects = set(unknown)
        await self._react_to_losses()

    async def _carry_out(self, runs: Sequence[OpenRun]) -> int:
        """Run here what this node has taken over; how many it cannot run, and has given back."""
        starts, refused = [], []
        for run in runs:
            if not self._member.adopt(run):
                continue
            try:
                starts.append(self._start(run))
            except LookupError as exc:
                self._engine.logger.warning(
                    "The run of %r cannot be carried out here: %s", run.ref.task_id, exc
                )
                refused.append(run)
        await self._member.start(starts)
        for run in refused:
            await self._member.give_back(run)
        return len(refused)

    def _start(self, run: OpenRun) -> Start:
        task = run.task
        if task is None:
            raise LookupError(run.error or "there is no such task any more")
        task.mistrigger_grace_time = None  # it was in time when it was claimed
        return Start(self._engine.executor(str(task.executor)), task, run.run_times)
