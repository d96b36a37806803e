"""Measures how late runs start at a steady rate: ``python benchmarks/latency.py --help``.

So many tasks are due every second, spread evenly over it, and workers that share a store run them.
A run is as late as the time from its due instant to the first statement of its coroutine, by the
clock of the machine, which is the store's too. Afterwards a backlog is handed over as fast as it
can be. Each measurement gets a server of its own, new and empty.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from suite.profiles import STORE_KINDS
from suite.servers import place
from suite.sharing import steady_work, steady_worker
from workers import measure, options_of

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.triggers import IntervalTrigger

LEAD = 3.0
"""Seconds from when the workers are ready until the first run is due; the tasks are added in it."""
LINGER = 1.0
PATIENCE = 120.0
WANTED_MS = (5.0, 25.0)
"""The median and the 99th percentile."""
WANTED_RATES = {
    "sqlite": 400,
    "postgresql": 2_000,
    "mariadb": 600,
    "redis": 3_000,
    "mongodb": 700,
}
"""Runs a second that one worker is to get done when a backlog is due."""


@dataclass
class Lateness:
    """What was started, and how late: seconds, sorted."""

    late: list[float]
    expected: int
    twice: int

    def quantile(self, share: float) -> float:
        """In ms."""
        return 1e3 * self.late[min(int(share * len(self.late)), len(self.late) - 1)]

    def __str__(self) -> str:
        median, tail = self.quantile(0.5), self.quantile(0.99)
        done = len(self.late) - self.twice
        is_met = median <= WANTED_MS[0] and tail <= WANTED_MS[1]
        return (
            f"late p50 {median:5.1f} p99 {tail:6.1f} worst {self.quantile(1):6.1f} ms; "
            f"{done:,} of {self.expected:,} run, {self.twice} twice "
            f"(p50 ≤ {WANTED_MS[0]:g}, p99 ≤ {WANTED_MS[1]:g} ms: {'met' if is_met else 'missed'})"
        )


async def add(stores: dict[str, Any], rate: int, seconds: int) -> float:
    """Put the tasks into the store. Returns when the last run is due."""
    async with NativeAsyncIOScheduler(stores=stores, timezone=UTC) as scheduler:
        scheduler.pause()
        first = datetime.now(UTC) + timedelta(seconds=LEAD)
        made = []
        for number in range(rate):
            start = first + timedelta(seconds=number / rate)
            end = start + timedelta(seconds=seconds - 1)
            trigger = IntervalTrigger(seconds=1, start_at=start, end_at=end)
            made.append(Task(steady_work, id=f"t{number}", trigger=trigger))
        await scheduler.aadd_tasks(made)
        if datetime.now(UTC) > first:
            raise RuntimeError(f"adding {rate} tasks took longer than {LEAD} s")
        await asyncio.sleep(0)
    return first.timestamp() + seconds


def measure_lateness(kind: str, workers: int, rate: int, seconds: int) -> Lateness:
    """Let workers run so many tasks a second."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory, place(kind) as found:
        assert found is not None
        os.chdir(directory)
        stores = options_of(found["kind"], found["url"])
        ready, ended = context.Barrier(workers + 1), context.Barrier(workers + 1)
        answers = context.Queue()
        started = [
            context.Process(target=steady_worker, args=(stores, ready, ended, answers), daemon=True)
            for _ in range(workers)
        ]
        for process in started:
            process.start()
        ready.wait(PATIENCE)
        last = asyncio.run(add(stores, rate, seconds))
        time.sleep(max(0.0, last + LINGER - time.time()))
        ended.wait(PATIENCE)
        starts = [start for _ in started for start in answers.get(timeout=PATIENCE)]
        for process in started:
            process.join(PATIENCE)
        os.chdir("/")
    late = sorted(began - due for _, due, began in starts)
    twice = len(starts) - len({(name, due) for name, due, _ in starts})
    return Lateness(late, rate * seconds, twice)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--store", choices=STORE_KINDS, action="append")
    command.add_argument("--workers", type=int, action="append", help="1 and 4 by default")
    command.add_argument("--rate", type=int, default=200, help="runs a second")
    command.add_argument("--seconds", type=int, default=60)
    command.add_argument("--backlog", type=int, default=8_000, help="runs due at once; 0: none")
    command.add_argument("--quick", action="store_true", help="5 s of it, with one worker")
    given = command.parse_args()
    seconds, backlog = (5, 2_000) if given.quick else (given.seconds, given.backlog)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for kind in given.store or STORE_KINDS:
        for workers in given.workers or ([1] if given.quick else [1, 4]):
            found = measure_lateness(kind, workers, given.rate, seconds)
            what = f"{workers} worker(s), {given.rate}/s for {seconds} s"
            print(f"{kind:<11} {what}: {found}", flush=True)
        if backlog:
            measure(kind, 1, backlog, 8.0, idle=False)
            if kind in WANTED_RATES:
                print(f"{'':<11} wanted: {WANTED_RATES[kind]:,} runs/s", flush=True)


if __name__ == "__main__":
    main()
