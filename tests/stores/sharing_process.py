"""One of several processes on one directory; run by test_file_processes.py.

usage: sharing_process.py DIRECTORY NAME TASKS STEPS

Adds tasks of its own, waits for a line, then steps every due task it sees until all have made
that many steps, and prints the steps that it made, one `task step` a line.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from asyncz.stores.base import TaskAdvance
from asyncz.stores.file import FileStore
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task


async def main(directory: Path, name: str, tasks: int, steps: int) -> None:
    store = FileStore(directory)
    await store.start(SuiteHost(), name)
    for number in range(tasks):
        await store.add_task(make_task(f"{name}{number}"))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while due := await store.get_due_tasks(after(steps - 1), limit=5):
        advances = [
            TaskAdvance(task, task.next_run_time, task.next_run_time + timedelta(seconds=1))
            for task in due
            if task.next_run_time is not None
        ]
        for (task, moment, _), won in zip(
            advances, await store.advance_tasks(advances), strict=True
        ):
            if won:
                print(task.id, int((moment - NOON).total_seconds()), flush=True)
    await store.shutdown()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
