"""The runs of a file store beyond what every store does: its journal, and what may befall it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from asyncz.clock import SystemClock
from asyncz.enums import Delivery, NodeState, RunState
from asyncz.exceptions import StoreError
from asyncz.file_lock import FileLock
from asyncz.runs.base import RunQuery
from asyncz.serializers import EncryptedSerializer
from asyncz.stores import file_book
from asyncz.stores.cluster import Fired, Node, RunRef
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import LOCK_NAME, RecordDirectory
from asyncz.stores.file_journal import name_of_part, to_line
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task

from .conftest import SetHost, file_of
from .file_nodes import LEASE, SCHEDULED, node

KEY = "a key for the tests, long enough for that"
CANARY = "the password is swordfish"


def journals(directory: Path) -> list[Path]:
    return sorted((directory / file_book.RUNS_NAME).glob("*.log"))


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the journal for every few lines."""
    monkeypatch.setattr(file_book, "PART_BYTES", 1)


# ---- files


@pytest.mark.skipif(os.name != "posix", reason="about POSIX's rights")
async def test_runs_are_for_their_owner_only(directory: Path) -> None:
    async with node(directory, "one", mode=0o755) as one:
        await one.store.add_task(make_task("a"))
        await one.run_all()
        runs = directory / file_book.RUNS_NAME
        assert runs.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in runs.iterdir()} == {0o600}


async def test_nothing_is_made_before_a_node_joins(directory: Path) -> None:
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    assert await store.get_runs(RunQuery()) == []
    assert await store.get_nodes() == []
    assert (await store.look()).has_unowned is False
    assert await store.count_active(["a"]) == {"a": 0}
    assert await store.forget_runs(NOON) == 0
    assert {file.name for file in directory.iterdir()} == {LOCK_NAME}
    await store.shutdown()


async def test_a_symbolic_link_in_place_of_the_runs_is_refused(directory: Path) -> None:
    (directory.parent / "target").mkdir()
    directory.mkdir()
    (directory / file_book.RUNS_NAME).symlink_to(directory.parent / "target")
    with pytest.raises(StoreError):
        async with node(directory, "one"):
            pass
    assert list((directory.parent / "target").iterdir()) == []


async def test_cleaning_up_removes_the_runs_unless_somebody_else_is_there(
    directory: Path,
) -> None:
    async with node(directory, "other") as other:
        async with node(directory, "one", cleanup_directory=True) as one:
            await one.store.leave_node("one")
        assert journals(directory)
        await other.store.leave_node("other")
    async with node(directory, "one", cleanup_directory=True) as one:
        await one.store.leave_node("one")
    assert not directory.exists()


async def test_what_a_run_says_is_encrypted_if_the_tasks_are(directory: Path) -> None:
    serializer = EncryptedSerializer(KEY)
    async with node(directory, "one", serializer=serializer) as one:
        await one.store.add_task(make_task("a", args=(CANARY,)))
        await one.fire(*await one.store.get_due_tasks(NOON), forget=True)
        await one.finish("a", state=RunState.FAILED, error=CANARY, traceback=CANARY)
        (run,) = await one.runs()
    assert run.error == run.traceback == CANARY
    assert CANARY.encode() not in b"".join(file.read_bytes() for file in journals(directory))

    async with node(directory, "two", serializer=EncryptedSerializer("x" * 32)) as two:
        (run,) = await two.runs()
    assert (run.state, run.error) == (RunState.FAILED, None)
    assert run.reason == "what it said cannot be decrypted here"


@pytest.mark.parametrize("options", [{}, {"serializer": EncryptedSerializer(KEY)}])
async def test_an_error_may_say_what_is_no_valid_text(
    directory: Path, options: dict[str, Any]
) -> None:
    async with node(directory, "one", **options) as one:
        await one.store.add_task(make_task("a"))
        await one.fire(*await one.store.get_due_tasks(NOON))
        assert await one.finish("a", state=RunState.FAILED, error="no file '\udcff\0'") == [True]
        (run,) = await one.runs()
        assert run.error == "no file '\\udcff\0'"
        assert await one.runs(task_id="\ud800") == []


# ---- lines


async def test_half_a_line_of_a_killed_writer_is_passed_over_and_told_of_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(directory, "one") as one, node(directory, "two") as two:
        await one.store.add_task(make_task("a"))
        (journal,) = journals(directory)
        journal.write_bytes(journal.read_bytes() + b'0123abcd {"op":"le')
        assert await one.run_all() == [Fired.WON]
        assert [run.state for run in await two.runs()] == [RunState.SUCCEEDED]
        assert [found.state for found in await two.store.get_nodes()] == [NodeState.ALIVE] * 2
        assert caplog.text.count("cannot be read") == 1
        await two.runs()
        assert caplog.text.count("cannot be read") == 1


async def test_a_line_that_could_not_be_written_is_not_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with node(directory, "one") as one, node(directory, "two") as two:
        await one.store.add_task(make_task("a"))
        due = await one.store.get_due_tasks(NOON)
        before = journals(directory)[0].read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="No space left"):
                await one.fire(*due, claim="first")
        assert journals(directory)[0].read_bytes() == before
        assert await two.runs() == []
        assert await one.fire(*due, claim="first") == [Fired.WON]


async def test_a_task_that_could_not_be_moved_on_is_moved_on_by_the_next_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RecordDirectory, files: dict[str, bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with node(directory, "one") as one, node(directory, "two") as two:
        await one.store.add_task(make_task("a"))
        due = await one.store.get_due_tasks(NOON)
        with monkeypatch.context() as patch:
            patch.setattr(RecordDirectory, "replace_all", full)
            with pytest.raises(StoreError, match="No space left"):
                await one.fire(*due, claim="first")
        assert await two.fire(*await two.store.get_due_tasks(NOON)) == [Fired.LOST]
        assert await two.store.get_due_tasks(NOON) == []
        assert await one.fire(*due, claim="first") == [Fired.WON]
        assert len(await two.runs()) == 1


async def test_a_newer_format_is_refused_and_left_alone(directory: Path) -> None:
    async with node(directory, "one"):
        (journal,) = journals(directory)
    head = json.loads(journal.read_bytes().split(b"\n")[0][9:])

    journal.write_bytes(data := to_line({**head, "v": 3}))
    with pytest.raises(StoreError, match="version 3"):
        async with node(directory, "two"):
            pass
    assert journal.read_bytes() == data


# ---- several files


async def test_a_journal_of_many_files_says_the_same(directory: Path, short_parts: None) -> None:
    async with node(directory, "one") as one, node(directory, "two") as two:
        for number in range(12):
            await one.store.add_task(make_task(f"t{number:02}", after(number - 20)))
            (task,) = await one.store.get_due_tasks(after(number - 20))
            assert await (one, two)[number % 2].fire(task) == [Fired.WON]
        assert len(journals(directory)) > 2
        runs = await two.runs()
        assert [run.task_id for run in runs] == [f"t{number:02}" for number in range(11, -1, -1)]
        assert {run.owner for run in runs} == {"one", "two"}
        assert len(await one.store.get_own_runs("one")) == 6


async def test_an_instant_in_an_older_file_is_not_run_again(
    directory: Path, short_parts: None
) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a"))
        record = file_of(directory, "a").read_bytes()
        assert await one.run_all() == [Fired.WON]
        for number in range(20):
            await one.store.add_task(make_task(f"t{number}"))
            await one.run_all()
        assert len(journals(directory)) > 5
    async with node(directory, "two") as two:
        file_of(directory, "a").write_bytes(record)  # from a backup
        await two.store.get_all_tasks()
        assert await two.fire(*await two.store.get_due_tasks(NOON)) == [Fired.REPEATED]
        assert len(await two.runs(task_id="a")) == 1


async def test_a_lost_run_in_an_older_file_may_have_ended_well(
    directory: Path, short_parts: None
) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a", delivery=Delivery.AT_MOST_ONCE))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await one.store.start_runs("one", [RunRef("a", SCHEDULED, NOON, 1)])
        one.clock.jump(LEASE + 1)
        async with node(directory, "two", one.clock) as two:
            assert (
                len(
                    (
                        await two.store.reap(
                            "two", bury=(await two.store.look()).now, max_attempts=3
                        )
                    ).ended
                )
                == 1
            )
            for number in range(20):
                await two.store.add_task(make_task(f"t{number}"))
                await two.run_all()
            assert await one.finish("a") == [True]
            assert await one.finish("a") == [True]
            (run,) = await two.runs(task_id="a")
            assert run.state is RunState.SUCCEEDED


async def test_old_files_are_removed_with_their_runs(directory: Path, short_parts: None) -> None:
    async with node(directory, "one") as one:
        for number in range(30):
            await one.store.add_task(make_task(f"t{number:02}"))
            await one.run_all()
            one.clock.jump(1)
        many = len(journals(directory))
        assert many > 5
        assert await one.store.forget_runs(after(20), limit=7) == 7
        assert await one.store.forget_runs(after(20)) == 13
        assert len(await one.runs()) == 10
        assert len(journals(directory)) < many / 2
        assert await one.store.forget_runs(after(3_600)) == 10
    async with node(directory, "two") as two:
        assert await two.runs() == []


async def test_a_file_that_was_sealed_by_a_process_that_was_killed_then_is_gone_on_with(
    directory: Path,
) -> None:

    async with node(directory, "one") as one, node(directory, "two") as two:
        await one.store.add_task(make_task("a"))
        (journal,) = journals(directory)
        journal.write_bytes(journal.read_bytes() + to_line({"op": "seal"}))
        assert await one.run_all() == [Fired.WON]
        assert [run.state for run in await two.runs()] == [RunState.SUCCEEDED]
        assert [file.name for file in journals(directory)] == [name_of_part(1), name_of_part(2)]


async def test_a_file_with_a_spoilt_beginning_is_left_and_gone_on_with(
    directory: Path, short_parts: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a"))
        await one.fire(*await one.store.get_due_tasks(NOON))
        spoilt = journals(directory)[-1]
    spoilt.write_bytes(b"x" + spoilt.read_bytes())
    async with node(directory, "two") as two:
        assert spoilt.name in caplog.text
        assert [found.node.id for found in await two.store.get_nodes()] == ["one", "two"]
        assert [run.state for run in await two.runs()] == [RunState.RUNNING]
        two.clock.jump(3_600)
        await two.store.forget_runs(after(3_600))
    assert spoilt.read_bytes().startswith(b"x")


# ---- others


async def test_runs_of_tasks_that_cannot_be_read_here_do_not_keep_others_back(
    directory: Path,
) -> None:
    async with node(directory, "one") as one, node(directory, "two") as two:
        for name in ("a", "b"):
            await one.store.add_task(make_task(name))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await one.store.leave_node("one")
        data = file_of(directory, "a").read_bytes()
        file_of(directory, "a").write_bytes(b"spoilt")
        reaped = await two.store.reap(
            "two", bury=(await two.store.look()).now, max_attempts=3, limit=1
        )
        assert [run.ref.task_id for run in reaped.taken] == ["b"]
        assert (await two.store.look()).has_unowned is False
        file_of(directory, "a").write_bytes(data)
        reaped = await two.store.reap("two", bury=(await two.store.look()).now, max_attempts=3)
        assert [run.ref.task_id for run in reaped.taken] == ["a"]


async def test_a_node_whose_process_has_ended_is_not_waited_for(directory: Path) -> None:
    async with node(directory, "two") as two:
        async with node(directory, "one") as one:
            await one.store.add_task(make_task("a"))
            await one.fire(*await one.store.get_due_tasks(NOON))
            assert (await two.store.look()).has_unowned is False
        assert (await two.store.look()).has_unowned is True
        assert [found.state for found in await two.store.get_nodes()] == [
            NodeState.ALIVE,
            NodeState.STALE,
        ]
        reaped = await two.store.reap("two", bury=None, max_attempts=3)
        assert reaped.dead == ("one",)
        assert [run.ref.task_id for run in reaped.taken] == ["a"]
        assert {file.suffix for file in (directory / file_book.RUNS_NAME).iterdir()} == {
            ".log",
            ".node",
            ".held",
        }
        assert len(list((directory / file_book.RUNS_NAME).iterdir())) == 3


async def test_runs_that_are_removed_while_they_are_in_use_are_told_of(directory: Path) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a"))
        for file in (directory / file_book.RUNS_NAME).iterdir():
            file.unlink()
        (directory / file_book.RUNS_NAME).rmdir()
        with pytest.raises(StoreError, match="removed while it was in use"):
            await one.store.look()
        assert await one.fire(*await one.store.get_due_tasks(NOON)) == [Fired.FENCED]
        await one.store.join_node(Node("again", "", "", 1), LEASE)
        assert len(await one.store.get_nodes()) == 1


async def test_a_look_does_not_list_the_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(directory, "one") as one, node(directory, "two", one.clock) as two:
        await two.store.add_tasks([make_task(f"t{number}", after(9)) for number in range(50)])
        await one.store.look()
        await two.store.look()

        def listing(self: RecordDirectory) -> None:
            raise AssertionError("the directory was listed")

        monkeypatch.setattr(RecordDirectory, "records", listing)
        monkeypatch.setattr(RecordDirectory, "names", listing)
        assert (await one.store.look()).next_run_time == after(9)
        await two.store.update_task(make_task("t7", after(5)))
        assert (await one.store.look()).next_run_time == after(5)
        await two.store.delete_task("t7")
        await two.store.add_task(make_task("new", after(7)))
        assert (await one.store.look()).next_run_time == after(7)


# ---- the pulse


async def test_a_pulse_does_not_wait_for_the_store(directory: Path) -> None:
    host = SuiteHost(clock=SystemClock())
    store = FileStore(directory)
    await store.start(host, "files")
    await store.join_node(Node("one", "", "", 1), 1.0)
    pulse = store.pulse("one")
    assert pulse is not None
    await pulse.open()
    with FileLock(directory / LOCK_NAME):
        assert await pulse.beat(3_600, 7) is True
    (found,) = await store.get_nodes()
    assert (found.running, found.state) == (7, NodeState.ALIVE)
    assert found.lease_until > host.clock.now()
    await store.leave_node("one")
    assert await pulse.beat(3_600, 7) is False
    await pulse.close()
    await store.shutdown()


async def test_a_pulse_without_its_directory_is_an_error_and_no_burial(directory: Path) -> None:
    store = FileStore(directory)
    await store.start(SuiteHost(clock=SystemClock()), "files")
    await store.join_node(Node("one", "", "", 1), 1.0)
    pulse = store.pulse("one")
    assert pulse is not None
    await pulse.open()
    for file in (directory / file_book.RUNS_NAME).iterdir():
        file.unlink()
    (directory / file_book.RUNS_NAME).rmdir()
    with pytest.raises(OSError, match="No such file"):
        await pulse.beat(30, 0)
    with pytest.raises(OSError, match="No such file"):
        await pulse.open()
    await pulse.close()
    await store.shutdown()


async def test_a_clock_that_is_not_the_machines_has_no_pulse(directory: Path) -> None:
    async with node(directory, "one") as one:
        assert one.store.pulse("one") is None
