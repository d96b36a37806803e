"""What the simulation has found, one scene each."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from asyncz.enums import Delivery, NodeState, RunState
from asyncz.tasks.base import Task
from tests.simulation.network import Strike, Weather
from tests.simulation.node import simulated
from tests.simulation.scene import Scene, task_of
from tests.simulation.server import Row
from tests.simulation.world import World

ONCE, AGAIN = Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE


@pytest.fixture(autouse=True)
def in_the_simulation() -> Iterator[None]:
    with simulated():
        yield


def task(task_id: str, delivery: Delivery = AGAIN, grace: float | None = None) -> Task:
    """A task that is due each 10 seconds, the first time at 1 s, the last time at 21 s."""
    made = task_of("interval", 10, True, 1, delivery, grace)
    return made.model_copy(update={"id": task_id})


def scene(*tasks: Task, seed: int = 1) -> Scene:
    return Scene(World(Random(seed)), tasks, Weather(latency=0.005))


def rows(played: Scene) -> list[Row]:
    return sorted(played.server.rows.values(), key=lambda row: row.key[2])


def states(played: Scene) -> list[RunState]:
    assert played.monitor.error is None
    return [row.state for row in rows(played)]


def test_a_start_mark_that_gets_no_answer_is_asked_for_again() -> None:
    played = scene(task("a", ONCE))
    played.begin()
    played.network.strikes["start", 1] = Strike("", is_lost=True)
    played.world.run(10)
    assert states(played) == [RunState.SUCCEEDED]
    assert played.network.calls["start"] == 2


def test_a_claim_that_gets_no_answer_is_not_made_twice() -> None:
    played = scene(task("a"))
    played.begin()
    played.network.strikes["fire", 1] = Strike("", is_lost=True)
    played.world.run(10)
    assert states(played) == [RunState.SUCCEEDED]
    assert [run.calls for runs in played.monitor.runs.values() for run in runs] == [1]


@pytest.mark.parametrize("skew", [-3600, -90, 90, 3600])
def test_a_machine_whose_clock_is_wrong_runs_what_is_due_when_it_is_due(skew: float) -> None:
    played = scene(task("a", grace=4.0))
    played.begin(skew)
    played.world.run(25)
    assert states(played) == [RunState.SUCCEEDED] * 3
    assert [round(row.key[2].timestamp() % 60) for row in rows(played)] == [1, 11, 21]
    assert played.network.calls["look"] < 30


@pytest.mark.parametrize("late", [number / 20 for number in range(12)])
def test_who_was_suspended_during_an_outage_does_not_take_others_for_dead(late: float) -> None:
    played = scene(task("a"))
    suspended, _ = played.begin(), played.begin()
    played.world.run(22.5)
    suspended.pause(6.5 + late)
    played.world.run(23)
    played.network.stop(6 + late)
    played.world.run(40)
    assert played.monitor.error is None
    assert [member.state for member in played.server.members.values()] == [NodeState.ALIVE] * 2


@pytest.mark.parametrize("seed", range(20))
def test_a_store_that_is_frozen_while_a_reap_is_under_way_buries_nobody_afterwards(
    seed: int,
) -> None:
    played = scene(task("a"), seed=seed)
    played.begin()
    played.begin()
    played.world.run(15)
    calls = played.network.calls
    before = calls["bury"]
    while calls["bury"] == before:
        played.world.run(played.world.now + 0.001)
    played.network.freeze(12)
    played.world.run(45)
    assert played.monitor.error is None
    assert [member.state for member in played.server.members.values()] == [NodeState.ALIVE] * 2


def test_what_a_suspended_scheduler_has_claimed_is_run_once_by_somebody_else() -> None:
    played = scene(task("a"), task("b", ONCE))
    played.begin()
    played.network.strikes["fire", 1] = Strike("done", pause=15)
    played.world.run(3)
    played.begin()
    played.world.run(30)
    assert played.monitor.error is None
    assert {len(runs) for runs in played.monitor.runs.values()} == {1}
    assert not played.server.open


def test_a_scheduler_that_is_fenced_is_one_node_again() -> None:
    played = scene(task("a"))
    fenced, _ = played.begin(), played.begin()
    played.world.run(2)
    fenced.pause(15)
    played.world.run(17)
    for _ in range(20):
        fenced.run_by_hand("a")
        played.world.run(played.world.now + 0.004)
    played.world.run(40)
    alive = [name for name, member in played.server.members.items() if played.server.is_alive(name)]
    assert len(alive) == 2


@pytest.mark.parametrize("later", [number / 10 for number in range(10)])
def test_a_scheduler_that_has_stopped_is_no_node(later: float) -> None:
    played = scene(task("a"))
    stopped, _ = played.begin(), played.begin()
    played.world.run(2)
    stopped.pause(15)
    played.world.run(17)
    played.network.weather = Weather(latency=0.5)
    stopped.run_by_hand("a")
    played.world.run(17 + later)
    stopped.stop()
    played.world.run(50)
    assert stopped.has_stopped
    assert played.monitor.error is None
    assert played.world.unnoticed() == []
    assert sum(map(played.server.is_alive, played.server.members)) == 1


def test_runs_are_taken_over_though_their_task_has_come_to_its_end() -> None:
    played = scene(task("a"))
    killed = played.begin()
    played.world.run(10)
    played.longest = 1_000
    played.world.run(20)
    assert [row.is_open for row in rows(played)] == [False, True]
    killed.kill()
    played.longest = 0
    played.begin()
    played.world.run(60)
    assert states(played) == [RunState.SUCCEEDED] * 2
    assert [unrun[1] for unrun in played.server.unrun] == [RunState.SKIPPED]
    assert not played.server.tasks
