"""What goes wrong in a trial."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from .journal import read_tail
from .trial import Fault, Stage

__all__ = [
    "cut_connections",
    "drop_replies",
    "freeze_server",
    "kill_server",
    "kill_workers",
    "moments",
    "restart_workers",
    "run_old_release",
    "stop_workers",
]

A_WHILE = 0.5
"""Seconds after the first task was due, before which nothing goes wrong."""
LAST_START = 2.5
"""Seconds before the last is due that a worker may take to start."""


def kill_workers(number: int) -> Fault:
    """SIGKILL, so many times; another worker starts at once."""

    async def kill(stage: Stage) -> None:
        for moment in moments(stage, number):
            await stage.sleep_until(moment)
            stage.fleet.kill(stage.fleet.any())
            stage.fleet.start()

    return kill


def restart_workers(number: int, again: float | None = None) -> Fault:
    """SIGTERM, so many times; another worker starts at once, as in a rolling deployment.

    Args:
        number: How often.
        again: Seconds after which each that has not ended is told a second time.
    """

    async def restart(stage: Stage) -> None:
        endings: set[asyncio.Task[None]] = set()
        for moment in moments(stage, number):
            # One that starts when nothing is due any more has nothing to declare.
            await stage.sleep_until(min(moment, stage.ends - LAST_START))
            pid = stage.fleet.any()
            stage.fleet.start()
            endings.add(asyncio.create_task(stage.fleet.end([pid], within=8.0, again=again)))
        await asyncio.gather(*endings)

    return restart


def run_old_release(workers: int, kills: int) -> Fault:
    """Workers of the old release join; of all, some are killed and come back as they were."""

    async def run(stage: Stage) -> None:
        fleet = stage.fleet
        new, old = fleet.plan, fleet.plan._replace(is_old=True)
        fleet.plan = old
        old_ones = set(fleet.start(workers))
        for moment in moments(stage, kills):
            await stage.sleep_until(moment)
            victim = fleet.any()
            fleet.kill(victim)
            fleet.plan = old if victim in old_ones else new
            started = fleet.start()
            if victim in old_ones:
                old_ones.update(started)
        stage.old_ones = frozenset(old_ones)

    return run


def stop_workers(number: int, leases: float, one_by_one: bool = True) -> Fault:
    """SIGSTOP, for so many leases; then SIGCONT. Each is a worker that has just begun some runs.

    Args:
        number: How often.
        leases: For how long.
        one_by_one: Right after one another; otherwise at random moments, if that has gone on.
    """

    async def stop(stage: Stage) -> None:
        for moment in moments(stage, number):
            if one_by_one:
                await asyncio.sleep(A_WHILE + stage.random.random())
            else:
                await stage.sleep_until(moment)
            pid = await _busy_worker(stage)
            stage.fleet.stop(pid)
            await asyncio.sleep(leases * stage.trial.lease)
            stage.fleet.resume(pid)
            stage.marks[f"resumed {pid}"] = time.monotonic()

    return stop


def kill_server(number: int, down_for: float = 0.5) -> Fault:
    """SIGKILL to the server; it comes back after a moment."""

    async def kill(stage: Stage) -> None:
        for moment in moments(stage, number):
            await stage.sleep_until(moment)
            stage.place.kill()
            await asyncio.sleep(down_for)
            await asyncio.to_thread(stage.place.start)
            stage.marks["back"] = time.monotonic()

    return kill


def freeze_server(leases: float) -> Fault:
    """SIGSTOP to the server for so many leases; it holds its connections and says nothing."""

    async def freeze(stage: Stage) -> None:
        trial = stage.trial
        await stage.sleep_until(stage.ends - trial.seconds + trial.lease / 2)
        stage.place.freeze()
        stage.marks["frozen"] = time.monotonic()
        await asyncio.sleep(leases * trial.lease)
        stage.place.thaw()
        stage.marks["back"] = time.monotonic()

    return freeze


def drop_replies(share: float) -> Fault:
    """Lose this share of the replies of the server, each with its connection."""

    async def drop(stage: Stage) -> None:
        assert stage.proxy is not None
        stage.proxy.lose_one_in(round(1 / share))
        await stage.sleep_until(stage.ends)

    return drop


def cut_connections(number: int) -> Fault:
    """Cut all connections, so many times."""

    async def cut(stage: Stage) -> None:
        assert stage.proxy is not None
        for moment in moments(stage, number):
            await stage.sleep_until(moment)
            stage.proxy.hang_up()

    return cut


async def _busy_worker(stage: Stage) -> int:
    """A worker with runs that began a moment ago, or any if there is none for a second."""
    until = time.monotonic() + 1.0
    while (now := time.monotonic()) < until:
        entries = read_tail(Path(stage.fleet.plan.journal))[-50:]
        ended = {(e.task, e.fire, e.pid) for e in entries if e.word in "FX"}
        going = [e for e in entries if e.word == "S" and (e.task, e.fire, e.pid) not in ended]
        victims = stage.fleet.victims
        young = Counter(e.pid for e in going if e.at > now - 0.3 and e.pid in victims)
        for pid, number in young.most_common(1):
            if number > 1:
                return pid
        await asyncio.sleep(0.01)
    return stage.fleet.any()


def moments(stage: Stage, number: int) -> list[float]:
    """Random ones while tasks are due."""
    first = stage.ends - stage.trial.seconds + A_WHILE
    return sorted(stage.random.uniform(first, stage.ends) for _ in range(number))
