"""Runs that a store keeps: finding the last of them among few and among many; forgetting them.

The runs are put in as the store itself does it, by claims that have many occurrences that are over
already: so each lies there as any other run. A few of them have failed, as many among the first as
among the others. What is timed is `aget_runs` of a scheduler. Then the history is cut down as the
engine does it: half of the tasks by `prune_runs`, a page at a time, the others by `forget_runs`.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncz import IntervalTrigger, Task
from asyncz.enums import RunKind, RunState
from asyncz.schedulers.caretaker import FORGOTTEN
from asyncz.schedulers.collecting import short_lived
from asyncz.schedulers.pruning import AT_ONCE
from asyncz.stores.cluster import ClusterStore, Firing, Node, Unrun
from suite.probes import Heartbeat
from suite.scenarios import Bench, Numbers
from suite.scenarios.burst import no_operation

PAGE = 250
TASKS = 50
FAILED_EACH = 60
"""More than are asked for, so that the answers are as long among few as among many."""
KEPT = 100
SAMPLES = 21
LEASE = 7_200
NODE = Node("benchmark", "benchmark", "localhost", 1)
SETTLED = frozenset(state for state in RunState if not state.is_open)
QUESTIONS: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    "task": {"task_id": "t1"},
    "failed": {"state": "failed"},
    "task_failed": {"task_id": "t1", "state": "failed"},
}


async def measure(bench: Bench) -> Numbers:
    """Milliseconds for each question at both sizes, and the stalls while runs are forgotten."""
    small, large = bench.settings["small"], bench.settings["large"]
    adapter: Any = bench.scheduler()
    scheduler = adapter.scheduler
    await scheduler.start()
    store: ClusterStore = scheduler.stores["default"]
    await store.join_node(NODE, LEASE)
    filling = Filling(store, datetime.now(UTC).replace(microsecond=0))
    await filling.prepare()
    await filling.fill(small)
    little = await time_questions(scheduler)
    began = time.perf_counter()
    await filling.fill(large - small)
    numbers: Numbers = {"large": large, "filling_s": time.perf_counter() - began}
    await asyncio.sleep(bench.settings["rest"])  # PostgreSQL gets to know its tables meanwhile
    much = await time_questions(scheduler)
    for name in QUESTIONS:
        numbers |= {f"{name}_small_ms": little[name], f"{name}_large_ms": much[name]}
        numbers[f"{name}_times"] = much[name] / little[name]
    numbers |= await forget(store, large)
    await scheduler.shutdown()
    return numbers


class Filling:
    """Puts settled runs into a store, each a second later than the one before it."""

    def __init__(self, store: ClusterStore, now: datetime) -> None:
        self._store = store
        self._moment = now - timedelta(days=14)
        self._next = now + timedelta(days=365)
        self._calls = 0

    async def prepare(self) -> None:
        every = IntervalTrigger(days=1, timezone="UTC")
        tasks = [Task(no_operation, id=f"t{n}", trigger=every) for n in range(TASKS)]
        for task in tasks:
            task.next_run_time = self._next
        await self._store.add_tasks(tasks)

    async def fill(self, count: int) -> None:
        tasks = [await self._store.lookup_task(f"t{n}") for n in range(TASKS)]
        pages = [min(PAGE, count - start) for start in range(0, count, PAGE)]
        shares = [pages[n::TASKS] for n in range(TASKS)]
        gap = max(1, count // FAILED_EACH)
        done = 0
        for turn in range(len(shares[0])):
            firings = []
            for task, share in zip(tasks, shares, strict=True):
                if turn < len(share):
                    firings.append(self._firing(task, range(done, done + share[turn]), gap))
                    done += share[turn]
            self._calls += 1
            await self._store.fire(NODE.id, f"fill-{self._calls}", firings)
            self._next += timedelta(seconds=1)
            for task in tasks[: len(firings)]:
                task.next_run_time = self._next

    def _firing(self, task: Any, numbers: range, gap: int) -> Firing:
        return Firing(
            task, task.next_run_time, self._next + timedelta(seconds=1), False,
            RunKind.SCHEDULED, (), tuple(self._over(numbers, gap)),
        )  # fmt: skip

    def _over(self, numbers: range, gap: int) -> Iterator[Unrun]:
        for number in numbers:
            self._moment += timedelta(seconds=1)
            state = RunState.FAILED if number % gap == gap - 1 else RunState.SUCCEEDED
            yield Unrun(state, self._moment, self._moment, 1, "")


async def time_questions(scheduler: Any) -> dict[str, float]:
    """The median for each question, in ms."""
    samples: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    for _ in range(SAMPLES):
        for name, wanted in QUESTIONS.items():
            began = time.perf_counter()
            await scheduler.aget_runs(limit=50, **wanted)
            samples[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(found) for name, found in samples.items()}


async def forget(store: ClusterStore, count: int) -> Numbers:
    """Cut the history down, and watch the loop."""
    gc.collect()  # what was left over by filling is not to be looked at meanwhile
    began, forgotten = time.perf_counter(), 0
    with Heartbeat() as heartbeat:
        for number in range(TASKS // 2):
            long_ago = datetime.now(UTC) - timedelta(days=30)
            gone = AT_ONCE
            while gone >= AT_ONCE:
                async with short_lived():
                    gone = await store.prune_runs(f"t{number}", SETTLED, KEPT, long_ago, AT_ONCE)
                forgotten += gone
        gone = 1
        while gone:
            async with short_lived():
                gone = await store.forget_runs(datetime.now(UTC) + timedelta(days=1), FORGOTTEN)
            forgotten += gone
    taken = time.perf_counter() - began
    watched = heartbeat.figures()
    return {
        "forget_us": taken / max(1, forgotten) * 1e6,
        "forgotten": forgotten,
        "forget_stall_ms": watched["stall_ms"],
        "forget_stall_cpu_ms": watched["stall_cpu_ms"],
        "left": count - forgotten,
    }
