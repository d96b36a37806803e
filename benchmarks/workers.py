"""Measures workers that share a store: ``python benchmarks/workers.py --help``.

How much one worker gets done, how much four do together, what four cost that have nothing to do,
and how late one is with tasks that another process adds. Each measurement gets a server of its
own, new and empty.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from suite.profiles import STORE_KINDS
from suite.servers import place
from suite.sharing import Report, late_work, listener, work, worker

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.triggers import DateTrigger

LEAD = 3.0
"""Seconds between the moment that all workers are ready and the one that the tasks are due."""
PATIENCE = 120.0


def options_of(kind: str, url: str) -> dict[str, Any]:
    """The store as a scheduler takes it."""
    made = {
        "file": {"type": "file", "directory": url},
        "sqlite": {"type": "sqlalchemy", "database": f"sqlite:///{url}"},
        "redis": {"type": "redis", "url": url},
        "mongodb": {"type": "mongodb", "client": url},
    }
    return {"default": made.get(kind, {"type": "sqlalchemy", "database": url})}


async def add(stores: dict[str, Any], tasks: int, due: datetime) -> None:
    """Put tasks into the store."""
    async with NativeAsyncIOScheduler(stores=stores, timezone=UTC) as scheduler:
        scheduler.pause()
        made = [Task(work, id=f"t{number}", trigger=DateTrigger(due)) for number in range(tasks)]
        await scheduler.aadd_tasks(made)


def measure(kind: str, workers: int, tasks: int, seconds: float, idle: bool) -> list[Report]:
    """Let workers share a store with so many tasks."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory, place(kind) as found:
        assert found is not None
        os.chdir(directory)
        stores = options_of(found["kind"], found["url"])
        due = datetime.now(UTC) + timedelta(days=1 if idle else 0, seconds=LEAD + 12)
        asyncio.run(add(stores, tasks, due))
        ready, answers = context.Barrier(workers), context.Queue()
        until = seconds if idle else max(1.0, due.timestamp() - time.time()) + seconds
        started = [
            context.Process(target=worker, args=(stores, ready, until, answers), daemon=True)
            for _ in range(workers)
        ]
        for process in started:
            process.start()
        reports = [answers.get(timeout=PATIENCE) for _ in started]
        for process in started:
            process.join(PATIENCE)
        os.chdir("/")
    if not idle:
        total = sum(report.done for report in reports)
        took = max(report.last_end for report in reports) - due.timestamp()
        assert total == tasks, f"{kind}, {workers} workers: {total} of {tasks} tasks were run"
        shares = " ".join(str(report.done) for report in reports)
        rate = tasks / took
        print(f"{kind:<11} {workers} worker(s): {rate:9,.0f} runs/s  (shares {shares})", flush=True)
    return reports


async def add_one_by_one(stores: dict[str, Any], ready: Any, tasks: int) -> None:
    """Add tasks that are due at once, without running any."""
    async with NativeAsyncIOScheduler(stores=stores, timezone=UTC) as scheduler:
        scheduler.pause()
        await asyncio.to_thread(ready.wait)
        for number in range(tasks):
            await asyncio.sleep(random.uniform(0.1, 0.5))
            now = datetime.now(UTC)
            name = f"late-{number}"
            await scheduler.aadd_task(
                late_work, "date", run_at=now, args=[now.timestamp()], id=name
            )


def measure_lateness(kind: str, tasks: int) -> None:
    """Let a process add tasks, and another one run them."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory, place(kind) as found:
        assert found is not None
        os.chdir(directory)
        stores = options_of(found["kind"], found["url"])
        ready, answers = context.Barrier(2), context.Queue()
        given = (stores, ready, tasks, answers)
        process = context.Process(target=listener, args=given, daemon=True)
        process.start()
        asyncio.run(add_one_by_one(stores, ready, tasks))
        late = sorted(answers.get(timeout=PATIENCE))
        process.join(PATIENCE)
        os.chdir("/")
    middle, worst = late[len(late) // 2] * 1e3, late[-1] * 1e3
    words = f"{tasks} tasks added by another process: {middle:.0f} ms late, {worst:.0f} at most"
    print(f"{kind:<11} {words}", flush=True)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--store", choices=STORE_KINDS, action="append")
    command.add_argument("--tasks", type=int, default=8_000)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--idle-seconds", type=float, default=20.0)
    command.add_argument("--added", type=int, default=50)
    given = command.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for kind in given.store or STORE_KINDS:
        for _ in range(given.rounds):
            for workers in (1, 4):
                measure(kind, workers, given.tasks, 8.0, idle=False)
        reports = measure(kind, 4, 10_000, given.idle_seconds, idle=True)
        length = given.idle_seconds - 1.0
        calls = " ".join(f"{report.operations / length:.2f}" for report in reports)
        load = " ".join(f"{report.cpu / length:.2%}" for report in reports)
        print(f"{kind:<11} 4 idle: {calls} operations/s each, CPU {load} of a core", flush=True)
        measure_lateness(kind, given.added)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{usage.ru_utime + usage.ru_stime:.0f} s of CPU in all")


if __name__ == "__main__":
    main()
