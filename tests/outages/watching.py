"""What a scheduler does while its server misbehaves: what was run, and how the loop fared."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from asyncz import NativeAsyncIOScheduler
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import STORE_DEGRADED, STORE_RECOVERED
from asyncz.stores.base import BaseStore
from asyncz.stores.memory import MemoryStore
from asyncz.tasks.base import Task
from asyncz.triggers import DateTrigger, IntervalTrigger

__all__ = ["OPTIONS", "PATIENCE", "Entry", "RunLog", "Watch", "note", "until", "watched"]

BEAT = 0.005
PATIENCE = 15.0
OTHER = 0.1
"""Seconds between the runs of the other store's task."""
STALL = 0.1
"""Seconds that the loop may stand still beyond what the machine itself does to every thread."""
OPTIONS: dict[str, Any] = {"store_timeout": 1.0, "shutdown_timeout": 5.0, "timezone": "UTC"}


async def note(path: str, word: str) -> None:
    """Append a line, in one go, so that nothing of it is lost with the process."""
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(number, f"{word} {time.monotonic()}\n".encode())
    os.close(number)


async def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Wait, within bounds, until a condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: that did not come about within {within} s")
        await asyncio.sleep(0.01)


class Entry(NamedTuple):
    """A run, and when it was, as `time.monotonic` has it."""

    word: str
    at: float


class RunLog:
    """The file that all runs are noted down in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """All of them, in order."""
        if not self.path.exists():
            return []
        lines = (line.split() for line in self.path.read_text().splitlines())
        return [Entry(word, float(at)) for word, at in lines]

    def count(self, prefix: str) -> Counter[str]:
        """How often each of the words that begin so is there."""
        return Counter(entry.word for entry in self.entries() if entry.word.startswith(prefix))

    def first_after(self, moment: float, *words: str) -> float | None:
        """When the first of these was noted down after a moment."""
        times = (e.at for e in self.entries() if e.at > moment and e.word.startswith(words))
        return min(times, default=None)


@dataclass
class Beats:
    """The longest time between two beats, beyond what it should be."""

    worst: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        now = time.monotonic()
        self.worst = max(self.worst, now - self.last - BEAT)
        self.last = now


class Watch:
    """A scheduler with the store in question and a healthy one, and what it has done.

    Args:
        scheduler: Its stores are `default`, the one in question, and `other`.
        log: Of its runs.
    """

    def __init__(self, scheduler: NativeAsyncIOScheduler, log: RunLog) -> None:
        self.scheduler = scheduler
        self.log = log
        self.events: list[int] = []
        self.loop, self.machine = Beats(), Beats()
        self.planned: list[str] = []
        scheduler.add_listener(self._hear, STORE_DEGRADED | STORE_RECOVERED)

    def _hear(self, event: SchedulerEvent) -> None:
        assert event.alias == "default"
        self.events.append(event.code)

    async def plan(self, count: int = 30, over: float = 1.5) -> None:
        """Add one-off tasks due within the next seconds, and one that comes again and again."""
        now, path = datetime.now(UTC), str(self.log.path)
        number = len(self.planned)
        self.planned += (words := [f"once-{number + i}" for i in range(count)])
        await self.scheduler.aadd_tasks(
            [
                Task(
                    note, id=word, args=[path, word],
                    trigger=DateTrigger(now + timedelta(seconds=0.1 + over * i / count)),
                )
                for i, word in enumerate(words)
            ]
        )  # fmt: skip
        if not number:
            await self._add_again("again", 0.2, "default")
            await self._add_again("other", OTHER, "other")

    async def _add_again(self, word: str, every: float, store: str) -> None:
        trigger = IntervalTrigger(seconds=every)
        args = [str(self.log.path), word]
        await self.scheduler.aadd_task(note, trigger, args=args, id=word, store=store)

    @property
    def has_run_all(self) -> bool:
        """Whether each of the one-off tasks has been run."""
        return len(self.log.count("once-")) == len(self.planned)

    def has_run(self, *words: str, after: float = 0.0) -> bool:
        """Whether one of them was run after a moment."""
        return self.log.first_after(after, *words) is not None

    async def degraded(self) -> dict[str, str]:
        """What the scheduler says of its stores."""
        return (await self.scheduler.aget_scheduler_info()).degraded

    async def finish(self) -> None:
        """Wait for all runs, and check that none was lost, made twice, or held up elsewhere."""
        await until(lambda: self.has_run_all, "all one-off tasks have run")
        moment = time.monotonic()
        await until(lambda: self.has_run("again", after=moment), "the interval task goes on")
        assert self.log.count("once-") == Counter(self.planned)
        self.check_the_rest()

    def check_the_rest(self) -> None:
        """The loop was not held up, and so the other store's task was not either."""
        # A processor that many want is not to be had at once, by whoever.
        crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        stall = STALL * crowd + self.machine.worst
        gap = max(self.gaps("other"), default=0.0)
        assert self.loop.worst < stall, f"the loop stood still for {self.loop.worst:.3f} s"
        assert gap < OTHER + 2 * stall, f"the other store was held up for {gap:.3f} s"

    def gaps(self, word: str) -> list[float]:
        """The seconds between the runs of a task."""
        times = [entry.at for entry in self.log.entries() if entry.word == word]
        return [later - sooner for sooner, later in pairwise(times)]


@asynccontextmanager
async def watched(store: BaseStore, path: Path, **options: Any) -> AsyncIterator[Watch]:
    """A scheduler that has started on that store and a healthy one."""
    stores = {"default": store, "other": MemoryStore()}
    scheduler = NativeAsyncIOScheduler(stores=stores, **{**OPTIONS, **options})
    watch = Watch(scheduler, RunLog(path / "runs"))
    await scheduler.start()
    ended = threading.Event()

    def beat_of_machine() -> None:
        while not ended.wait(BEAT):
            watch.machine.beat()

    async def beat_of_loop() -> None:
        while True:
            await asyncio.sleep(BEAT)
            watch.loop.beat()

    watch.loop, watch.machine = Beats(), Beats()
    thread = threading.Thread(target=beat_of_machine, daemon=True)
    thread.start()
    beating = asyncio.create_task(beat_of_loop())
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        beating.cancel()
        if scheduler.running:
            await scheduler.shutdown(wait=False)
