"""A worker: a process with a scheduler on the store of the trial, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic, time
from typing import NamedTuple
from uuid import uuid4

from asyncz import History, NativeAsyncIOScheduler
from asyncz.clock import SystemClock
from asyncz.enums import RunState
from asyncz.exceptions import AsynczException
from asyncz.schedulers import nodes
from asyncz.tasks.base import Task
from asyncz.triggers import IntervalTrigger

from .journal import Journal
from .places import Address, make_store
from .points import die_at, stop_in_claim
from .work import NewTrigger, forget_the_new, new_work, open_journal, work

__all__ = ["CUT_OFF", "TaskPlan", "WorkerPlan", "make_scheduler", "make_task", "run_worker"]

JUMPS = (0.0, 3_600.0, -3_600.0, 86_400.0, -86_400.0, 90.0)
JUMP_EVERY = 0.7
MICROSECONDS = 1e6
CUT_OFF = 3
"""The exit code of a worker that was told twice to end."""


class TaskPlan(NamedTuple):
    """A task that is due every second, from one instant to another one.

    What `is_new` is only in the new release of the app, and so is its type of trigger.
    """

    id: str
    first: int
    last: int
    longest: float
    delivery: str = "at_least_once"
    coalesce: bool = True
    max_instances: int = 1
    block: float = 0.0
    hold: float = 0.0
    grace: float | None = 120.0
    is_new: bool = False


class WorkerPlan(NamedTuple):
    """What a worker is to do.

    Args:
        address: Of its store.
        journal: The file to note down in what its tasks do.
        declared: Tasks that it declares at its start, as apps do.
        by_hand: Tasks that it runs by hand, again and again.
        lease, poll_interval, store_timeout, shutdown_timeout: The options of its scheduler.
        jumps: Whether its wall clock jumps to and fro.
        skew: By how many seconds its wall clock is wrong, all the time.
        hands_off: When it runs nothing by hand any more, as `time.monotonic` has it.
        is_old: Whether it is of the old release of the app.
        cancels: A task of whose runs it cancels one now and then.
        is_apart: Whether it is as on a machine of its own, from where nobody's process is seen.
        dies_at: One of `POINTS`, at which it kills itself.
        stops_in: In which of its claims it stops itself, before that is committed.
    """

    address: Address
    journal: str
    declared: tuple[TaskPlan, ...] = ()
    by_hand: tuple[str, ...] = ()
    lease: float = 2.0
    poll_interval: float = 0.1
    store_timeout: float = 1.0
    shutdown_timeout: float = 5.0
    jumps: bool = False
    skew: float = 0.0
    hands_off: float = 1e12
    is_old: bool = False
    cancels: str = ""
    is_apart: bool = False
    dies_at: str = ""
    stops_in: int = 0


def make_scheduler(plan: WorkerPlan) -> NativeAsyncIOScheduler:
    """A scheduler on the store, not started."""
    return NativeAsyncIOScheduler(
        stores={"default": make_store(plan.address)},
        timezone="UTC",
        lease=plan.lease,
        poll_interval=plan.poll_interval,
        store_timeout=plan.store_timeout,
        startup_timeout=30.0,
        shutdown_timeout=plan.shutdown_timeout,
        history=History(count=1_000_000),  # each run is accounted for in the end
        triggers={} if plan.is_old else {NewTrigger.alias: NewTrigger},
    )


def make_task(plan: TaskPlan) -> Task:
    """The task."""
    first, last = (datetime.fromtimestamp(at / MICROSECONDS, UTC) for at in (plan.first, plan.last))
    trigger = NewTrigger if plan.is_new else IntervalTrigger
    return Task(
        new_work if plan.is_new else work,
        id=plan.id,
        args=[plan.id, plan.longest, plan.block, plan.hold],
        trigger=trigger(seconds=1, start_at=first, end_at=last),
        mistrigger_grace_time=plan.grace,
        delivery=plan.delivery,
        coalesce=plan.coalesce,
        max_instances=plan.max_instances,
    )


def run_worker(plan: WorkerPlan) -> int:
    """Work until SIGTERM. Returns the exit code of the process."""
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format=f"%(relativeCreated)d {os.getpid()} %(levelname)s %(name)s %(message)s",
    )
    random.seed()
    open_journal(plan.journal)
    if plan.is_old:
        forget_the_new()
    if plan.jumps:
        _let_the_clock_jump()
    if plan.skew:
        _set_the_clock(plan.skew)
    if plan.is_apart:
        _be_elsewhere()
    if plan.dies_at:
        die_at(plan.dies_at, type(make_store(plan.address)), Journal(plan.journal))
    if plan.stops_in:
        stop_in_claim(plan.stops_in, Journal(plan.journal))
    try:
        asyncio.run(_work_until_told(plan))
    except asyncio.CancelledError:
        return CUT_OFF
    return 0


def _let_the_clock_jump() -> None:
    """The wall clock of this process only, as for somebody whose administrator sets it."""
    start = random.random() * len(JUMPS)

    def now(self: SystemClock) -> datetime:
        jump = JUMPS[int(start + monotonic() / JUMP_EVERY) % len(JUMPS)]
        return datetime.fromtimestamp(time(), UTC) + timedelta(seconds=jump)

    SystemClock.now = now  # type: ignore[method-assign]  # of the whole process, as the real one


def _set_the_clock(skew: float) -> None:
    """The wall clock of this process only, as on a machine whose clock nobody has ever set."""

    def now(self: SystemClock) -> datetime:
        return datetime.fromtimestamp(time() + skew, UTC)

    SystemClock.now = now  # type: ignore[method-assign]  # of the whole process, as the real one


def _be_elsewhere() -> None:
    """Whether a process has ended cannot be seen: only its lease tells."""
    here = uuid4().hex[:8]
    nodes._place = lambda: here  # type: ignore[assignment]


async def _work_until_told(plan: WorkerPlan) -> None:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    scheduler = make_scheduler(plan)
    for task in plan.declared:
        scheduler.add_task(make_task(task), replace_existing=True)
    await scheduler.start()
    hands = [
        asyncio.create_task(_run_by_hand(scheduler, name, plan.hands_off), name=f"by hand {name}")
        for name in plan.by_hand
    ]
    if plan.cancels:
        hands.append(asyncio.create_task(_cancel_some(scheduler, plan.cancels), name="cancels"))
    await told.wait()
    this = asyncio.current_task()
    assert this is not None
    # Who is told a second time is done waiting, as a server that is stopped by force.
    loop.add_signal_handler(signal.SIGTERM, this.cancel)
    await _end(hands)
    await scheduler.shutdown()


async def _run_by_hand(scheduler: NativeAsyncIOScheduler, name: str, until: float) -> None:
    while monotonic() < until:
        with suppress(AsynczException):
            await scheduler.arun_task(name, force=True)
        await asyncio.sleep(0.02 * random.random())


async def _cancel_some(scheduler: NativeAsyncIOScheduler, name: str) -> None:
    while True:
        with suppress(AsynczException):
            for run in await scheduler.aget_runs(name, state=RunState.RUNNING, limit=1):
                await scheduler.acancel_run(run.id)
        await asyncio.sleep(random.random())


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
