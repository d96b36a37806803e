"""A process that may write files up to a size only, and goes on when it may write more again.

python -m tests.outages.filling_process file|sqlite DIRECTORY
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys

from asyncz.exceptions import StoreError
from asyncz.stores.file import FileStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite_tools import NOON, SuiteHost, make_task

SIZE = 400_000
UNLIMITED = resource.RLIM_INFINITY


async def fill(kind: str, directory: str) -> None:
    """Add until the system refuses to write, then go on with more room."""
    store = (
        FileStore(f"{directory}/tasks")
        if kind == "file"
        else SQLAlchemyStore(f"sqlite:///{directory}/tasks.db")
    )
    await store.start(SuiteHost(), "full")
    await store.add_task(make_task("first"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, UNLIMITED))
    added, error = ["first"], None
    for number in range(50):
        try:
            await store.add_task(make_task(f"t{number}", args=("x" * 9_000 * (number + 1),)))
        except StoreError as exc:
            error = exc
            break
        added.append(f"t{number}")
    assert error is not None, "everything could be written"
    assert "'full'" in str(error), error
    found = sorted(str(task.id) for task in await store.get_due_tasks(NOON))
    assert found == sorted(added), "what was there is there, and what was refused is not"
    resource.setrlimit(resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
    await store.add_task(make_task("last", args=("x" * SIZE,)))
    assert len(await store.get_all_tasks()) == len(added) + 1
    assert await store.get_quarantined_tasks() == []
    await store.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(sys.argv[1], sys.argv[2]))
    print("well")
