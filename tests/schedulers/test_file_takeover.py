"""Several schedulers, in processes of their own, on the directory of one file store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest

from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz.enums import NodeState, RunState
from asyncz.events.constants import STORE_DEGRADED, STORE_RECOVERED, TASK_EXECUTED
from asyncz.runs.base import RunQuery
from asyncz.stores.file_index import name_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

WORKER = """
import asyncio, sys
from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz.enums import Delivery
from asyncz.tasks.base import Task
from asyncz.triggers import DateTrigger
from datetime import UTC, datetime, timedelta

NAME, KIND = sys.argv[2:4]

async def work(task_id):
    print("started", task_id, flush=True)
    await asyncio.sleep(3600 if NAME == "first" else 0)
    print("ended", task_id, flush=True)

async def main():
    store = FileStore(directory=sys.argv[1])
    async with NativeAsyncIOScheduler(
        timezone="UTC", stores={"default": store}, lease=1.0, poll_interval=0.1
    ) as scheduler:
        if NAME == "first":
            trigger = DateTrigger(run_at=datetime.now(UTC))
            await scheduler.aadd_task(
                Task(work, id="a", args=["a"], trigger=trigger, delivery=Delivery(KIND))
            )
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def job() -> None:
    """Can be found again by its name."""


@contextmanager
def worker(tmp_path: Path, name: str, kind: str) -> Iterator[subprocess.Popen[str]]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "tasks"), name, kind],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], last: str) -> list[str]:
    """What a worker says up to this line."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line.strip())
        if said[-1] == last:
            break
    return said


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def look_at(directory: Path) -> tuple[dict[str, RunState], list[NodeState]]:
    """The runs and the nodes that another scheduler finds."""
    store = FileStore(directory)
    async with NativeAsyncIOScheduler(timezone="UTC", stores={"default": store}):
        runs = await store.get_runs(RunQuery())
        nodes = await store.get_nodes()
    return {run.task_id: run.state for run in runs}, [found.state for found in nodes]


async def test_the_run_of_a_worker_that_is_killed_is_taken_over(tmp_path: Path) -> None:
    with worker(tmp_path, "first", "at_least_once") as first:
        assert "started a" in lines(first, "started a")
        with worker(tmp_path, "second", "-") as second:
            assert lines(second, "ready") == ["ready"]
            os.kill(first.pid, signal.SIGKILL)

            assert lines(second, "ended a") == ["started a", "ended a"]

            await until_settled(tmp_path / "tasks")
    runs, nodes = await look_at(tmp_path / "tasks")
    assert runs == {"a": RunState.SUCCEEDED}
    assert NodeState.DEAD in nodes


async def test_the_run_of_a_worker_that_is_killed_is_lost_if_it_may_be_made_once_only(
    tmp_path: Path,
) -> None:
    with worker(tmp_path, "first", "at_most_once") as first:
        assert "started a" in lines(first, "started a")
        with worker(tmp_path, "second", "-") as second:
            assert lines(second, "ready") == ["ready"]
            os.kill(first.pid, signal.SIGKILL)

            await until_settled(tmp_path / "tasks")
    runs, _ = await look_at(tmp_path / "tasks")
    assert runs == {"a": RunState.LOST}


async def test_the_run_of_a_worker_that_is_frozen_is_taken_over_when_its_lease_has_run_out(
    tmp_path: Path,
) -> None:
    with worker(tmp_path, "first", "at_least_once") as first:
        assert "started a" in lines(first, "started a")
        with worker(tmp_path, "second", "-") as second:
            assert lines(second, "ready") == ["ready"]
            os.kill(first.pid, signal.SIGSTOP)

            assert lines(second, "ended a") == ["started a", "ended a"]

            os.kill(first.pid, signal.SIGCONT)
            await until_settled(tmp_path / "tasks")
            await until(lambda: journal_of(tmp_path / "tasks").count('"op":"join"') == 3)
    runs, _ = await look_at(tmp_path / "tasks")
    assert runs == {"a": RunState.SUCCEEDED}


def journal_of(directory: Path) -> str:
    return "".join(file.read_text() for file in (directory / ".asyncz-runs").glob("*.log"))


async def until_settled(directory: Path) -> None:
    """Wait until the journal says of a run how it ended."""
    await until(lambda: '"rows":[{' in journal_of(directory))


async def test_a_directory_of_the_release_before_is_gone_on_with(tmp_path: Path) -> None:
    """Its records as that release wrote them, and a lock file with a state of its kind."""
    due = datetime.now(UTC) - timedelta(seconds=1)
    record = {
        "v": 1, "fn": f"{__name__}:job", "id": "old", "name": "job", "coalesce": True,
        "executor": "default", "mistrigger_grace_time": None, "max_instances": 1,
        "next_run_time": int(due.timestamp() * 1_000_000), "args": [], "kwargs": {},
        "trigger": {"type": "interval", "seconds": 3600}, "store": {"order": 17},
    }  # fmt: skip
    (tmp_path / name_of("old", ".task")).write_text(json.dumps(record))
    (tmp_path / ".asyncz-lock").write_bytes(b"0123456789abcdef" * 2)
    store = FileStore(tmp_path)
    scheduler = NativeAsyncIOScheduler(timezone="UTC", stores={"default": store})
    ran: list[object] = []
    scheduler.add_listener(ran.append, TASK_EXECUTED)

    async with scheduler:
        await until(lambda: ran)
        (task,) = await scheduler.aget_tasks()

    assert task.id == "old"
    assert task.next_run_time is not None
    assert task.next_run_time > due
    assert await look_at(tmp_path) == (
        {"old": RunState.SUCCEEDED},
        [NodeState.LEFT, NodeState.ALIVE],
    )


async def test_a_directory_that_is_removed_is_told_of(tmp_path: Path) -> None:
    directory = tmp_path / "tasks"
    scheduler = NativeAsyncIOScheduler(
        timezone="UTC",
        stores={"default": FileStore(directory)},
        lease=1.0,
        poll_interval=0.05,
        store_retry_interval=0.05,
    )
    events: list[int] = []
    details: list[str] = []
    ran: list[object] = []

    def hear(event: Any) -> None:
        events.append(event.code)
        details.append(str(event.detail))

    scheduler.add_listener(hear, STORE_DEGRADED | STORE_RECOVERED)
    scheduler.add_listener(ran.append, TASK_EXECUTED)

    async with scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, id="a")
        while directory.exists():  # the store may be writing there
            rmtree(directory, ignore_errors=True)
        await until(lambda: STORE_DEGRADED in events)
        assert "removed while it was in use" in details[0]
        assert not directory.exists(), "not made again as if nothing had been there"

        directory.mkdir()
        await until(lambda: STORE_RECOVERED in events)
        await scheduler.aadd_task(job, "date", run_at=datetime.now(UTC), id="b")
        await until(lambda: ran)
