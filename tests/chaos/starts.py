"""Workers that all start at once on an empty store, and declare the same tasks."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any

from asyncz import NativeAsyncIOScheduler

from .places import Address, make_store
from .work import work

__all__ = ["start_together"]

PATIENCE = 60.0
TASKS = ("one", "two", "three", "four", "five")
DRIVERS = ["asyncpg", "asyncmy", "redis.asyncio", "motor.motor_asyncio"]


def start_together(address: Address, workers: int) -> list[str]:
    """Start so many workers at once, each in a process of its own, on an empty store.

    Returns:
        What went wrong, in words; nothing if all is well.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *DRIVERS])
    together, answers = context.Barrier(workers), context.Queue()
    given = (address, together, answers.put)
    started = [context.Process(target=_be_worker, args=given) for _ in range(workers)]
    for process in started:
        process.start()
    said = [answers.get(timeout=PATIENCE) for _ in started]
    for process in started:
        process.join(PATIENCE)
    wrong = [text for text in said if text]
    found = asyncio.run(_tasks_at(address))
    if found != sorted(TASKS):
        wrong.append(f"the store has {found}")
    return wrong


def _be_worker(address: Address, together: Barrier, answer: Callable[[str], Any]) -> None:
    try:
        scheduler = _scheduler(address)
        for name in TASKS:
            scheduler.add_task(work, "interval", hours=1, args=[name, 0.0], id=name)
        together.wait(PATIENCE)
        asyncio.run(_start_and_end(scheduler))
    except BaseException as exc:
        answer(repr(exc))
        raise
    answer("")


def _scheduler(address: Address) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(stores={"default": make_store(address)}, timezone="UTC")


async def _start_and_end(scheduler: NativeAsyncIOScheduler) -> None:
    await scheduler.start()
    await scheduler.shutdown()


async def _tasks_at(address: Address) -> list[str]:
    async with _scheduler(address) as scheduler:
        return sorted(str(info.id) for info in await scheduler.aget_task_infos())
