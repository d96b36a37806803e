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
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from suite.profiles import STORE_KINDS
from suite.questions import questions_of
from suite.servers import place
from suite.sharing import Report, late_work, listener, work, worker

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.triggers import DateTrigger

LEAD = 3.0
"""Seconds between the moment that all workers are ready and the one that the tasks are due."""
PATIENCE = 120.0
POLL_INTERVAL = 1.0
NOTIFY = {"postgresql", "redis", "mongodb"}
"""Stores that tell the others of what was added."""
WANTED_TIMES = 1.3
WANTED_QUESTIONS = 3.0
WANTED_CPU = 0.01


def say(what: str, value: float, limit: float, is_met: bool) -> None:
    """One verdict."""
    verdict = "met" if is_met else "missed"
    print(f"{'':<11} {verdict}: {what} {value:,.3g}, wanted {limit:,.3g}", flush=True)


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


def measure(
    kind: str, workers: int, tasks: int, seconds: float, idle: bool
) -> tuple[list[Report], float]:
    """Let workers share a store with so many tasks.

    Returns:
        What each has done; and runs a second, or of idle ones what the server was asked a second.
    """
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
        asked = asyncio.run(asked_meanwhile(found, seconds)) if idle else None
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
        return reports, rate
    if asked is None:
        asked = sum(report.operations for report in reports) / (seconds - 1.0)
    return reports, asked


async def asked_meanwhile(found: dict[str, str], seconds: float) -> float | None:
    """What a server was asked a second, for as long as all workers surely are there."""
    await asyncio.sleep(seconds * 0.4)  # they are starting
    before, began = await questions_of(found), time.monotonic()
    await asyncio.sleep(seconds * 0.5)
    after = await questions_of(found)
    if before is None or after is None:
        return None
    return (after - before) / (time.monotonic() - began)


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
    wanted = 100.0 if kind in NOTIFY else POLL_INTERVAL * 1e3 + 50
    say("ms late at most", worst, wanted, worst <= wanted)


def measure_throughput(kind: str, tasks: int, rounds: int) -> None:
    """Compare four workers with one."""
    ratios = []
    for _ in range(rounds):
        one, four = (measure(kind, workers, tasks, 8.0, idle=False)[1] for workers in (1, 4))
        ratios.append(four / one)
    middle, least = statistics.median(ratios), min(ratios)
    say("times what one gets done, by four", middle, WANTED_TIMES, middle >= WANTED_TIMES)
    say("times in the worst round", least, 1.0, least >= 1.0)


def measure_idle(kind: str, seconds: float) -> None:
    """Let four workers have nothing to do."""
    reports, asked = measure(kind, 4, 10_000, seconds, idle=True)
    length = seconds - 1.0
    calls = " ".join(f"{report.operations / length:.2f}" for report in reports)
    load = " ".join(f"{report.cpu / length:.2%}" for report in reports)
    print(f"{kind:<11} 4 idle: {calls} operations/s each, CPU {load} of a core", flush=True)
    each, dearest = asked / 4, max(report.cpu for report in reports) / length
    counted = "operations" if kind in ("sqlite", "file") else "questions to the server"
    say(f"{counted}/s each", each, WANTED_QUESTIONS, each <= WANTED_QUESTIONS)
    say("of a core for the dearest", dearest, WANTED_CPU, dearest < WANTED_CPU)


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
        measure_throughput(kind, given.tasks, given.rounds)
        measure_idle(kind, given.idle_seconds)
        measure_lateness(kind, given.added)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{usage.ru_utime + usage.ru_stime:.0f} s of CPU in all")


if __name__ == "__main__":
    main()
