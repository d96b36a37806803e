"""A process that forks writers and has them killed; run by test_file_crashes.py.

usage: crashing_writer.py points DIRECTORY    a writer each, killed at its n-th call of the system
       crashing_writer.py runs DIRECTORY      likewise, but they claim runs, and end them
       crashing_writer.py attempts DIRECTORY  likewise, but their runs fail and are tried again
       crashing_writer.py random DIRECTORY    writers killed at some time, on one directory

Forked from here, where everything is imported already, a writer starts within milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.stores.base import TaskAdvance
from asyncz.stores.cluster import Fired, Firing, Node, RunEnd, RunOutcome, RunRef
from asyncz.stores.file import FileStore
from asyncz.stores.file_index import name_of
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task

CALLS = ("open", "fsync", "replace", "link", "unlink", "write", "close", "mkdir", "ftruncate")
DONE = "done"
SCHEDULED = RunKind.SCHEDULED
EARLIER = datetime(2020, 1, 1, tzinfo=UTC)
"""By the clock of the machine, which the writers go by."""
LATER = {"last": None, "often": after(60), "once": after(60)}
"""The tasks whose runs are claimed, and when they are due then."""
OPTIONS: dict[str, dict[str, Any]] = {
    "last": {},
    "often": {},
    "once": {"delivery": Delivery.AT_MOST_ONCE},
}


async def write(store: FileStore, acknowledge: Callable[[], None]) -> None:
    """One change after another; each is acknowledged once the store has answered."""
    await store.add_task(make_task("a", args=("first",)))
    acknowledge()
    await store.add_task(make_task("b", after(1)))
    acknowledge()
    await store.update_task(make_task("a", args=("second",)))
    acknowledge()
    (task,) = await store.get_due_tasks(NOON)
    await store.advance_tasks([TaskAdvance(task, NOON, after(60))])
    acknowledge()
    await store.update_task(make_task("spoilt", after(3)))
    acknowledge()
    await store.delete_task("b")
    acknowledge()


async def claim(store: FileStore, acknowledge: Callable[[], None]) -> None:
    """Join, claim, start and end; likewise."""
    await store.join_node(Node("crashing", "", "", 1), 30)
    acknowledge()
    firings = [
        Firing(task, NOON, LATER[str(task.id)], task.id == "last", SCHEDULED, (NOON,))
        for task in await store.get_due_tasks(NOON)
    ]
    assert set(await store.fire("crashing", "claim", firings)) == {Fired.WON}
    acknowledge()
    refs = [RunRef(str(task.id), SCHEDULED, NOON, 1) for task, *_ in firings]
    assert await store.start_runs("crashing", refs) == [True] * 3
    acknowledge()
    ends = [RunEnd(ref, (RunOutcome(NOON, RunState.SUCCEEDED),)) for ref in refs]
    assert await store.finish_runs("crashing", ends) == [True] * 3
    acknowledge()


async def attempt(store: FileStore, acknowledge: Callable[[], None]) -> None:
    """Claim, note, fail, cancel, try again, end and prune; likewise."""
    await store.join_node(Node("crashing", "", "", 1), 30)
    firings = [
        Firing(task, NOON, LATER[str(task.id)], task.id == "last", SCHEDULED, (NOON,))
        for task in await store.get_due_tasks(NOON)
    ]
    assert set(await store.fire("crashing", "claim", firings)) == {Fired.WON}
    refs = {str(task.id): RunRef(str(task.id), SCHEDULED, NOON, 1) for task, *_ in firings}
    assert await store.start_runs("crashing", [refs["once"]]) == [True]
    acknowledge()
    assert await store.note_runs("crashing", [(refs["last"], {"message": "noted"})]) == [True]
    acknowledge()
    failed = RunOutcome(NOON, RunState.RETRYING, "ValueError", retry_at=EARLIER)
    ends = [RunEnd(ref, (failed,)) for ref in refs.values()]
    assert await store.finish_runs("crashing", ends) == [True] * 3
    acknowledge()
    assert await store.cancel_run("often", NOON, "ann") is RunState.CANCELLED
    acknowledge()
    taken, _, _ = await store.attend("crashing")
    assert len(taken) == 2
    acknowledge()
    assert await store.cancel_run("last", NOON, "ann") is RunState.RUNNING
    acknowledge()
    settled = frozenset({RunState.CANCELLED})
    assert await store.prune_runs("often", settled, 0, NOON) == 1
    acknowledge()


def write_and_die(
    directory: Path,
    point: int,
    change: Callable[[FileStore, Callable[[], None]], Awaitable[None]],
) -> None:
    """Make the changes, and be killed right after the call of that number, if it comes."""
    directory.mkdir()
    (directory / name_of("spoilt", ".task")).write_text("kept")
    acknowledged = os.open(directory.with_suffix(".log"), os.O_CREAT | os.O_WRONLY)
    real_write = os.write
    left = [point]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    async def main() -> None:
        store = FileStore(directory)
        await store.start(SuiteHost(), "crashing")
        if change is not write:
            await store.add_tasks([make_task(name, **OPTIONS[name]) for name in LATER])
        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        await change(store, lambda: void(real_write(acknowledged, b".")))
        real_write(acknowledged, DONE.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())


def void(result: object) -> None:
    """Nothing."""


def write_for_ever(directory: Path, number: int) -> None:
    """Add and update tasks whose arguments tell a whole record from a part of one."""

    async def main() -> None:
        store = FileStore(directory)
        await store.start(SuiteHost(), "crashing")
        draw = random.Random(number)
        while True:
            size = draw.choice([1, 10_000, 200_000])
            task = make_task(f"t{draw.randrange(10)}", args=(size, "x" * size))
            if await store.lookup_task(str(task.id)) is None:
                await store.add_task(task)
            else:
                await store.update_task(task)

    asyncio.run(main())


def fork(work: Callable[[], None]) -> int:
    """The id of a child that does this."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(1)


def kill_at_points(
    directory: Path,
    change: Callable[[FileStore, Callable[[], None]], Awaitable[None]] = write,
) -> None:
    """Until a writer comes to its end."""
    for point in range(1, 500):
        here = directory / f"point{point}"
        child = fork(lambda here=here, point=point: write_and_die(here, point, change))  # type: ignore[misc]
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            sys.exit(f"the writer of {here} failed")
        if here.with_suffix(".log").read_text().endswith(DONE):
            return
    sys.exit("no writer came to its end")


def kill_at_random(directory: Path, rounds: int = 40) -> None:
    """Two writers at a time, one killed while the other goes on."""
    draw = random.Random(11)
    alive = [fork(lambda: write_for_ever(directory, 0))]
    for number in range(1, rounds):
        alive.append(fork(lambda number=number: write_for_ever(directory, number)))  # type: ignore[misc]
        time.sleep(draw.uniform(0.005, 0.05))
        victim = alive.pop(0)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
    os.kill(alive[0], signal.SIGKILL)
    os.waitpid(alive[0], 0)


if __name__ == "__main__":
    kinds: dict[str, Callable[[Path], None]] = {
        "points": kill_at_points,
        "runs": lambda directory: kill_at_points(directory, claim),
        "attempts": lambda directory: kill_at_points(directory, attempt),
        "random": kill_at_random,
    }
    kinds[sys.argv[1]](Path(sys.argv[2]))
