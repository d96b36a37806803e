"""What else is to be known of a trial: how much memory, how late, how long a row stood still."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import linear_regression
from typing import Any

from asyncz.enums import RunState
from asyncz.exceptions import AsynczException

from .checker import quantile
from .evidence import Evidence
from .points import points_of
from .trial import Stage, watcher

__all__ = [
    "measure_held_claim",
    "measure_points",
    "measure_soak",
    "watch_memory",
    "watch_rows",
]

MEBIBYTE = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
WARM_UP = 0.25
"""The part of a trial in which a worker still takes memory that it will keep."""
GOING = [RunState.CLAIMED, RunState.RUNNING]
LOOK_EVERY = 0.5
MANY = 10_000


async def watch_memory(stage: Stage) -> None:
    """Note down the resident memory of a worker that is spared, every second."""
    (pid,) = stage.fleet.spared
    samples = stage.samples.setdefault("resident", [])
    while (now := time.monotonic()) < stage.ends:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        samples.append((now, pages * PAGE / MEBIBYTE))
        await asyncio.sleep(1.0)


async def watch_rows(stage: Stage) -> None:
    """Note down for how long rows of runs that go on were the same."""
    samples = stage.samples.setdefault("unchanged", [])
    seen: dict[Any, float] = {}
    async with watcher(stage.direct) as scheduler:
        while (now := time.monotonic()) < stage.ends:
            with suppress(AsynczException):  # the server is down
                found = await scheduler.aget_runs(state=GOING, limit=MANY)
                names = {(r.task_id, r.scheduled_time, r.kind, r.token, r.state) for r in found}
                seen = {name: seen.get(name, now) for name in names}
                samples.append((now, now - min(seen.values(), default=now)))
            await asyncio.sleep(LOOK_EVERY)


def measure_soak(stage: Stage, evidence: Evidence) -> dict[str, float]:
    """How fast a worker grows, and for how long a row was the same at most."""
    resident = stage.samples["resident"]
    steady = resident[int(WARM_UP * len(resident)) :]
    slope = linear_regression(*zip(*steady, strict=True)).slope if len(steady) > 1 else 0.0
    return {
        "resident MiB": steady[-1][1],
        "MiB more in 10 min": 600 * slope,
        "a row unchanged for s": max((age for _, age in stage.samples["unchanged"]), default=0.0),
        "replies lost": stage.proxy.lost if stage.proxy is not None else 0,
    }


def measure_points(stage: Stage, evidence: Evidence) -> dict[str, float]:
    """At how many points workers died, and at how many none did."""
    reached = [entry.task for entry in evidence.journal if entry.word == "K"]
    points = points_of(stage.place.kind)
    return {
        "deaths": len(reached),
        "points": len(points),
        "not reached": len({*points} - {*reached}),
    }


def measure_held_claim(stage: Stage, evidence: Evidence) -> dict[str, float]:
    """After how long the tasks of a claim that a worker stopped in were run elsewhere, and how
    late the others were meanwhile."""
    stopped, resumed = stage.marks["stopped"], stage.marks["resumed"]
    held = {entry.task for entry in evidence.journal if entry.word == "Z"}
    first: dict[tuple[str, int], float] = {}
    again: dict[str, float] = {}
    for entry in sorted(evidence.journal, key=lambda entry: entry.at):
        if entry.word == "S":
            first.setdefault((entry.task, entry.fire), entry.at)
            if entry.task in held and stopped < entry.at < resumed:
                again.setdefault(entry.task, entry.at - stopped)
    late: dict[bool, list[float]] = {True: [], False: []}
    for (task, fire), at in first.items():
        if task not in held:
            late[stopped < at < resumed].append(at - (fire / 1e6 + evidence.offset))
    return {
        "held tasks": len(held),
        "of these run elsewhere": len(again),
        "after s": max(again.values(), default=float("inf")),
        "others started": len(late[True]),
        "others late p99 ms": 1000 * quantile(sorted(late[True]), 0.99),
        "at other times p99 ms": 1000 * quantile(sorted(late[False]), 0.99),
    }
