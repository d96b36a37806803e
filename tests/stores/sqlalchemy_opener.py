"""A process that opens a store at the same moment as others do, and adds a task."""

from __future__ import annotations

import asyncio
import sys

from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing.store_suite_tools import SuiteHost, make_task


async def main(url: str, name: str) -> None:
    store = SQLAlchemyStore(url)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await store.start(SuiteHost(), "tasks")
    await store.add_task(make_task(name))
    await store.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
