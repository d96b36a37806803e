"""What takes the place of a server for stores without one: a lock that is held, a disk."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from asyncz.events.constants import STORE_RECOVERED
from asyncz.file_lock import FileLock
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import LOCK_NAME
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.outages.watching import Watch, until, watched


async def test_a_sqlite_database_that_somebody_has_locked_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    store = SQLAlchemyStore(f"sqlite:///{path}", session_settings={"busy_timeout": 300})
    async with watched(store, tmp_path) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        await asyncio.to_thread(hold_lock_until_noticed, path, watch)

        await watch.finish()


def hold_lock_until_noticed(path: Path, watch: Watch) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        deadline = time.monotonic() + 15
        while not watch.events:
            assert time.monotonic() < deadline, "the scheduler does not notice"
            time.sleep(0.01)
        other.execute("COMMIT")


async def test_a_directory_that_somebody_has_locked_is_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "tasks"
    async with watched(FileStore(directory), tmp_path) as watch:
        await watch.plan()
        await until(lambda: watch.has_run("once-"), "the first task has run")

        with FileLock(directory / LOCK_NAME):
            await until(lambda: watch.events, "the scheduler notices")
            assert "default" in await watch.degraded()
            moment = time.monotonic()
            await until(lambda: watch.has_run("other", after=moment), "the other store goes on")

        await watch.finish()
        await until(lambda: STORE_RECOVERED in watch.events, "the scheduler says so")


@pytest.mark.parametrize("kind", ["file", "sqlite"])
async def test_what_the_system_has_no_room_for_is_refused_and_harms_nothing(
    kind: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.outages.filling_process", kind, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
