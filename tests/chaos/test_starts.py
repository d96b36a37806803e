"""Eight workers start at once on an empty store."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.chaos.places import PLACES

ROUNDS = 1


@pytest.mark.parametrize("kind", PLACES)
async def test_no_start_fails_and_each_task_is_there_once(kind: str) -> None:
    # In a process of its own, since it forks.
    rounds = ["--store", kind, "--rounds", str(ROUNDS)]
    command = [sys.executable, "-m", "tests.chaos.start_rounds", *rounds]
    pipe, both = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=both)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert f"{8 * ROUNDS} starts, 0 failed" in said.decode()
