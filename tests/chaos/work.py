"""What the workers' tasks do: say that they begin, take a while, say that they end."""

from __future__ import annotations

import asyncio
import ctypes
import time
from datetime import datetime
from random import randint, random
from typing import ClassVar

from asyncz import current_run
from asyncz.triggers import IntervalTrigger

from .journal import Journal

__all__ = ["NewTrigger", "forget_the_new", "new_work", "open_journal", "talk", "work"]

BLOCKED_SHARE = 0.02
"""Of the runs that block the loop, if any do."""
HELD_EVERY = 50
"""Of so many runs of a process one holds the interpreter, if any do."""
HELD_UP = 3.0
"""Seconds by which a run may take longer because the machine is busy."""


class NewTrigger(IntervalTrigger):
    """A type of trigger that only the new release of the app has."""

    alias: ClassVar[str] = "new"


_journals: list[Journal] = []
_to_hold: list[int] = [0]
"""How many runs of this process begin before one holds the interpreter."""


def open_journal(path: str) -> None:
    """Note down in this file what the tasks of this process do."""
    _journals[:] = [Journal(path)]
    _to_hold[:] = [randint(3, HELD_EVERY)]


async def work(task: str, longest: float, block: float = 0.0, hold: float = 0.0) -> None:
    """A task.

    Args:
        task: Its id.
        longest: Seconds that it takes at most; how many is random.
        block: Seconds for which it blocks the event loop, now and then.
        hold: Seconds for which it holds the interpreter, with all threads of it, now and then.

    Raises:
        TimeoutError: Its process stood still meanwhile: it held the interpreter, or it took so
            much longer that it must have been stopped.
    """
    journal, fire, began = _journals[0], _run_time(), time.monotonic()
    journal.note("S", task, fire)
    holds = bool(hold) and _is_to_hold()
    try:
        if block and random() < BLOCKED_SHARE:
            time.sleep(block)
        if holds:
            _hold(hold, journal, task, fire)
        await asyncio.sleep(longest * random())
    except asyncio.CancelledError:
        journal.note("X", task, fire)
        raise
    journal.note("F", task, fire)
    if holds or time.monotonic() - began > longest + block + HELD_UP:
        # In the ledger it shows who has said how the run ended.
        raise TimeoutError("this process stood still meanwhile")


async def new_work(task: str, longest: float, block: float = 0.0, hold: float = 0.0) -> None:
    """The same, which only the new release of the app has."""
    await work(task, longest, block, hold)


async def talk() -> None:
    """Say how far it is, and fail the first time; nobody keeps accounts of it."""
    run = current_run()
    run.progress(0.5)
    await asyncio.sleep(0.2 * random())
    if run.attempt == 1:
        raise RuntimeError("the first time it fails")


def forget_the_new() -> None:
    """Be the old release of the app, in this process."""
    del globals()["new_work"]


def _is_to_hold() -> bool:
    _to_hold[0] -= 1
    if _to_hold[0] > 0:
        return False
    _to_hold[0] = HELD_EVERY
    return True


def _hold(seconds: float, journal: Journal, task: str, fire: datetime) -> None:
    """As code in C does that does not let other threads run."""
    journal.note("H", task, fire)
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))
    journal.note("R", task, fire)


def _run_time() -> datetime:
    """The one that this call is for. Those of a backlog are carried out one after the other."""
    return current_run().scheduled_time
