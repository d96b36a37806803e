"""A trial: some workers on one store, faults while they work, and the accounts in the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from asyncz import NativeAsyncIOScheduler
from asyncz.enums import NodeState, RunState
from asyncz.runs.base import Run
from asyncz.tasks.base import Task
from tests.outages.proxy import Proxy, proxy_before

from .checker import Verdict, check
from .evidence import Evidence, add_own_fates
from .fleet import Fleet
from .journal import Entry, read_journal
from .places import Place
from .worker import TaskPlan, WorkerPlan, make_scheduler, make_task

__all__ = [
    "OPEN", "Fault", "Measure", "Outcome", "Promise", "Stage", "Trial",
    "hold", "plan_tasks", "watcher",
]  # fmt: skip

OPEN = [state for state in RunState if state.is_open]
LEAD, LONG_LEAD = 1.0, 2.0
"""Seconds from the planning to the first run, in which the workers start; and declare tasks."""
SETTLES_WITHIN, LEASES = 22.0, 1.5
"""Seconds, and leases beside, that taking over the last runs may take."""
EVERYTHING = 10_000
"""Runs of one task."""


@dataclass
class Stage:
    """What a fault has to do with.

    Args:
        trial: The trial.
        place: Where the tasks are.
        fleet: The workers.
        random: For when and whom.
        ends: When the last task is due, as `time.monotonic` has it.
        proxy: Before the server, if the trial has asked for one.
        tasks: What is due.
        direct: How to get at the store without a proxy between.
        marks: Moments that the test wants to know of.
        samples: What was measured meanwhile, and when.
        old_ones: The workers of the old release of the app.
        buried: The nodes that the store has as dead: others have seen their leases run out.
    """

    trial: Trial
    place: Place
    fleet: Fleet
    random: Random
    ends: float
    tasks: Sequence[TaskPlan]
    direct: WorkerPlan
    proxy: Proxy | None = None
    marks: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    old_ones: frozenset[int] = frozenset()
    buried: Sequence[str] = ()

    async def sleep_until(self, moment: float) -> None:
        """Wait for a moment of `time.monotonic`."""
        await asyncio.sleep(max(0.0, moment - time.monotonic()))


Fault = Callable[[Stage], Awaitable[None]]
Measure = Callable[[Stage, Evidence], dict[str, float]]
"""What else is to be known of a trial, by name."""
Promise = Callable[["Outcome"], Iterable[str]]
"""Says what of a trial is not as it was promised."""


@dataclass
class Trial:
    """What is tried.

    Args:
        seconds: For how long tasks are due.
        tasks: What is due.
        faults: What goes wrong; all at the same time.
        workers: How many there are.
        seed: Of the random times and victims.
        lease: Seconds.
        with_proxy: Whether there is a proxy before the server.
        by_hand: Tasks that each worker runs by hand, again and again.
        declares: Whether each worker declares the tasks at its start.
        on_empty: Whether the trial leaves it to them, and begins with an empty store.
        jumps: Whether the wall clocks of the workers jump.
        skews: By how many seconds they are wrong all the time, one worker after the other.
        apart: Whether each worker is as on a machine of its own.
        spared: How many workers nothing is done to.
        poll_interval, store_timeout: Of the workers.
        aside: Tasks of which no accounts are kept, so that workers have to do with more than runs.
        measure: What else is to be known of it.
        promises: What has to be true of it beside the accounts.
    """

    seconds: float
    tasks: Callable[[int, float], Sequence[TaskPlan]]
    faults: Sequence[Fault] = ()
    workers: int = 4
    seed: int = 1
    lease: float = 2.0
    with_proxy: bool = False
    by_hand: tuple[str, ...] = ()
    declares: bool = False
    on_empty: bool = False
    jumps: bool = False
    skews: tuple[float, ...] = (0.0,)
    apart: bool = False
    spared: int = 0
    poll_interval: float = 0.1
    store_timeout: float = 1.0
    aside: Callable[[int, float], Sequence[Task]] = lambda first, seconds: ()
    measure: Measure = lambda stage, evidence: {}
    promises: Sequence[Promise] = ()


@dataclass
class Outcome:
    """How a trial ended."""

    verdict: Verdict
    evidence: Evidence
    stage: Stage
    log: Path
    took: float
    figures: dict[str, float]


def plan_tasks(
    first: int,
    seconds: float,
    count: int = 20,
    longest: float = 0.5,
    delivery: str | None = None,
    **options: Any,
) -> list[TaskPlan]:
    """Tasks of every kind, due a little after one another.

    Args:
        first: When the first is due the first time, in microseconds since 1970.
        seconds: For how long they are due.
        count: How many tasks.
        longest: Seconds that a run takes at most.
        delivery: Of all of them; None: every fourth is `at_most_once`.
        options: For each of them.
    """
    plans = []
    for number in range(count):
        start = first + number * 1_000_000 // count
        once = "at_least_once" if number % 4 else "at_most_once"
        plans.append(
            TaskPlan(
                f"t{number}", start, start + int(seconds * 1_000_000), longest, delivery or once,
                coalesce=number % 3 != 0, max_instances=3 if number % 5 == 0 else 1, **options,
            )
        )  # fmt: skip
    return plans


async def hold(place: Place, trial: Trial, directory: Path) -> Outcome:
    """Hold a trial. Whatever happens, its workers have ended in the end."""
    began = time.monotonic()
    journal, log = directory / "journal", directory / "workers.log"
    async with AsyncExitStack() as stack:
        fleet = stack.enter_context(Fleet(log, trial.seed, trial.skews))
        proxy = None
        if trial.with_proxy:
            proxy = await stack.enter_async_context(proxy_before(place.port))
        offset, lead = time.monotonic() - time.time(), LONG_LEAD if trial.on_empty else LEAD
        first = int((time.time() + lead) * 1_000_000)
        ends = first / 1e6 + offset + trial.seconds
        tasks, aside = trial.tasks(first, trial.seconds), trial.aside(first, trial.seconds)
        fleet.plan = plan = WorkerPlan(
            place.new_address(proxy.port if proxy else None), str(journal),
            tuple(tasks) if trial.declares else (), trial.by_hand,
            lease=trial.lease, poll_interval=trial.poll_interval,
            store_timeout=trial.store_timeout, jumps=trial.jumps, hands_off=ends,
            is_apart=trial.apart, cancels=str(aside[0].id) if aside else "",
        )  # fmt: skip
        direct = plan._replace(address=place.direct(plan.address))
        if not trial.on_empty:
            async with watcher(direct) as scheduler:
                await scheduler.aadd_tasks([*map(make_task, tasks), *aside])
            assert time.time() * 1_000_000 < first, "too slow: what is added late was never due"
        stage = Stage(trial, place, fleet, Random(trial.seed), ends, tasks, direct, proxy)
        fleet.spared.update(fleet.start(trial.workers)[: trial.spared])
        await _go_wrong(stage)
        ledger = await _settle(stage)
        place.put_right()
    (directory / "ledger").write_text("\n".join(map(repr, ledger)))
    entries = read_journal(journal)
    add_own_fates(fleet.fates, entries)
    if trial.on_empty:
        tasks = [_as_declared(task, entries) for task in tasks]
    by_hand = frozenset(trial.by_hand)
    evidence = Evidence(tasks, entries, fleet.fates, ledger, trial.lease, offset, by_hand)
    took, figures = time.monotonic() - began, trial.measure(stage, evidence)
    outcome = Outcome(check(evidence), evidence, stage, log, took, figures)
    for promise in trial.promises:
        outcome.verdict.broken.extend(promise(outcome))
    return outcome


def _as_declared(task: TaskPlan, entries: Sequence[Entry]) -> TaskPlan:
    """A task that was declared after it was due the first time was never due then."""
    fires = [entry.fire for entry in entries if entry.task == task.id]
    return task._replace(first=min(fires, default=task.first))


async def _go_wrong(stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        for fault in stage.trial.faults:
            group.create_task(_as_coroutine(fault, stage))
    await stage.sleep_until(stage.ends)
    if stage.proxy is not None:
        stage.proxy.lose_one_in(0)


async def _as_coroutine(fault: Fault, stage: Stage) -> None:
    await fault(stage)


async def _settle(stage: Stage) -> list[Run]:
    """Let the workers take over what was left, then end them. Returns the ledger."""
    async with watcher(stage.direct) as scheduler:
        deadline = time.monotonic() + SETTLES_WITHIN + LEASES * stage.trial.lease
        while time.monotonic() < deadline:
            tasks = [] if stage.trial.by_hand else await scheduler.aget_tasks()
            if not tasks and not await scheduler.aget_runs(state=OPEN):
                break
            await asyncio.sleep(0.1)
        stage.marks["settled"], fleet = time.monotonic(), stage.fleet
        stage.buried = [
            record.node.id
            for _, record in await scheduler._operations.nodes()
            if record.state is NodeState.DEAD
        ]
        fleet.notice_ended()
        await fleet.end(list(fleet.alive), within=15.0)
        ledgers = [await scheduler.aget_runs(task.id, limit=EVERYTHING) for task in stage.tasks]
        known = {task.id for task in stage.tasks}
        others = [run for run in await scheduler.aget_runs(state=OPEN) if run.task_id not in known]
        return list(chain.from_iterable([*ledgers, others]))


@asynccontextmanager
async def watcher(plan: WorkerPlan) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler on the same store that runs nothing."""
    scheduler = make_scheduler(plan._replace(store_timeout=10.0, lease=30.0))
    await scheduler.start(paused=True)
    try:
        yield scheduler
    finally:
        await scheduler.shutdown()
