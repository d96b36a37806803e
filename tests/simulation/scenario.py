"""A scenario from a seed, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from asyncz.enums import Delivery
from asyncz.tasks.base import Task
from tests.simulation.monitor import Broken
from tests.simulation.network import Strike, Weather
from tests.simulation.node import LEASE, NodeProcess
from tests.simulation.scene import END, Scene, task_of
from tests.simulation.world import World

__all__ = ["Result", "Simulation", "simulate"]

LONGEST_JOB = 1.5 * LEASE
CHANGES = (*("fire",) * 6, "start", "finish", "reap", "bury", "join", "release")
"""The calls that change something; the first is the most interesting."""
SETTLED_WITHIN = 3 * LEASE
"""Two leases and an audit with its second sighting, since user code has gone on last."""


class Result(NamedTuple):
    """What became of a seed: an error in words, or None."""

    seed: int
    error: str | None
    steps: int
    starts: int
    trace: list[tuple[Any, ...]] | None


class Simulation(Scene):
    """A scenario with chance in it.

    Args:
        seed: What it is made from.
        keeps_trace: Whether to write down what happens.
    """

    def __init__(self, seed: int, keeps_trace: bool = False) -> None:
        self.rng = rng = Random(seed)
        tasks = [self._task(f"t{number}") for number in range(rng.randint(1, 3))]
        super().__init__(World(rng, keeps_trace), tasks, self._weather())
        self.world.calm_at = END
        self.blocking = rng.choice((0, 0, 0, 0.1))
        self.failing = 0.1
        self.longest = rng.choice((0.0, 0.5, 3.0, LONGEST_JOB))
        self._skew = rng.choice((0, 0, 0, 90, 3600))
        for _ in range(rng.randint(2, 3)):
            self._begin()
        self._plan_faults()

    def _task(self, task_id: str) -> Task:
        rng = self.rng
        task = task_of(
            rng.choice(("interval", "interval", "cron", "date")),
            rng.choice((2, 3, 5, 7, 10)),
            rng.random() < 0.7,
            rng.choice((1, 3)),
            rng.choice((Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE)),
            rng.choice((None, 60.0, 4.0)),
        )
        return task.model_copy(update={"id": task_id})

    def _weather(self) -> Weather:
        rng = self.rng
        return Weather(
            latency=rng.choice((0.001, 0.01, 0.1)),
            slow=rng.choice((0, 0, 0, 0.05, 0.3)),
            slowness=rng.choice((0.5, LEASE / 3, LEASE)),
            drops=rng.choice((0, 0, 0, 0.02, 0.1, 0.3)),
            silence=rng.random(),
        )

    def _begin(self) -> None:
        self.begin(self._skew * self.rng.choice((-1, 0, 1)) if self._skew else 0)

    # Faults.

    def _plan_faults(self) -> None:
        rng = self.rng
        faults: list[tuple[Callable[[], None], int]] = [
            (self._kill, 3), (self._pause, 2), (self._stop, 1), (self._by_hand, 4),
            (self._freeze, 1), (self._take_down, 3), (self._pause_at_work, 2),
        ]  # fmt: skip
        for fault, most in faults:
            if rng.random() < 0.4:
                for _ in range(rng.randint(1, most)):
                    self.world.at(None, END * rng.random(), fault)
        if rng.random() < 0.6:
            for _ in range(rng.randint(1, 8)):
                call = rng.choice(CHANGES)
                most = 15 if call in ("fire", "finish") else 5
                self.network.strikes[call, rng.randint(1, most)] = self._strike()
        self.world.at(None, END, self._calm)
        self._look_for_the_dead()

    def _strike(self) -> Strike:
        rng = self.rng
        moment = rng.choice(("sent", "done", "answered"))
        match rng.choice(("kill", "pause", "lose")):
            case "kill":
                return Strike(moment, steps=rng.choice((0, 0, 1, 2, 5)))
            case "pause":
                return Strike(moment, pause=LEASE * (0.7 + 2 * rng.random()))
            case _:
                return Strike("", is_lost=True)

    def _any(self) -> NodeProcess:
        return self.rng.choice(self.nodes)

    def _kill(self) -> None:
        self._any().steps_left = self.rng.choice((0, 1, 2, 5, 20))

    def _pause(self) -> None:
        self._any().pause(3 * LEASE * self.rng.random() ** 2)

    def _pause_at_work(self) -> None:
        """Somebody who has begun a run comes back when others have begun it too."""
        going = [run.process for run in self.monitor.going()]
        if going:
            self.rng.choice(going).pause(LEASE * (1.2 + self.rng.random()))
        elif self.longest and self.world.now < END:
            self.world.at(
                None, self.world.now + self.longest * self.rng.random(), self._pause_at_work
            )

    def _stop(self) -> None:
        self._any().stop()

    def _by_hand(self) -> None:
        self._any().run_by_hand(f"t{self.rng.randrange(3)}")

    def _freeze(self) -> None:
        self.network.freeze(min(3 * LEASE * self.rng.random(), END - self.world.now))

    def _take_down(self) -> None:
        self.network.stop(min(3 * LEASE * self.rng.random(), END - self.world.now))

    def _look_for_the_dead(self) -> None:
        """Somebody starts processes again."""
        for node in self.nodes[:]:
            if not node.alive or (node.is_stopping and node.has_stopped):
                self.nodes.remove(node)
                self._begin()
        if self.world.now < END:
            self.world.at(None, self.world.now + 2 * self.rng.random(), self._look_for_the_dead)

    def _calm(self) -> None:
        """No more faults."""
        self.world.note("calm")
        self.network.weather = Weather(self.network.weather.latency)
        self.network.strikes.clear()
        self.blocking = 0
        for node in self.nodes:
            node.steps_left = -1
        self._look_for_the_dead()

    # To the end.

    def run(self) -> None:
        """Let it happen. Raises `Broken` if a promise is not kept."""
        self.world.run(END)
        if self.world.is_over:
            return
        last = END + SETTLED_WITHIN
        while self._is_unsettled() and not self.world.is_over:
            if self.monitor.going():
                last = self.world.now + SETTLED_WITHIN
            if self.world.now > last:
                raise Broken(f"not settled by {last:g} s: {self._unsettled()}")
            self.world.run(self.world.now + LEASE / 3)
        self.world.run(self.world.now + LEASE)
        self.monitor.check_end()

    def _is_unsettled(self) -> bool:
        return bool(self.server.open or self.server.tasks or self.monitor.going())

    def _unsettled(self) -> str:
        rows = [(row.key, row.state, row.owner, row.token) for row in self.server.open.values()]
        tasks = [(task.id, str(task.next_run_time)) for task in self.server.tasks.values()]
        going = [(run.task_id, str(run.head), run.node_id) for run in self.monitor.going()]
        return f"open {rows}, tasks {tasks}, going {going}"


def simulate(seed: int, keeps_trace: bool = False) -> Result:
    """What becomes of a seed, `simulated`. The same seed gives the same, and the same trace."""
    simulation = Simulation(seed, keeps_trace)
    try:
        simulation.run()
        error = simulation.monitor.error
    except (AssertionError, RuntimeError) as exc:
        error = simulation.monitor.error or f"{type(exc).__name__}: {exc}"
    finally:
        simulation.world.close()
    starts = sum(len(runs) for runs in simulation.monitor.runs.values())
    return Result(seed, error, simulation.world.steps, starts, simulation.world.trace)
