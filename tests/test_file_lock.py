"""The lock between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asyncz import file_lock
from asyncz.file_lock import FileLock

HOLD = """
import sys
from asyncz.file_lock import FileLock
lock = FileLock(sys.argv[1])
assert lock.acquire(5)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("free", flush=True)
sys.stdin.readline()
"""

posix_only = pytest.mark.skipif(os.name != "posix", reason="what it does is POSIX's")


class Holder:
    """Another process that holds the lock until told otherwise."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.expect("held")

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == word

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_it_is_taken_and_released(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquire(0)
    assert lock.locked
    lock.release()
    assert not lock.locked


def test_two_objects_of_one_process_exclude_each_other(path: Path) -> None:
    first, second = FileLock(path), FileLock(path)
    assert first.acquire(0)
    assert not second.acquire(0)
    assert not second.acquire(0.01)
    first.release()
    assert second.acquire(0)
    second.release()


def test_an_object_is_held_once(path: Path) -> None:
    lock = FileLock(path)
    with lock:
        assert not lock.acquire(0)
        assert lock.locked


def test_releasing_what_is_not_held_is_an_error_that_names_it(path: Path) -> None:
    with pytest.raises(RuntimeError, match="lock"):
        FileLock(path).release()


def test_the_with_statement_gives_up_after_its_timeout(path: Path) -> None:
    with (
        FileLock(path),
        pytest.raises(TimeoutError, match=r"0\.01 s"),
        FileLock(path, timeout=0.01),
    ):
        pytest.fail("held twice")


def test_the_file_is_ours_alone(path: Path) -> None:
    with FileLock(path):
        assert path.stat().st_mode & 0o777 == 0o600


@posix_only
def test_a_name_relative_to_a_directory(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with FileLock("here", dir_fd=descriptor):
            assert not FileLock(tmp_path / "here").acquire(0)
    finally:
        os.close(descriptor)


@posix_only
def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    lock = FileLock(path)
    with pytest.raises(OSError, match="symbolic links"):
        lock.acquire(0)
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    assert lock.acquire(0), "the failure must not leave the object locked"
    lock.release()


def test_a_removed_file_is_not_taken_for_the_lock(path: Path) -> None:
    first, second = FileLock(path), FileLock(path)
    first.acquire(0)
    path.unlink()
    assert second.acquire(0)
    assert not FileLock(path).acquire(0)
    first.release()
    second.release()


def test_a_file_removed_between_its_opening_and_its_locking_is_not_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    try_to_lock = file_lock.try_to_lock

    def removing(descriptor: int) -> bool:
        nonlocal tried
        tried += 1
        if tried == 1:
            path.unlink()
        return try_to_lock(descriptor)

    monkeypatch.setattr(file_lock, "try_to_lock", removing)
    lock = FileLock(path)
    assert lock.acquire(10)
    assert tried == 2
    assert not FileLock(path).acquire(0)
    lock.release()


def test_threads_exclude_each_other(path: Path) -> None:
    lock, inside, most = FileLock(path), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            assert lock.acquire(30)
            inside += 1
            most = max(most, inside)
            inside -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_another_process_is_waited_for(path: Path) -> None:
    lock = FileLock(path)
    with Holder(path) as holder:
        assert not lock.acquire(0)
        holder.tell()
        holder.expect("free")
        assert lock.acquire(0)
        lock.release()


@posix_only
def test_a_killed_process_lets_go(path: Path) -> None:
    lock = FileLock(path)
    with Holder(path) as holder:
        holder.process.kill()
        holder.process.wait()
        assert lock.acquire(0)
        lock.release()


@posix_only
def test_a_frozen_process_cannot_freeze_us(path: Path) -> None:
    with Holder(path) as holder:
        holder.process.send_signal(signal.SIGSTOP)
        assert not FileLock(path).acquire(0.05)


@posix_only
def test_a_forked_child_neither_has_nor_keeps_the_lock(path: Path) -> None:
    lock = FileLock(path)
    assert lock.acquire(0)
    (hear, tell), (wait, end) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b"y" if lock.locked or lock.acquire(0) else b"n")
        os.read(wait, 1)  # live on while the parent goes on
        os._exit(0)
    has_it = os.read(hear, 1)
    lock.release()
    is_free = lock.acquire(0)
    os.write(end, b"x")
    os.waitpid(child, 0)
    for descriptor in (hear, tell, wait, end):
        os.close(descriptor)
    lock.release()
    assert (has_it, is_free) == (b"n", True)


@posix_only
def test_the_descriptor_is_not_inherited(path: Path) -> None:
    with FileLock(path) as lock:
        assert not os.get_inheritable(lock.descriptor)


def test_nothing_stays_open(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        with FileLock(path):
            FileLock(path).acquire(0)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
