"""Faults of single workers that are waited for: deaths at a point, stops in a claim, long runs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path

from .faults import A_WHILE
from .journal import Entry, read_journal
from .points import AT_END, DECLARING, points_of
from .trial import Fault, Stage
from .worker import WorkerPlan

__all__ = ["die_at_points", "kill_busy_workers", "stop_in_claims"]

PATIENCE = 6.0
"""Seconds within which a worker comes to its point. One that does not is killed."""
A_LIFE = 0.6
"""Seconds after which a worker is told to end that dies by that."""
HURRY = 0.2
"""Seconds that its shutdown may take: less than runs do."""
LOOK_EVERY = 0.01
CLAIMS = 5
"""Claims of a worker until it stops in one."""


def die_at_points(at_once: int, points: Collection[str] = ()) -> Fault:
    """Workers die by themselves, each at the next point; another one starts at once.

    Args:
        at_once: How many there are of them, beside those that live on.
        points: Which; all by default.
    """
    wanted = points

    async def die(stage: Stage) -> None:
        fleet, points = stage.fleet, deque(wanted or points_of(stage.place.kind))
        mortal: dict[int, tuple[str, float]] = {}
        told: set[int] = set()
        await stage.sleep_until(stage.ends - stage.trial.seconds)
        while (now := time.monotonic()) < stage.ends:
            fleet.notice_ended()
            for pid in [pid for pid in mortal if pid not in fleet.alive]:
                point, _ = mortal.pop(pid)
                if fleet.fates.codes.get(pid) != -signal.SIGKILL:
                    points.remove(point)  # it had nothing to ask for; perhaps the next has
                    points.appendleft(point)
            while len(mortal) < at_once:
                (pid,) = fleet.start(plan=_mortal(stage, points[0]))
                mortal[pid] = (points[0], now)
                points.rotate(-1)
            _hurry(stage, mortal, told, now)
            await asyncio.sleep(LOOK_EVERY)
        for pid in mortal:
            if pid in fleet.alive:
                fleet.kill(pid)

    return die


def _hurry(stage: Stage, mortal: dict[int, tuple[str, float]], told: set[int], now: float) -> None:
    """Tell those to end that die by that, and kill those that do not die."""
    for pid, (point, since) in mortal.items():
        if pid not in stage.fleet.alive:
            continue
        if now - since > PATIENCE:
            stage.fleet.kill(pid)
        elif point.partition(":")[0] in AT_END and now - since > A_LIFE and pid not in told:
            stage.fleet.tell_to_end(pid)
            told.add(pid)


def _mortal(stage: Stage, point: str) -> WorkerPlan:
    plan = stage.fleet.plan._replace(dies_at=point, shutdown_timeout=HURRY)
    if point.partition(":")[0] in DECLARING:
        plan = plan._replace(declared=tuple(stage.tasks[:4]))
    return plan


def stop_in_claims(seconds: float) -> Fault:
    """A worker stops itself within a claim, before that is committed, and goes on much later."""

    async def stop(stage: Stage) -> None:
        fleet = stage.fleet
        await stage.sleep_until(stage.ends - stage.trial.seconds + A_WHILE)
        (pid,) = fleet.start(plan=fleet.plan._replace(stops_in=CLAIMS))
        while not (held := [e for e in _journal(stage) if e.word == "Z"]):
            await asyncio.sleep(LOOK_EVERY)
        fleet.has_stopped(pid, held[0].at)
        stage.marks["stopped"] = held[0].at
        await asyncio.sleep(seconds)
        fleet.resume(pid)
        stage.marks["resumed"] = time.monotonic()

    return stop


def kill_busy_workers(number: int, runs: int) -> Fault:
    """SIGKILL to a worker with so many runs; the next when all of them were started again."""

    async def kill(stage: Stage) -> None:
        fleet = stage.fleet
        for _ in range(number):
            while not (found := _with_runs(stage, runs)):
                if time.monotonic() > stage.ends:
                    return
                await asyncio.sleep(0.2)
            pid, cut_off = found
            fleet.kill(pid)
            fleet.start()
            killed = fleet.fates.killed[pid]
            latest = killed + 1.5 * stage.trial.lease  # one that is abandoned is not started again
            while cut_off - _started_since(stage, killed) and time.monotonic() < latest:
                await asyncio.sleep(0.2)

    return kill


def _with_runs(stage: Stage, number: int) -> tuple[int, set[tuple[str, int]]] | None:
    """The worker in which most runs go on that nobody else had before, if they are so many."""
    going: dict[int, set[tuple[str, int]]] = {pid: set() for pid in stage.fleet.victims}
    seen: set[tuple[str, int]] = set()
    for entry in _journal(stage):
        run = (entry.task, entry.fire)
        if entry.word != "S":
            going.get(entry.pid, set()).discard(run)
        elif entry.pid in going and run not in seen:
            going[entry.pid].add(run)
        seen.add(run)
    pid = max(going, key=lambda pid: len(going[pid]))
    return (pid, going[pid]) if len(going[pid]) >= number else None


def _started_since(stage: Stage, moment: float) -> set[tuple[str, int]]:
    return {(e.task, e.fire) for e in _journal(stage) if e.word == "S" and e.at > moment}


def _journal(stage: Stage) -> list[Entry]:
    return read_journal(Path(stage.fleet.plan.journal))
