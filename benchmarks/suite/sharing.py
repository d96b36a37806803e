"""A worker that shares a store with others, and what it has done."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC
from multiprocessing.synchronize import Barrier
from typing import Any

from asyncz import NativeAsyncIOScheduler
from asyncz.executors.tracking import CURRENT_RUN
from asyncz.schedulers.lane import StoreLane

__all__ = ["Report", "late_work", "listener", "steady_work", "steady_worker", "work", "worker"]

done = 0
last_end = 0.0
late: list[float] = []
starts: list[tuple[str, float, float]] = []


async def work() -> None:
    """The task; counts what this worker has done."""
    global done, last_end
    done += 1
    last_end = time.time()


async def late_work(due: float) -> None:
    """The task that somebody else adds; notes how late it is."""
    late.append(time.time() - due)


@dataclass
class Report:
    """What one worker has done."""

    done: int
    last_end: float
    cpu: float
    operations: int


def worker(stores: dict[str, Any], ready: Barrier, seconds: float, answers: Any) -> None:
    """A worker that runs for so long after all are ready."""
    operations = 0
    ask = StoreLane.call

    async def counted(lane: StoreLane, operation: Any) -> Any:
        nonlocal operations
        operations += 1
        return await ask(lane, operation)

    StoreLane.call = counted  # type: ignore[method-assign]

    async def main() -> None:
        async with NativeAsyncIOScheduler(stores=stores, timezone=UTC):
            await asyncio.to_thread(ready.wait)
            await asyncio.sleep(1.0)
            begun, cpu = operations, time.process_time()
            await asyncio.sleep(seconds - 1.0)
            report = Report(done, last_end, time.process_time() - cpu, operations - begun)
        answers.put(report)

    asyncio.run(main())


def listener(stores: dict[str, Any], ready: Barrier, tasks: int, answers: Any) -> None:
    """A worker that runs what somebody else adds, and says how late each was."""

    async def main() -> None:
        async with NativeAsyncIOScheduler(stores=stores, timezone=UTC):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(ready.wait)
            while len(late) < tasks:
                await asyncio.sleep(0.05)
        answers.put(late)

    asyncio.run(main())


async def steady_work() -> None:
    """The task that is due again and again; notes when each run was due, and when it starts."""
    now, run = time.time(), CURRENT_RUN.get()
    if run is not None:
        starts.append((str(run.task.id), run.run_times[0].timestamp(), now))


def steady_worker(stores: dict[str, Any], ready: Barrier, ended: Barrier, answers: Any) -> None:
    """A worker that runs what is due until it is over, and says when each run started."""

    async def main() -> None:
        async with NativeAsyncIOScheduler(stores=stores, timezone=UTC):
            await asyncio.to_thread(ready.wait)
            await asyncio.to_thread(ended.wait)
        answers.put(starts)

    asyncio.run(main())
