"""What the tasks of these tests do. A persistent store finds them here by their names."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from threading import Event, current_thread
from typing import Any

from asyncz import RetryAfter, Run, Skip, current_run
from asyncz.testing import VirtualClock

__all__ = ["ATTEMPTS", "KEYS", "REACTIONS", "forget"]

ATTEMPTS: Counter[str] = Counter()
KEYS: list[tuple[str, int, str]] = []
"""Of each call: the task, the attempt, and the key for services that do a thing once."""
FENCES: list[int] = []
"""Of each call."""
REACTIONS: list[tuple[str, Run]] = []
CLOCKS: list[VirtualClock] = []
LET_GO = Event()
HAS_ASKED = Event()


def forget(clock: VirtualClock) -> None:
    """Begin anew, on this clock."""
    ATTEMPTS.clear()
    KEYS.clear()
    FENCES.clear()
    REACTIONS.clear()
    CLOCKS[:] = [clock]
    LET_GO.clear()
    HAS_ASKED.clear()


def note() -> int:
    """Which call of this task it is, by what is counted here."""
    run = current_run()
    ATTEMPTS[run.task_id] += 1
    KEYS.append((run.task_id, run.attempt, run.idempotency_key))
    FENCES.append(run.fence)
    return ATTEMPTS[run.task_id]


def note_only() -> int:
    """Which call of the task `a` it is, without asking the run."""
    ATTEMPTS["a"] += 1
    return ATTEMPTS["a"]


async def fails(times: int) -> str:
    """Fails so often, then goes well."""
    if note() <= times:
        raise ConnectionError("on purpose")
    return "done"


def fails_in_a_thread(times: int) -> str:
    """Likewise."""
    if note() <= times:
        raise ConnectionError("on purpose")
    return "done"


async def refuses() -> None:
    """Fails for another reason."""
    note()
    raise ValueError("on purpose")


async def asks(times: int, seconds: float) -> None:
    """Asks to be tried again so often."""
    if note() <= times:
        raise RetryAfter(seconds, "not ready yet")


async def skips() -> None:
    """Has nothing to do."""
    note()
    raise Skip("nothing there")


class Wordless(Exception):
    """Whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unmade(Skip):
    """Derived by somebody who has forgotten half of it."""

    def __init__(self) -> None:
        """Without a reason."""


async def fails_badly(how: str) -> None:
    """In ways that nobody expects."""
    note()
    if how == "skip":
        raise Skip(ValueError("nothing to do"))
    if how == "again":
        raise RetryAfter(1, ConnectionError("not yet"))
    raise {"wordless": Wordless, "unmade": Unmade}.get(how, Skip)(*([Wordless()] * (how == "both")))


async def takes(seconds: float) -> str:
    """Takes so long by the clock of the test."""
    note()
    await CLOCKS[0].sleep(seconds)
    return "done"


async def never_ends() -> None:
    """Until it is cut off."""
    note()
    await asyncio.Event().wait()


async def swallows(times: int) -> str:
    """Does not listen when it is cancelled, so often."""
    note()
    for _ in range(times):
        try:
            await CLOCKS[0].sleep(100)
        except asyncio.CancelledError:
            continue
    return "late"


async def cleans_up(seconds: float) -> None:
    """Once it is cancelled, it takes so long to end."""
    note()
    try:
        await asyncio.Event().wait()
    finally:
        await CLOCKS[0].sleep(seconds)


async def fails_to_clean_up() -> None:
    """Once it is cancelled, it fails for another reason."""
    note()
    try:
        await asyncio.Event().wait()
    finally:
        raise KeyError("on purpose")


async def holds_on_once() -> None:
    """The first call never ends; the others do at once."""
    if note() == 1:
        await asyncio.Event().wait()


async def holds_on_and_fails() -> None:
    """The first call never ends; the third fails, which is one that waited behind another."""
    number = note()
    if number == 1:
        await asyncio.Event().wait()
    if number == 3:
        raise ConnectionError("on purpose")


def blocks() -> None:
    """A thread that waits until the test lets it go."""
    note()
    LET_GO.wait(20)


def sleeps(seconds: float) -> int:
    """By the clock of the machine."""
    time.sleep(seconds)
    return current_run().attempt


def asks_late() -> None:
    """A thread that asks who it is when it is let go, and then is not waited for any more."""
    ATTEMPTS["late"] += 1
    if ATTEMPTS["late"] == 1:
        LET_GO.wait(20)
        KEYS.append(("late", current_run().attempt, ""))
        FENCES.append(current_run().fence)
        HAS_ASKED.set()


async def says() -> None:
    """Says how far it is, and waits for a while."""
    run = current_run()
    run.progress(0.4, "page 3 of 7")
    run.log("first")
    run.log("second")
    await CLOCKS[0].sleep(10)
    run.progress(1)


async def says_much(times: int) -> None:
    """Says something five times a second."""
    for number in range(times):
        current_run().progress((number + 1) / times)
        current_run().log(str(number))
        await CLOCKS[0].sleep(0.2)


class Odd(LookupError):
    """An exception that does not come back from a process."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first}{second}")


def fails_oddly() -> None:
    """Which only its name is known of elsewhere."""
    raise Odd(1, 2)


def says_in_a_process() -> str:
    """What it says comes back with its outcome."""
    run = current_run()
    run.progress(0.5)
    run.log("from there")
    return f"{run.task_id} {run.attempt} {run.fence} {run.idempotency_key}"


async def returns(value: Any) -> Any:
    """Returns what it is given."""
    return value


async def returns_what_is_changed_afterwards() -> Any:
    """Returns an object that another part of the app goes on to use."""
    shared: dict[str, Any] = {"pages": 1}
    asyncio.get_running_loop().call_soon(shared.__setitem__, "client", object())
    return shared


async def returns_a_set() -> Any:
    """Nothing that JSON has."""
    return {1}


async def notice(run: Run) -> None:
    """A coroutine function that is called when a run has ended."""
    REACTIONS.append(("coroutine", run))


def notice_in_a_thread(run: Run) -> None:
    """A plain one."""
    REACTIONS.append(("thread", run))


def notice_and_fail(run: Run) -> None:
    """One that fails."""
    REACTIONS.append(("failing", run))
    raise ValueError("on purpose")


async def notice_and_exit(run: Run) -> None:
    """One that wants to end the app."""
    REACTIONS.append(("exit", run))
    sys.exit(7)


def notice_and_exit_in_a_thread(run: Run) -> None:
    """Likewise."""
    REACTIONS.append(("exit", run))
    sys.exit(7)


def notice_and_stop_in_a_thread(run: Run) -> None:
    """With what no future takes."""
    REACTIONS.append(("stop", run))
    raise StopIteration


def notice_where(run: Run) -> None:
    """Tells the thread."""
    here = current_thread()
    REACTIONS.append((f"{here.name} {here.daemon}", run))


async def takes_and_fails(seconds: float) -> None:
    """Fails after so long by the clock of the test."""
    note()
    await CLOCKS[0].sleep(seconds)
    raise ConnectionError("on purpose")
