"""Two processes with one `lock_path`, for stores that several schedulers cannot share."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

WORKER = """
import asyncio, sys
from asyncz import NativeAsyncIOScheduler

async def work():
    print("ran", flush=True)

async def main():
    scheduler = NativeAsyncIOScheduler(timezone="UTC", lock_path=sys.argv[1], startup_delay=0)
    scheduler.add_task(work, "interval", seconds=0.1)
    async with scheduler:
        await asyncio.sleep(0.3)  # some passes
        print("standby" if scheduler.get_scheduler_info().standby else "active", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_when_the_active_one_is_killed_the_other_takes_over(tmp_path: Path) -> None:
    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, str(tmp_path / "lock"), stdout=asyncio.subprocess.PIPE
        )
        stack.push_async_callback(ended, process)
        return process

    async def said(process: asyncio.subprocess.Process, words: set[str]) -> str:
        assert process.stdout is not None
        while (line := (await process.stdout.readline()).decode().strip()) not in words:
            assert line, "the process has ended"
        return line

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        first, states = await start(), {"active", "standby"}
        assert await said(first, states) == "active"
        second = await start()
        assert await said(second, states | {"ran"}) == "standby"
        first.send_signal(signal.SIGKILL)
        await first.wait()
        async with asyncio.timeout(10):
            assert await said(second, {"ran"}) == "ran"


async def ended(process: asyncio.subprocess.Process) -> None:
    """Whatever has happened, it is gone, and its pipe is closed."""
    if process.returncode is None:
        process.kill()
    await process.communicate()
