"""A scheduler on the file store: restarts, kills, records that cannot be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz.exceptions import TransientTaskError
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)

WORKER = """
import asyncio, os, sys
from asyncz import FileStore, NativeAsyncIOScheduler

async def tick():
    print("tick", flush=True)

async def main():
    store = FileStore(directory=sys.argv[1])
    async with NativeAsyncIOScheduler(timezone="UTC", stores={"default": store}) as scheduler:
        await scheduler.aadd_task(tick, "interval", seconds=0.05, id="tick", replace_existing=True)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def job(text: str = "") -> None:
    """Can be found again by its name."""


def on(directory: Path, clock: VirtualClock) -> NativeAsyncIOScheduler:
    return NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": FileStore(directory=directory)}
    )


async def test_a_restart_postpones_nothing_and_catches_up(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    async with on(tmp_path, clock) as scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, args=["a"], id="hourly")
        await clock.advance(minutes=50)

    await clock.advance(minutes=9)
    again = on(tmp_path, clock)
    again.add_task(job, "interval", hours=1, args=["a"], id="hourly", replace_existing=True)
    async with again:
        fired = await clock.advance(minutes=1)

    assert [run.scheduled_run_time for run in fired] == [START + timedelta(hours=1)]


async def test_declared_tasks_without_an_id_are_not_doubled_by_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    for _ in range(3):
        scheduler = on(tmp_path, clock)
        scheduler.add_task(job, "interval", hours=1)
        scheduler.add_task(job, "interval", hours=2)
        async with scheduler:
            ids = [task.id for task in await scheduler.aget_tasks()]

    assert ids == [f"{__name__}:job", f"{__name__}:job#2"]


async def test_a_record_that_cannot_be_read_is_kept_listed_and_recovers(tmp_path: Path) -> None:
    clock = VirtualClock(START, longest_wait=30)
    async with on(tmp_path, clock) as scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, id="hourly")
        (record,) = tmp_path.glob("*.task")
        good = record.read_bytes()
        record.write_bytes(good[: len(good) // 2])
        assert await clock.advance(hours=3) == []
        (info,) = await scheduler.aget_task_infos(schedule_state="quarantined")
        record.write_bytes(good)
        fired = await clock.advance(hours=1)

    assert info.error
    assert [run.code_name for run in fired] == ["TASK_EXECUTED", "TASK_EXECUTED"]


async def test_declaring_a_task_again_sets_its_unreadable_record_aside(tmp_path: Path) -> None:
    clock = VirtualClock(START)
    async with on(tmp_path, clock) as scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, id="hourly")
        (record,) = tmp_path.glob("*.task")
        record.write_bytes(b"half of a rec")
        await scheduler.aadd_task(job, "interval", hours=2, id="hourly", replace_existing=True)
        fired = await clock.advance(hours=2)

    assert [run.task_id for run in fired] == ["hourly"]
    assert [path.read_bytes() for path in tmp_path.glob("*unreadable*")] == [b"half of a rec"]


async def test_a_callable_without_a_name_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async with on(tmp_path, VirtualClock(START)) as scheduler:
        with pytest.raises(TransientTaskError, match="lambda"):
            await scheduler.aadd_task(lambda: None, "interval", hours=1)
        assert await scheduler.aget_tasks() == []


def test_a_killed_worker_loses_no_task(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "tasks")],
            stdout=subprocess.PIPE,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            ticks = [worker.stdout.readline() for _ in range(3)]
            os.kill(worker.pid, signal.SIGKILL)
            worker.stdout.read()

        assert ticks == ["tick\n"] * 3
    assert len(list((tmp_path / "tasks").glob("*.task"))) == 1
