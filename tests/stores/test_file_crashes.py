"""Writers of a file store that are killed: every file is a whole record, old or new."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncz.stores.file import FileStore
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

SPOILT = ("spoilt", None, None)
STATES: list[set[tuple[Any, ...]]] = [
    {SPOILT},
    {("a", ("first",), NOON), SPOILT},
    {("a", ("first",), NOON), ("b", (), after(1)), SPOILT},
    {("a", ("second",), NOON), ("b", (), after(1)), SPOILT},
    {("a", ("second",), after(60)), ("b", (), after(1)), SPOILT},
    {("a", ("second",), after(60)), ("b", (), after(1)), ("spoilt", (), after(3))},
    {("a", ("second",), after(60)), ("spoilt", (), after(3))},
]
"""What there is after each change that a writer makes."""


def run_writers(kind: str, directory: Path) -> None:
    script = Path(__file__).with_name("crashing_writer.py")
    subprocess.run([sys.executable, str(script), kind, str(directory)], check=True, timeout=60)


async def contents(directory: Path) -> set[tuple[Any, ...]]:
    """What a new store finds: tasks, and what is quarantined."""
    store = FileStore(directory)
    await store.start(SuiteHost(), "after")
    try:
        tasks = await store.get_all_tasks()
        kept = await store.get_quarantined_tasks()
    finally:
        await store.shutdown()
    assert not list(directory.glob(".*.tmp")), "what killed writers left is cleaned up"
    found = {(task.id, task.args, task.next_run_time) for task in tasks}
    return found | {SPOILT for _ in kept}


async def test_a_writer_killed_at_any_point_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    run_writers("points", tmp_path)
    logs = sorted(tmp_path.glob("*.log"))
    assert len(logs) > 30
    for log in logs:
        acknowledged = log.read_text().count(".")
        directory = log.with_suffix("")
        state = await contents(directory)
        assert state in STATES[acknowledged : acknowledged + 2], log.name
        texts = [file.read_text() for file in directory.glob("*.task*")]
        assert "kept" in texts, "a record that cannot be read is never lost"


async def test_killed_writers_leave_whole_records_to_those_that_go_on(tmp_path: Path) -> None:
    run_writers("random", tmp_path / "tasks")
    found = await contents(tmp_path / "tasks")
    assert 0 < len(found) <= 10
    assert all(text == "x" * size for _, (size, text), _ in found)
