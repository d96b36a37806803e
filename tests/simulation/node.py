"""A process with a real scheduler in it, and the user's code that it runs."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from logging import CRITICAL, disable
from typing import TYPE_CHECKING, Any
from unittest import mock

from asyncz import NativeAsyncIOScheduler
from asyncz.clock import ClockUser, Timer
from asyncz.enums import SchedulerState
from asyncz.exceptions import AsynczException
from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.runs.current import CURRENT_RUN
from asyncz.schedulers import caretaker, handover, membership
from asyncz.schedulers.heartbeat import Heartbeat
from asyncz.stores.cluster import Node
from asyncz.tasks.base import Task
from tests.simulation.monitor import Execution
from tests.simulation.network import WireStore
from tests.simulation.world import ORIGIN, Process

if TYPE_CHECKING:
    from tests.simulation.scene import Scene

__all__ = ["NodeProcess", "job", "simulated"]

LEASE = 6.0
POLL = 2.0


class _NodeClock:
    """The clock of one machine: its time of day is wrong by `skew` seconds."""

    longest_wait = 30.0
    patience = float("inf")

    def __init__(self, process: Process, skew: float) -> None:
        self._world = process.world
        self._zero = ORIGIN + timedelta(seconds=skew)

    def now(self) -> datetime:
        return self._zero + timedelta(seconds=self._world.now)

    def monotonic(self) -> float:
        return self._world.now

    def call_later(self, loop: Any, delay: float, callback: Any) -> Timer:
        timer: Timer = loop.call_later(delay, callback)
        return timer

    def attach(self, user: ClockUser) -> None: ...
    def detach(self, user: ClockUser) -> None: ...


class _WatchedExecutor(AsyncIOExecutor):
    """Says what is handed over to it, and when."""

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.process.handed_over(str(task.id), run_times[0])
        super().do_send_task(task, run_times)


class NodeProcess(Process):
    """A process with a scheduler."""

    def __init__(self, name: str, scene: Scene, skew: float) -> None:
        super().__init__(name, scene.world)
        self.scene = scene
        self.serial = 0
        self.executions: dict[Any, Execution] = {}
        self.handed: dict[tuple[str, datetime], float] = {}
        self.scheduler = NativeAsyncIOScheduler(
            clock=_NodeClock(self, skew),
            timezone="UTC",
            identity=name,
            lease=LEASE,
            poll_interval=POLL,
            store_timeout=LEASE / 2,
            shutdown_timeout=LEASE,
            startup_timeout=1000,
            executors={"default": _WatchedExecutor()},
            stores={"default": WireStore.model_construct(network=scene.network)},
        )
        self.main.create_task(self.scheduler.start())

    def run_by_hand(self, task_id: str) -> None:
        """Somebody asks for a run."""
        if self.alive and not self.is_stopping:
            self.main.create_task(self._run_by_hand(task_id))

    async def _run_by_hand(self, task_id: str) -> None:
        try:
            await self.scheduler.arun_task(task_id)
        except (AsynczException, TimeoutError) as exc:
            self.world.note(self.name, "by hand", task_id, type(exc).__name__)

    def stop(self) -> None:
        """Shut down, as a deployment does."""
        if self.alive and self.scheduler.state is SchedulerState.STATE_RUNNING:
            self.is_stopping = True
            self.world.note(self.name, "stops")
            self.main.create_task(self.scheduler.shutdown())

    @property
    def has_stopped(self) -> bool:
        stopped = self.scheduler.state is SchedulerState.STATE_STOPPED
        return self.is_stopping and stopped and self._member is None

    @property
    def _member(self) -> Any:
        lane = self.scheduler._engine.lanes.get("default")
        return None if lane is None else lane.ledger

    def handed_over(self, task_id: str, head: datetime) -> None:
        """The scheduler has decided to start a run."""
        self.handed[task_id, head] = self.world.now
        self.scene.monitor.handed_over(self.node_of(task_id, head), task_id, head)

    def current_node(self) -> str | None:
        member = self._member
        return None if member is None or member._is_fenced else str(member.node.id)

    def node_of(self, task_id: str, head: datetime) -> str:
        """As which node it runs something."""
        member = self._member
        own = None if member is None else member._owned.get((task_id, head))
        return f"{self.name}-" if own is None else str(own.node_id)

    def left_over(self) -> str:
        member, engine = self._member, self.scheduler._engine
        if self.is_stopping:
            return "" if engine.state is SchedulerState.STATE_STOPPED else "itself"
        if member is None:
            return "no membership"
        kept = (member._owned, member._outcomes.runs(), engine.instances)
        return ", ".join(map(repr, filter(None, kept)))


async def job() -> None:
    """The user's code: works for a while, sometimes blocks the loop, sometimes fails."""
    loop: Any = asyncio.get_running_loop()
    going: Any = CURRENT_RUN.get()
    process: NodeProcess = loop.process
    scene = process.scene
    run = _begun(process, going)
    rng = scene.world.rng
    try:
        if rng.random() < scene.blocking:
            loop.held_until = scene.world.until_calm(LEASE * 1.5 * rng.random())
        await asyncio.sleep(scene.duration())
        if rng.random() < scene.failing:
            run.failed += 1
            raise ValueError("it failed")
        run.succeeded += 1
    except asyncio.CancelledError:
        run.was_cut_off = True
        raise
    finally:
        run.is_active = False


def _begun(process: NodeProcess, going: Any) -> Execution:
    world, task = process.world, going.task
    if going in process.executions:
        run = process.executions[going]
        run.calls += 1
        run.is_active = True
        return run
    node_id = process.node_of(str(task.id), going.run_times[0])
    world.note(process.name, "starts", task.id, str(going.run_times[0]), node_id)
    handed_at = process.handed[str(task.id), going.run_times[0]]
    run = process.scene.monitor.started(process, node_id, task, going.run_times, handed_at)
    process.executions[going] = run
    return run


class _SimulatedHeartbeat(Heartbeat):
    """Beats on a loop of the process that stands for the thread."""

    def start(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.process.beat.create_task(self._beat_on())

    async def ended(self) -> None: ...


class _Name:
    """Stands for a uuid: says who made it, and is the same each time."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        loop.process.serial += 1
        self.hex = f"{loop.process.name}-{loop.process.serial}"


def _new_node(identity: str) -> Node:
    """A node without the names of this machine and process, which are not the same each time."""
    return Node(_Name().hex, identity, "host", 1)


def _chance() -> float:
    loop: Any = asyncio.get_running_loop()
    chance: float = loop.process.world.rng.random()
    return chance


@contextmanager
def simulated() -> Iterator[None]:
    """Within it, schedulers take their threads, names and chance from the scene."""
    disable(CRITICAL)
    with (
        warnings.catch_warnings(),
        mock.patch.object(membership, "Heartbeat", _SimulatedHeartbeat),
        mock.patch.object(membership, "uuid4", _Name),
        mock.patch.object(membership, "new_node", _new_node),
        mock.patch.object(caretaker, "random", _chance),
        mock.patch.object(handover, "randrange", lambda count: int(count * _chance())),
    ):
        # A process that is killed leaves coroutines that nobody awaits any more.
        warnings.simplefilter("ignore", RuntimeWarning)
        before = gc.get_threshold()
        gc.set_threshold(20_000, 20, 20)
        try:
            yield
        finally:
            gc.set_threshold(*before)
            disable(0)
