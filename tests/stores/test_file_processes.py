"""Several processes on the directory of one file store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from asyncz.file_lock import FileLock
from asyncz.stores.base import TaskAdvance
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import LOCK_NAME
from asyncz.testing.store_suite_tools import NOON, after, make_task

from .conftest import SetHost

PROCESSES = "pqr"
TASKS, STEPS = 5, 8


def start(directory: Path, name: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("sharing_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(directory), name, str(TASKS), str(STEPS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_together(directory: Path) -> list[str]:
    """The steps that the processes say they made, all in one list."""
    made: list[str] = []
    with ExitStack() as stack:
        processes = [stack.enter_context(start(directory, name)) for name in PROCESSES]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            made += output.splitlines()
    return made


async def test_each_step_is_made_by_one_process(directory: Path) -> None:
    made = Counter(run_together(directory))
    names = [f"{name}{number}" for name in PROCESSES for number in range(TASKS)]
    assert made == Counter(f"{name} {step}" for name in names for step in range(STEPS))
    store = FileStore(directory)
    await store.start(SetHost(), "after")
    tasks = await store.get_all_tasks()
    await store.shutdown()
    assert {task.id for task in tasks} == set(names)
    assert {task.next_run_time for task in tasks} == {after(STEPS)}


async def test_a_step_that_waited_for_another_process_too_long_is_known_to_be_made(
    directory: Path,
) -> None:
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    await store.add_task(make_task("one", NOON))
    step = TaskAdvance(make_task("one", NOON), NOON, after(1))

    with FileLock(directory / LOCK_NAME), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.advance_tasks([step])

    assert await store.advance_tasks([step]) == [True]
    assert await store.advance_tasks([step]) == [False]
    await store.shutdown()
