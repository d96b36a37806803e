"""A lock that processes on one machine share through a file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import sleep
from types import TracebackType
from weakref import WeakSet

from asyncz.clock import SystemClock

__all__ = ["FileLock", "try_to_lock", "unlock"]

FIRST_PAUSE = 0.0005
LONGEST_PAUSE = 0.02
"""Seconds between two tries. The kernel is never asked to wait for the lock itself: a holder that
was stopped would then freeze this process beyond any time limit."""

_OPEN_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO in its place must not block the open
    | getattr(os, "O_NOINHERIT", 0)
)

if sys.platform == "win32":
    import msvcrt

    def try_to_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_to_lock(descriptor: int) -> bool:
        """Lock an open file if nobody else has; closing it, or dying, lets go of it again."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def unlock(descriptor: int) -> None:
        """Let go of an open file."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class FileLock:
    """An exclusive lock between processes, and between the threads of each.

    The kernel lets go of it when its process dies, however that happens. One object is held at
    most once: a second `acquire` waits, in the same thread too. Any thread may release it.

    Args:
        path: The lock file; made if missing, with mode 0600, and never removed. A symbolic link
            in its place is refused.
        dir_fd: A descriptor of the directory that `path` is relative to.
        timeout: Seconds that the `with` statement waits; None: for as long as it takes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dir_fd: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self._dir_fd = dir_fd
        self._descriptor: int | None = None
        self._threads = Lock()

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The open lock file, for what its holder wants to write there. RuntimeError: not held."""
        if self._descriptor is None:
            raise RuntimeError(f"The lock {str(self.path)!r} is not held; acquire it first.")
        return self._descriptor

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the lock.

        Args:
            timeout: Seconds to wait; 0: one try; None: as long as it takes.

        Returns:
            Whether it is held now.

        Raises:
            OSError: The lock file cannot be opened.
        """
        clock = SystemClock()
        deadline = None if timeout is None else clock.monotonic() + max(timeout, 0)
        if not self._threads.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            return False
        try:
            pause = FIRST_PAUSE
            while not self._try_once():
                left = LONGEST_PAUSE if deadline is None else deadline - clock.monotonic()
                if left <= 0:
                    return False
                sleep(min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE)
        finally:
            if self._descriptor is None:
                self._threads.release()
        return True

    def release(self) -> None:
        """Let go of the lock. RuntimeError if this object does not hold it."""
        descriptor = self.descriptor
        self._descriptor = None
        _held.discard(self)
        try:
            # Closing alone would leave it to a child that was forked meanwhile.
            unlock(descriptor)
        finally:
            os.close(descriptor)
            self._threads.release()

    def _try_once(self) -> bool:
        with self._opened() as descriptor:
            if not try_to_lock(descriptor) or not self._is_still_there(descriptor):
                return False
            _held.add(self)
            self._descriptor = descriptor
            return True

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The lock file, closed again unless it was locked."""
        descriptor = os.open(self.path, _OPEN_FLAGS, 0o600, dir_fd=self._dir_fd)
        try:
            yield descriptor
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)

    def _is_still_there(self, descriptor: int) -> bool:
        # Between our opening and our locking it, its last holder may have removed the file.
        try:
            there = os.stat(self.path, dir_fd=self._dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _forget_after_fork(self) -> None:
        # The lock is the parent's: closing our copy leaves it held there, unlocking would not.
        descriptor, self._descriptor = self._descriptor, None
        self._threads = Lock()
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> FileLock:
        if not self.acquire(self.timeout):
            raise TimeoutError(
                f"The lock {str(self.path)!r} was held by another process or thread for all of "
                f"{self.timeout:g} s; wait for it to end, or allow a longer timeout."
            )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<FileLock {str(self.path)!r} {'held' if self.locked else 'free'}>"


_held: WeakSet[FileLock] = WeakSet()


def _forget_held_after_fork() -> None:
    for lock in list(_held):
        lock._forget_after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_held_after_fork)
