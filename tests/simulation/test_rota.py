"""How workers divide what is due, in simulated time: who asks how often, and who is late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from random import Random

import pytest

from asyncz.enums import Delivery, RunState
from asyncz.schedulers.rota import PATIENCE
from asyncz.tasks.base import Task
from asyncz.triggers import IntervalTrigger
from tests.simulation.network import Weather
from tests.simulation.node import job, simulated
from tests.simulation.scene import Scene
from tests.simulation.world import ORIGIN, World

LATENCY = 0.001
TASKS = 20
EVERY = 2.0
WARM = 5.0
END = 25.0
ON_ITS_WAY = 20 * LATENCY
"""Seconds that ten calls, one after the other, take at most here: a look, all there is to look
after, what is due, and a claim."""


@pytest.fixture(autouse=True)
def in_the_simulation() -> Iterator[None]:
    with simulated():
        yield


def steady(number: int, every: float = EVERY) -> Task:
    """A task that is due every so many seconds, each at instants of its own."""
    first = ORIGIN + timedelta(seconds=1 + number * EVERY / TASKS)
    trigger = IntervalTrigger(seconds=every, start_at=first, end_at=ORIGIN + timedelta(seconds=END))
    task = Task(
        job, id=f"t{number}", trigger=trigger, next_run_time=first, store_alias="default",
        executor="default", delivery=Delivery.AT_LEAST_ONCE, mistrigger_grace_time=None,
    )  # fmt: skip
    task.pending = False
    return task


@pytest.fixture
def played() -> Scene:
    tasks = [steady(number) for number in range(TASKS)]
    return Scene(World(Random(1)), tasks, Weather(latency=LATENCY))


def lateness(played: Scene, since: float) -> list[float]:
    """Of what was due since then: seconds until it was handed over, for the first to do so."""
    handed: dict[tuple[str, object], float] = {}
    for node in played.nodes:
        for key, at in node.handed.items():
            handed[key] = min(at, handed.get(key, at))
    late = [
        at - (moment - ORIGIN).total_seconds()  # type: ignore[operator]
        for (_, moment), at in handed.items()
        if moment >= ORIGIN + timedelta(seconds=since)  # type: ignore[operator]
    ]
    assert late
    return late


def begin(played: Scene, nodes: int) -> None:
    for _ in range(nodes):
        played.begin()
    played.world.run(WARM)


def test_four_workers_claim_nothing_in_vain_and_seldom_ask(played: Scene) -> None:
    begin(played, 4)
    calls, before = played.network.calls, played.network.calls.copy()
    rows = len(played.server.rows)
    played.world.run(END)

    runs = len(played.server.rows) - rows
    assert runs == TASKS * (END - WARM) / EVERY
    assert calls["fire"] - before["fire"] <= 1.05 * runs
    assert calls["next"] == 0
    assert calls["due"] - before["due"] < 3.5 * runs  # it was 4 and 4
    assert played.monitor.error is None
    assert {row.state for row in played.server.rows.values()} == {RunState.SUCCEEDED}


def test_with_four_workers_all_runs_begin_at_once(played: Scene) -> None:
    begin(played, 4)
    played.world.run(END)

    assert max(lateness(played, WARM)) < ON_ITS_WAY


def test_what_a_suspended_worker_would_have_begun_others_begin_a_moment_later(
    played: Scene,
) -> None:
    begin(played, 4)
    played.nodes[0].pause(3)
    played.world.run(WARM + 2.9)

    late = lateness(played, WARM)

    assert max(late) < PATIENCE[1] + ON_ITS_WAY
    assert sum(each > ON_ITS_WAY for each in late) <= 8


def test_nobody_waits_for_a_worker_that_has_gone(played: Scene) -> None:
    begin(played, 3)
    played.nodes[0].stop()
    played.world.run(WARM + 4)
    played.world.run(END)

    assert max(lateness(played, WARM + 4)) < ON_ITS_WAY


def test_a_worker_that_comes_gets_its_share(played: Scene) -> None:
    begin(played, 2)
    newcomer = played.begin()
    played.world.run(END)

    runs = len([key for key in newcomer.handed if key[1] > ORIGIN + timedelta(seconds=WARM + 3)])
    assert runs > 30
    assert max(lateness(played, WARM + 3)) < ON_ITS_WAY


def test_a_task_that_is_due_several_times_a_second_is_not_late() -> None:
    played = Scene(World(Random(1)), [steady(1, every=0.3)], Weather(latency=LATENCY))
    begin(played, 4)
    played.world.run(END)

    assert max(lateness(played, WARM)) < ON_ITS_WAY
    calls, runs = played.network.calls, len(played.server.rows)
    assert calls["fire"] < 1.8 * runs
