"""Writers of a file store that are killed: every file is a whole record, old or new."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import Fired, Firing, Node, RunEnd, RunOutcome, RunRef
from asyncz.stores.file import FileStore
from asyncz.testing import VirtualClock
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

SCHEDULED = RunKind.SCHEDULED
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


async def finish_what_was_left(directory: Path) -> list[tuple[str, RunState, int]]:
    """What all runs have come to once another node has done what is to be done."""
    clock = VirtualClock(datetime.now(UTC) + timedelta(days=1))
    store = FileStore(directory)
    await store.start(SuiteHost(clock=clock), "after")
    try:
        await store.join_node(Node("other", "", "", 2), 30)
        reaped = await store.reap("other", bury=clock.now(), max_attempts=3)
        refs = [run.ref for run in reaped.taken]
        due = await store.get_due_tasks(NOON)
        firings = [Firing(task, NOON, after(60), False, SCHEDULED, (NOON,)) for task in due]
        fired = await store.fire("other", "claim", firings)
        assert set(fired) <= {Fired.WON}, "a task that was moved on is not due"
        refs += [RunRef(str(task.id), SCHEDULED, NOON, 1) for task in due]
        assert all(await store.start_runs("other", refs))
        ends = [RunEnd(ref, (RunOutcome(NOON, RunState.SUCCEEDED),)) for ref in refs]
        assert all(await store.finish_runs("other", ends))
        assert not await store.get_due_tasks(NOON)
        runs = await store.get_runs(RunQuery())
    finally:
        await store.shutdown()
    assert not list(directory.rglob(".*.tmp")), "what killed writers left is cleaned up"
    return sorted((run.task_id, run.state, run.attempt) for run in runs)


async def test_a_node_killed_at_any_point_loses_no_run_and_doubles_none(tmp_path: Path) -> None:
    run_writers("runs", tmp_path)
    logs = sorted(tmp_path.glob("*.log"))
    assert len(logs) > 30
    for log in logs:
        acknowledged = log.read_text().count(".")
        found = await finish_what_was_left(log.with_suffix(""))
        assert [task_id for task_id, _, _ in found] == ["last", "often", "once"], log.name
        states = {task_id: state for task_id, state, _ in found}
        assert states["last"] is states["often"] is RunState.SUCCEEDED, log.name
        may_be_lost = acknowledged in (2, 3)  # it was marked as started, and perhaps no more
        assert states["once"] is RunState.SUCCEEDED or may_be_lost, log.name
        if acknowledged == 4:
            assert {attempt for _, _, attempt in found} == {1}, log.name


async def attempt_what_was_left(directory: Path) -> dict[str, tuple[RunState, str | None]]:
    """What all runs are, and have said, once another node has them; and they end well."""
    clock = VirtualClock(datetime.now(UTC) + timedelta(days=1))
    store = FileStore(directory)
    await store.start(SuiteHost(clock=clock), "after")
    try:
        await store.join_node(Node("other", "", "", 2), 30)
        reaped = await store.reap("other", bury=clock.now(), max_attempts=3)
        attended = await store.attend("other")
        refs = [run.ref for run in (*reaped.taken, *attended.taken)]
        assert {ref.task_id for ref, _ in attended.asked} <= {"last"}
        found = {run.task_id: (run.state, run.message) for run in await store.get_runs(RunQuery())}
        ends = [RunEnd(ref, (RunOutcome(NOON, RunState.SUCCEEDED),)) for ref in refs]
        assert await store.finish_runs("other", ends) == [True] * len(ends)
        looked = await store.look()
        assert (looked.attend_at, looked.has_unowned) == (None, False)
    finally:
        await store.shutdown()
    return found


async def test_a_node_killed_at_any_point_of_an_attempt_loses_no_run(tmp_path: Path) -> None:
    run_writers("attempts", tmp_path)
    logs = [log for log in sorted(tmp_path.glob("*.log")) if "." in log.read_text()]
    assert len(logs) > 15
    for log in logs:
        acknowledged = log.read_text().count(".")
        found = await attempt_what_was_left(log.with_suffix(""))
        pruned = {"often"} - found.keys()
        assert not pruned or acknowledged >= 6, log.name
        assert found.keys() | pruned == {"last", "often", "once"}, log.name
        states = {task_id: state for task_id, (state, _) in found.items()}
        assert states["last"] is RunState.RUNNING, log.name
        if acknowledged >= 4 and not pruned:
            assert states["often"] is RunState.CANCELLED, log.name
        # It was marked as started, and who had it was killed before he said that it had failed.
        may_be_lost = acknowledged < 3
        assert states["once"] is RunState.CLAIMED or may_be_lost, log.name
        if acknowledged == 2:
            assert found["last"][1] in ("noted", None), log.name


async def test_killed_writers_leave_whole_records_to_those_that_go_on(tmp_path: Path) -> None:
    run_writers("random", tmp_path / "tasks")
    found = await contents(tmp_path / "tasks")
    assert 0 < len(found) <= 10
    assert all(text == "x" * size for _, (size, text), _ in found)
