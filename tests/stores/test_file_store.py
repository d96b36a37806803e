"""The file store beyond what every store does: its directory, its cache, its options."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from asyncz.exceptions import ConfigurationError, StoreError, StoreTimeoutError, TaskLookupError
from asyncz.file_lock import FileLock
from asyncz.serializers import JSONSerializer
from asyncz.stores.base import TaskAdvance
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import LOCK_NAME, RecordDirectory
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task

from .conftest import SetHost, file_of, make_old

posix_only = pytest.mark.skipif(os.name != "posix", reason="about POSIX's rights")


@asynccontextmanager
async def running(
    directory: Path, host: SetHost | None = None, **options: Any
) -> AsyncIterator[FileStore]:
    store = FileStore(directory, **options)
    await store.start(host or SetHost(), "files")
    try:
        yield store
    finally:
        await store.shutdown()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []
    read = RecordDirectory.read

    def spying(self: RecordDirectory, name: str) -> bytes:
        names.append(name)
        return read(self, name)

    monkeypatch.setattr(RecordDirectory, "read", spying)
    return names


# ---- files


@posix_only
async def test_directory_and_files_are_for_their_owner_only(directory: Path) -> None:
    async with running(directory) as store:
        await store.add_task(make_task("a"))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}


@posix_only
@pytest.mark.parametrize("rights", [0o755, 0o777])
async def test_the_rights_of_an_existing_directory_stay_and_are_warned_of(
    directory: Path, rights: int, caplog: pytest.LogCaptureFixture
) -> None:
    directory.mkdir()
    directory.chmod(rights)
    async with running(directory):
        pass
    assert directory.stat().st_mode & 0o777 == rights
    (record,) = caplog.records
    assert str(directory) in record.getMessage()
    assert "chmod 700" in record.getMessage()


async def test_missing_parents_are_made(directory: Path) -> None:
    async with running(directory / "deep" / "down") as store:
        await store.add_task(make_task("a"))
    assert file_of(directory / "deep" / "down", "a").exists()


async def test_a_record_is_readable_json_under_a_name_without_the_id(directory: Path) -> None:
    async with running(directory, suffix=".json") as store:
        await store.add_task(make_task("../a", args=(1,)))
    (name,) = (file.name for file in directory.iterdir() if file.name != LOCK_NAME)
    assert len(name) == 52 + len(".json")
    assert json.loads((directory / name).read_text())["id"] == "../a"


async def test_other_files_are_left_alone(directory: Path) -> None:
    directory.mkdir()
    others = [directory / name for name in ("README.txt", ".asyncz-1.tmp", "x.tmp", ".hidden.task")]
    for other in others:
        other.write_text("mine")
    async with running(directory, cleanup_directory=True) as store:
        assert await store.get_quarantined_tasks() == []
        await store.remove_all_tasks()
    assert all(other.read_text() == "mine" for other in others)


async def test_what_killed_writers_left_is_removed_at_start(directory: Path) -> None:
    directory.mkdir()
    left = directory / ".asyncz-0123456789abcdef.tmp"
    left.write_text("half")
    async with running(directory):
        assert not left.exists()


async def test_cleaning_up_removes_the_tasks_and_the_directory(directory: Path) -> None:
    async with running(directory, cleanup_directory=True) as store:
        await store.add_task(make_task("a"))
    assert not directory.exists()


async def test_cleaning_up_leaves_what_cannot_be_read(directory: Path) -> None:
    async with running(directory, cleanup_directory=True) as store:
        await store.add_task(make_task("a"))
        await store.add_task(make_task("b"))
        file_of(directory, "b").write_text("spoilt")
    assert {file.name for file in directory.iterdir()} == {file_of(directory, "b").name, LOCK_NAME}


async def test_a_directory_that_is_taken_away_is_made_again(directory: Path) -> None:
    async with running(directory) as store, running(directory, cleanup_directory=True):
        await store.add_task(make_task("a"))
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        assert await store.get_all_tasks() == []
        await store.add_task(make_task("a"))
        assert file_of(directory, "a").exists()


async def test_a_directory_that_cannot_be_made_is_a_clear_error(directory: Path) -> None:
    directory.write_text("a file")
    store = FileStore(directory)
    for _ in range(2):  # it can be tried again
        with pytest.raises(StoreError, match=r"'files'.*tasks"):
            await store.start(SetHost(), "files")


async def test_a_full_disk_is_an_error_and_changes_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with running(directory) as store:
        await store.add_task(make_task("a", args=(1,)))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for operation in (store.add_task(make_task("b")), store.update_task(make_task("a"))):
                with pytest.raises(StoreError, match="No space left"):
                    await operation
            with pytest.raises(StoreError, match="No space left"):
                await store.advance_tasks([TaskAdvance(make_task("a"), NOON, after(60))])
        (task,) = await store.get_all_tasks()
    assert (task.args, task.next_run_time) == ((1,), NOON)
    assert not list(directory.glob(".*.tmp"))


async def test_steps_made_before_the_disk_was_full_are_said_to_be_made(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync, left = os.fsync, [1]

    def filling(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    async with running(directory) as store:
        for name in "abc":
            await store.add_task(make_task(name))
        steps = [TaskAdvance(make_task(name), NOON, after(60)) for name in "abc"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", filling)
            assert await store.advance_tasks(steps) == [True, False, False]
        assert ids_of(await store.get_due_tasks(NOON)) == ["b", "c"]
    assert "No space left" in caplog.text


# ---- the thread and the lock


async def test_the_loop_is_never_blocked_by_the_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[int] = set()
    fsync = os.fsync

    def spying(descriptor: int) -> None:
        used.add(threading.get_ident())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spying)
    async with running(directory) as store:
        await store.add_task(make_task("a"))
    assert len(used) == 1
    assert threading.get_ident() not in used


async def test_a_disk_that_does_not_answer_cannot_hang_the_shutdown(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asyncz.stores.file.CLOSING_TIME", 0.01)
    answer, asked = threading.Event(), threading.Event()
    fsync = os.fsync

    def stuck(descriptor: int) -> None:
        asked.set()
        answer.wait(30)
        fsync(descriptor)

    store = FileStore(directory)
    await store.start(SetHost(), "stuck")
    monkeypatch.setattr(os, "fsync", stuck)
    adding = asyncio.ensure_future(store.add_task(make_task("a")))
    await asyncio.to_thread(asked.wait, 30)
    await store.shutdown()
    assert "does not answer" in caplog.text
    thread = next(t for t in threading.enumerate() if t.name == "asyncz-store-stuck")
    assert thread.daemon, "nor the end of the interpreter"
    answer.set()
    await adding
    await asyncio.to_thread(thread.join, 30)


async def test_a_cancelled_call_that_has_not_begun_is_left_out(directory: Path) -> None:
    lock = FileLock(directory / LOCK_NAME)
    async with running(directory) as store:
        lock.acquire(0)
        first = asyncio.ensure_future(store.get_all_tasks())
        second = asyncio.ensure_future(store.add_task(make_task("a")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        lock.release()
        await first
        assert await store.get_all_tasks() == []


async def test_another_process_is_waited_for_only_so_long(directory: Path) -> None:
    async with running(directory, lock_timeout=0.02) as store:
        timeout = pytest.raises(StoreTimeoutError, match=r"'files'.*0\.02 s.*lock_timeout")
        with FileLock(directory / LOCK_NAME), timeout:
            await store.get_due_tasks(NOON)
        assert await store.get_due_tasks(NOON) == []


async def test_a_store_that_is_not_started_says_so(directory: Path) -> None:
    store = FileStore(directory)
    with pytest.raises(StoreError, match="not started"):
        await store.get_all_tasks()
    with pytest.raises(StoreError, match="not started"):
        store.rebuild_task(b"{}")


async def test_nothing_stays_open(directory: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    before = count(), threading.active_count()
    for _ in range(20):
        async with running(directory) as store:
            await store.get_all_tasks()
    assert (count(), threading.active_count()) == before


# ---- the cache


async def test_unchanged_files_are_not_read_again(
    directory: Path, host: SetHost, reads: list[str]
) -> None:
    async with running(directory) as store:
        for number in range(20):
            await store.add_task(make_task(f"t{number}"))
    make_old(directory)
    async with running(directory, host) as store:
        assert len(reads) == 20
        for _ in range(3):
            host.clock.seconds += 10
            await store.get_due_tasks(NOON)
            await store.get_next_run_time()
            await store.get_all_tasks()
        assert len(reads) == 20
        file = file_of(directory, "t7")
        file.write_text(file.read_text().replace('"name":"job"', '"name":"edited"'))
        host.clock.seconds += 10
        names = [task.name for task in await store.get_due_tasks(NOON)]
        assert (len(reads), names.count("edited")) == (21, 1)


async def test_a_young_file_is_read_again_even_if_it_looks_the_same(
    directory: Path, reads: list[str]
) -> None:
    async with running(directory) as store:
        await store.add_task(make_task("a", name="one"))
        await store.get_all_tasks()
        file = file_of(directory, "a")
        times = file.stat().st_mtime_ns
        file.write_text(file.read_text().replace('"one"', '"two"'))
        os.utime(file, ns=(times, times))
        assert [task.name for task in await store.get_all_tasks()] == ["two"]


async def test_a_look_at_one_young_file_does_not_trust_its_signature_after_others_wrote(
    directory: Path,
) -> None:
    async with running(directory) as one, running(directory) as other:
        await one.add_task(make_task("a", name="one"))
        await other.add_task(make_task("b"))
        file = file_of(directory, "a")
        times = file.stat().st_mtime_ns
        file.write_text(file.read_text().replace('"one"', '"two"'))
        os.utime(file, ns=(times, times))
        task = await one.lookup_task("a")
        assert task is not None
        assert task.name == "two"


def test_a_new_lock_file_has_a_state_of_its_own(directory: Path) -> None:
    files = RecordDirectory(directory, ".task", 0o700)
    states = set()
    for _ in range(2):
        with files.lock:
            states |= {files.state(), files.state()}
            files.remove_if_empty()
        files.close()
        files.open()
    files.close()
    assert len(states) == 2
    assert b"" not in states


async def test_what_another_store_changes_is_seen_at_once(directory: Path, host: SetHost) -> None:
    async with running(directory, host) as one, running(directory, host) as other:
        await one.add_task(make_task("a"))
        assert ids_of(await other.get_due_tasks(NOON)) == ["a"]
        await other.add_task(make_task("b", after(-1)))
        assert await one.get_next_run_time() == after(-1)
        await one.update_task(make_task("b", after(5)))
        assert ids_of(await other.get_due_tasks(NOON)) == ["a"]
        await other.delete_task("a")
        assert await one.lookup_task("a") is None
        assert await one.get_next_run_time() == after(5)
        await other.remove_all_tasks()
        assert await one.get_next_run_time() is None


async def test_a_change_of_another_store_is_not_lost_behind_a_change_of_ones_own(
    directory: Path, host: SetHost
) -> None:
    async with running(directory, host) as one, running(directory, host) as other:
        await one.get_due_tasks(NOON)
        await other.add_task(make_task("a"))
        await one.add_task(make_task("b"))
        assert ids_of(await one.get_due_tasks(NOON)) == ["a", "b"]


async def test_a_step_is_made_by_one_of_two_stores(directory: Path, host: SetHost) -> None:
    async with running(directory, host) as one, running(directory, host) as other:
        for number in range(20):
            await one.add_task(make_task(f"t{number}"))
        due = await asyncio.gather(one.get_due_tasks(NOON), other.get_due_tasks(NOON))
        steps = [[TaskAdvance(task, NOON, after(60)) for task in tasks] for tasks in due]
        won, lost = await asyncio.gather(one.advance_tasks(steps[0]), other.advance_tasks(steps[1]))
    assert [a + b for a, b in zip(won, lost, strict=True)] == [True] * 20


# ---- options


@pytest.mark.parametrize(
    "options",
    [
        {"suffix": "task"},
        {"suffix": ""},
        {"suffix": "./x"},
        {"suffix": ".a\0"},
        {"mode": 0o1777},
        {"mode": 0},
        {"lock_timeout": 0},
        {"lock_timeout": float("inf")},
        {"serializer": object()},
        {"no_such_option": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_refused(directory: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        FileStore(directory, **options)


def test_a_directory_without_a_name_is_not_the_current_one() -> None:
    with pytest.raises(ConfigurationError, match=r"directory is empty.*'\.'"):
        FileStore("")


def test_the_value_of_a_wrong_option_is_not_shown(directory: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        FileStore(directory, encryption_key="s3cr3t")
    assert "encryption_key" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_allowed_callables_belong_to_the_serializer_that_is_given(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="allowed_callables"):
        FileStore(directory, serializer=JSONSerializer(), allowed_callables=("a:*",))


@pytest.mark.parametrize("show", [repr, str])
def test_it_shows_no_more_than_its_alias(directory: Path, show: Callable[[object], str]) -> None:
    assert show(FileStore(directory, alias="files")) == "<FileStore alias='files'>"


async def test_allowed_callables_hold_for_both_ways(directory: Path) -> None:
    pattern = "asyncz.testing.store_suite_tools:j*"
    async with running(directory, allowed_callables=(pattern,)) as store:
        await store.add_task(make_task("a"))
        assert (await store.get_all_tasks())[0].id == "a"
    async with running(directory, allowed_callables=("myapp.jobs:*",)) as store:
        assert await store.get_all_tasks() == []
        (kept,) = await store.get_quarantined_tasks()
        assert "allowed_callables" in kept.error


async def test_a_task_can_be_rebuilt_of_a_file(directory: Path) -> None:
    async with running(directory) as store:
        await store.add_task(make_task("a", args=(1,)))
        task = store.rebuild_task(file_of(directory, "a").read_bytes())
        assert (task.id, task.args, task.store_alias) == ("a", (1,), "files")
        assert ids_of(await store.get_tasks()) == ["a"]


async def test_its_files_go_through_its_encryption(directory: Path) -> None:
    class Backwards(FileStore):
        def conditional_encrypt(self, inp: bytes) -> bytes:
            return inp[::-1]

        def conditional_decrypt(self, inp: bytes) -> bytes:
            return inp[::-1]

    store = Backwards(directory=directory)
    await store.start(SetHost(), "files")
    await store.add_task(make_task("a"))
    await store.shutdown()
    assert file_of(directory, "a").read_bytes().startswith(b"}")
    await store.start(SetHost(), "files")
    assert ids_of(await store.get_all_tasks()) == ["a"]
    await store.shutdown()


async def test_an_unknown_id_of_a_file_is_not_found(directory: Path) -> None:
    async with running(directory) as store:
        for task_id in ("file:nothing.task", "file:../x", "\ud800", "file:"):
            with pytest.raises(TaskLookupError):
                await store.delete_task(task_id)


async def test_its_log_goes_to_the_hosts_logger(directory: Path) -> None:
    records: list[logging.LogRecord] = []
    logger = logging.Logger("ours")
    logger.addFilter(lambda record: bool(records.append(record)))  # type: ignore[func-returns-value]
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    async with running(directory, SetHost(loggers={"asyncz.stores": logger})):
        pass
    assert len(records) == 1
