"""A store, its network and the processes on it: what a scenario is played on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

from asyncz.enums import Delivery
from asyncz.tasks.base import Task
from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger
from asyncz.triggers.base import BaseTrigger
from tests.simulation.monitor import Monitor
from tests.simulation.network import Network, Weather
from tests.simulation.node import LEASE, NodeProcess, job
from tests.simulation.server import Server
from tests.simulation.world import ORIGIN, World

__all__ = ["END", "Scene", "task_of"]

END = 5 * LEASE
"""Schedules end then, and so do faults."""


@lru_cache(maxsize=200)
def trigger_of(kind: str, seconds: int) -> BaseTrigger:
    end = ORIGIN + timedelta(seconds=END)
    if kind == "interval":
        start = ORIGIN + timedelta(seconds=1)
        return IntervalTrigger(seconds=seconds, start_at=start, end_at=end)
    if kind == "cron":
        return CronTrigger(second=f"*/{seconds}", timezone="UTC", end_at=end)
    return DateTrigger(run_at=ORIGIN + timedelta(seconds=seconds))


@lru_cache(maxsize=2000)
def task_of(
    kind: str, seconds: int, coalesce: bool, instances: int, delivery: Delivery, grace: float | None
) -> Task:
    trigger = trigger_of(kind, seconds)
    task = Task(
        job, id="?", trigger=trigger, coalesce=coalesce, max_instances=instances,
        delivery=delivery, mistrigger_grace_time=grace, store_alias="default", executor="default",
        next_run_time=trigger.get_next_trigger_time(ORIGIN.tzinfo, None, ORIGIN),
    )  # fmt: skip
    task.pending = False
    return task


class Scene:
    """Nothing happens here by itself.

    Args:
        world: Where it is.
        tasks: Those that the store has, each with an id of its own.
        weather: How bad the network is.
    """

    def __init__(self, world: World, tasks: Sequence[Task], weather: Weather) -> None:
        self.world = world
        self.monitor = Monitor(world, LEASE, list(tasks))
        self.server = self.monitor.server = Server(lambda: world.clock, self.monitor)
        self.server.tasks = {str(task.id): task for task in tasks}
        self.network = Network(world, self.server, weather)
        self.network.dropped = self.monitor.dropped
        self.blocking = 0.0
        """How often user code blocks the loop."""
        self.failing = 0.0
        """How often user code fails."""
        self.longest = 0.0
        """Seconds that user code takes at most."""
        self.nodes: list[NodeProcess] = []
        self._made = 0

    def begin(self, skew: float = 0) -> NodeProcess:
        """Start a process on a machine whose clock is wrong by so many seconds."""
        self._made += 1
        node = NodeProcess(f"p{self._made}", self, skew)
        self.nodes.append(node)
        self.monitor.processes[node.name] = node
        self.world.note(node.name, "begins")
        return node

    def duration(self) -> float:
        """How long user code takes this time."""
        return self.longest * self.world.rng.random() ** 3
