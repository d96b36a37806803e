"""What lies between a scheduler and the server: delays, lost messages, outages; and the store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import Run, RunQuery
from asyncz.stores.base import NO_IDS, BaseStore
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Pulse,
    Reaped,
    RunEnd,
    RunRef,
)
from asyncz.tasks.base import Task
from tests.simulation.server import Server
from tests.simulation.world import NodeLoop, World

__all__ = ["Network", "Strike", "Weather", "WireStore"]

R = TypeVar("R")


class Weather:
    """How bad it is.

    Args:
        latency: Seconds that a message takes, on average.
        slow: The share of the messages that take much longer, up to `slowness` seconds.
        drops: The share of the messages that are lost, on the way there or back.
        silence: The share of the lost ones that nobody tells of.
    """

    def __init__(
        self, latency: float, slow: float = 0, slowness: float = 0, drops: float = 0,
        silence: float = 0.5,
    ) -> None:  # fmt: skip
        self.latency = latency
        self.slow = slow
        self.slowness = slowness
        self.drops = drops
        self.silence = silence


class Strike(NamedTuple):
    """Something that happens just when a call that changes something is made.

    Args:
        moment: When the request is `sent`, `done` by the server, or `answered`.
        steps: How many steps of the process later it is killed; None: it is not.
        pause: For how many seconds it is suspended.
        is_lost: Whether the answer is lost on its way.
    """

    moment: str
    steps: int | None = None
    pause: float = 0
    is_lost: bool = False


NO_STRIKE = Strike("")


class Network:
    """Carries the operations to the server, and the answers back."""

    def __init__(self, world: World, server: Server, weather: Weather) -> None:
        self.world = world
        self.server = server
        self.weather = weather
        self.calls: Counter[str] = Counter()
        self.strikes: dict[tuple[str, int], Strike] = {}
        """By what a call is, and the how manieth such call."""
        self.dropped: Callable[[NodeLoop], None] = lambda loop: None
        self._frozen_until = 0.0
        self._down_until = 0.0

    def freeze(self, seconds: float) -> None:
        """The server stands still; what reaches it meanwhile is done afterwards."""
        self.world.note("server", "frozen", seconds)
        self._frozen_until = max(self._frozen_until, self.world.now + seconds)

    def stop(self, seconds: float) -> None:
        """The server is down: connections are refused, and what is on its way is lost."""
        self.world.note("server", "down", seconds)
        self._down_until = max(self._down_until, self.world.now + seconds)

    async def call(self, what: str, operation: Callable[[], R]) -> R:
        """Have something done by the server.

        Raises:
            StoreError: It was not, or it was and the answer was lost.
        """
        loop: Any = asyncio.get_running_loop()
        call = _Call(self, loop, what, operation)
        self.world.at(None, self.world.now + self._delay(loop), call.arrive)
        return await call.future  # type: ignore[no-any-return]

    def _delay(self, loop: NodeLoop) -> float:
        weather, random = self.weather, self.world.rng.random
        # A beat that is slow is one that is lost: its attempt has been given up by then.
        if weather.slow and loop is loop.process.main and random() < weather.slow:
            return weather.slowness * random()
        return 2 * weather.latency * random()


class _Call:
    """One operation on its way."""

    def __init__(
        self, network: Network, loop: NodeLoop, what: str, operation: Callable[[], Any]
    ) -> None:
        self._network = network
        self._world = network.world
        self._loop = loop
        self._what = what
        self._operation = operation
        self.future: asyncio.Future[Any] = loop.create_future()
        network.calls[what] += 1
        self._strike = network.strikes.get((what, network.calls[what]), NO_STRIKE)
        drops = network.weather.drops
        self._lost, self._silent = "reply" if self._strike.is_lost else "", True
        if drops and self._world.rng.random() < drops:
            self._lost = self._world.rng.choice(("request", "reply"))
            self._silent = self._world.rng.random() < network.weather.silence
            network.dropped(loop)
        self._strike_if("sent")

    def arrive(self) -> None:
        """The request is there."""
        network, world = self._network, self._world
        if self._lost == "request":
            self._fail()
        elif network._down_until > world.now:
            self._lost, self._silent = "request", False
            self._fail()
        elif network._frozen_until > world.now:
            # It may be done first of all, as it has lain there longest, or in any order.
            delay = network._delay(self._loop) if world.rng.random() < 0.5 else 0.0
            world.at(None, network._frozen_until + delay, self.arrive)
        else:
            answer = self._operation()
            if world.trace is not None:
                world.note(self._loop.process.name, self._what, _short(answer), self._lost)
            self._strike_if("done")
            if self._lost:
                self._fail()
            else:
                world.at(self._loop, world.now + network._delay(self._loop), self._answer, answer)

    def _answer(self, answer: Any) -> None:
        self._strike_if("answered")
        if not self.future.done():
            self.future.set_result(answer)

    def _fail(self) -> None:
        if not self._silent:
            delay = self._network._delay(self._loop)
            self._world.at(self._loop, self._world.now + delay, self._refuse)

    def _refuse(self) -> None:
        if not self.future.done():
            self.future.set_exception(StoreError("the connection was lost"))

    def _strike_if(self, moment: str) -> None:
        process, strike = self._loop.process, self._strike
        is_calm = self._world.now >= self._world.calm_at
        if strike.moment == moment and process.alive and not is_calm:
            if strike.steps is not None:
                process.steps_left = strike.steps
            if strike.pause:
                process.pause(strike.pause)


def _short(answer: Any) -> str:
    return "" if answer is None else repr(answer)


class _WirePulse(Pulse):
    """Beats over the same network."""

    def __init__(self, network: Network, node_id: str) -> None:
        self._network = network
        self._node_id = node_id

    async def open(self) -> None: ...

    async def beat(self, lease: float, running: int) -> bool:
        server, node_id = self._network.server, self._node_id
        return await self._network.call("beat", lambda: server.renew(node_id, lease))

    async def close(self) -> None: ...


class WireStore(BaseStore, ClusterStore):
    """The store as a scheduler has it: every operation goes to the server and back."""

    network: Any

    def _call(self, what: str, operation: Callable[[], R]) -> Any:
        return self.network.call(what, operation)

    @property
    def _server(self) -> Server:
        server: Server = self.network.server
        return server

    async def get_due_tasks(
        self, now: datetime, limit: int | None = None, exclude: Set[str] = NO_IDS
    ) -> list[Task]:
        passed_over = frozenset(exclude)
        due = await self._call("due", lambda: self._server.due(now, limit, passed_over))
        return list(due)

    async def get_next_run_time(self, after: datetime | None = None) -> datetime | None:
        moment: datetime | None
        moment = await self._call("next", lambda: self._server.next_run_time(after))
        return moment

    async def lookup_task(self, task_id: str) -> Task | None:
        def find() -> Task | None:
            task = self._server.tasks.get(task_id)
            return None if task is None else task.model_copy()

        found: Task | None = await self._call("lookup", find)
        return found

    async def get_all_tasks(self) -> list[Task]:
        return list(
            await self._call(
                "all", lambda: [task.model_copy() for task in self._server.tasks.values()]
            )
        )

    async def join_node(self, node: Node, lease: float) -> None:
        await self._call("join", lambda: self._server.join(node.id, lease))

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        return bool(await self._call("renew", lambda: self._server.renew(node_id, lease)))

    async def leave_node(self, node_id: str) -> None:
        await self._call("leave", lambda: self._server.leave(node_id))

    async def get_nodes(self) -> list[NodeRecord]:
        return list(await self._call("nodes", self._server.nodes))

    def pulse(self, node_id: str) -> Pulse:
        return _WirePulse(self.network, node_id)

    async def look(self) -> Look:
        looked: Look = await self._call("look", self._server.look)
        return looked

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        sent = list(firings)
        return list(await self._call("fire", lambda: self._server.fire(node_id, claim, sent)))

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        sent = list(refs)
        return list(await self._call("start", lambda: self._server.start(node_id, sent)))

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        sent = list(ends)
        return list(await self._call("finish", lambda: self._server.finish(node_id, sent)))

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        sent = list(refs)
        await self._call("release", lambda: self._server.release(node_id, sent))

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        return list(await self._call("own", lambda: self._server.own(node_id)))

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        def effect() -> Reaped:
            return self._server.reap(node_id, bury, max_attempts, limit)

        reaped: Reaped = await self._call("reap" if bury is None else "bury", effect)
        return reaped

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        refs = [ref for ref, _ in notes]
        return list(await self._call("note", lambda: self._server.note(node_id, refs)))

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        attended: Attended
        attended = await self._call("attend", lambda: self._server.attend(node_id, limit))
        return attended

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        state: RunState | None
        effect = partial(self._server.cancel, task_id, scheduled_time, by)
        state = await self._call("cancel", effect)
        return state

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        return 0

    async def get_runs(self, query: RunQuery) -> list[Run]:
        return []

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        return {}

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        return 0
