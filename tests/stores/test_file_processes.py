"""Several processes on the directory of one file store."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from asyncz.stores.file import FileStore
from asyncz.testing.store_suite_tools import after

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
