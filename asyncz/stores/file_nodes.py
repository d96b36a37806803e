"""The leases of a file store's nodes: a file each, renewed without the lock of the store.

A node is alive as long as its lease file is there. Who buries it removes the file, while nobody
renews it, and only if it has run out; so a renewal cannot bring back a node that was buried, and
nobody is buried who has just been told that his lease goes on.

All nodes are on one machine. So each also holds a lock for as long as its process lives, and the
others need not wait for the lease of one that was killed: the kernel lets go of the lock.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import NamedTuple
from zlib import crc32

from asyncz.clock import Clock
from asyncz.file_lock import FileLock, try_to_lock
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import Pulse
from asyncz.stores.file_directory import RecordDirectory
from asyncz.stores.file_index import name_of

__all__ = [
    "FilePulse",
    "Holds",
    "Lease",
    "LeaseInUseError",
    "bury",
    "read_lease",
    "renew",
    "write_lease",
]

SUFFIX = ".node"
HELD = ".held"
LOCKING = 1.0
"""Seconds; nobody else has a reason to have it."""
TRIES = 20
PAUSE = 0.002
"""How often, and after how many seconds, to try again while somebody else looks at a lease."""


class LeaseInUseError(OSError):
    """Somebody else has the lease file at this moment."""


class Lease(NamedTuple):
    """What is in a lease file. Instants in microseconds.

    Args:
        seen: When the node was heard of last.
        until: How long its lease lasts.
        running: How many runs went on there.
    """

    seen: int
    until: int
    running: int

    @classmethod
    def starting(cls, clock: Clock, seconds: float, running: int = 0) -> Lease:
        """A lease from now on."""
        now = clock.now()
        until = now + timedelta(seconds=seconds)
        return cls(to_microseconds(now), to_microseconds(until), running)

    def to_bytes(self) -> bytes:
        """Always of the same length, so that it can be written over another one."""
        text = b"%020d %020d %010d" % self
        return b"%b %08x\n" % (text, crc32(text))

    @classmethod
    def from_bytes(cls, data: bytes) -> Lease | None:
        """The reverse; None if it is not as it was written."""
        text, _, check = data.rpartition(b" ")
        try:
            if int(check, 16) != crc32(text):
                return None
            return cls(*map(int, text.split()))
        except (TypeError, ValueError):
            return None


def write_lease(files: RecordDirectory, node_id: str, lease: Lease) -> None:
    """Give a node a lease; to be called under the lock of the store."""
    files.write(name_of(node_id, SUFFIX), lease.to_bytes())


def read_lease(files: RecordDirectory, node_id: str) -> Lease | None:
    """The lease of a node; None if it has none, or it cannot be read."""
    try:
        descriptor = files.open_file(name_of(node_id, SUFFIX))
    except OSError:
        return None
    try:
        return _read(descriptor)
    finally:
        os.close(descriptor)


def renew(files: RecordDirectory, node_id: str, lease: Lease) -> bool:
    """Put another lease in the place of a node's.

    Returns:
        False if it has none any more.

    Raises:
        LeaseInUseError: Somebody else has it at this moment; to be tried again.
        OSError: It cannot be written, or the directory is gone.
    """
    try:
        descriptor = files.open_file(name_of(node_id, SUFFIX))
    except FileNotFoundError:
        if files.is_removed():
            raise
        return False
    try:
        if not try_to_lock(descriptor):
            raise LeaseInUseError(f"the lease of {node_id!r} is in use")
        # Whoever removes it has it locked, as we have now.
        if os.fstat(descriptor).st_nlink == 0:
            return False
        os.write(descriptor, lease.to_bytes())
        return True
    finally:
        os.close(descriptor)


def bury(files: RecordDirectory, node_id: str, moment: int | None) -> Lease | None:
    """Take a node's lease away; to be called under the lock of the store.

    Args:
        files: The directory.
        node_id: The node.
        moment: Microseconds; only a lease that has run out by then is taken. None: any.

    Returns:
        The lease that it had (no more than zeros if that is not known); None if it has one still.
    """
    name = name_of(node_id, SUFFIX)
    try:
        descriptor = files.open_file(name)
    except FileNotFoundError:
        return Lease(0, 0, 0)
    try:
        if not _lock_patiently(descriptor):
            return None
        lease = _read(descriptor) or Lease(0, 0, 0)
        if moment is not None and lease.until >= moment:
            return None
        files.remove(name)
        return lease
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Lease | None:
    for _ in range(TRIES):
        os.lseek(descriptor, 0, os.SEEK_SET)
        if lease := Lease.from_bytes(os.read(descriptor, 256)):
            return lease
        sleep(PAUSE)  # it is just being written
    return None


def _lock_patiently(descriptor: int) -> bool:
    for _ in range(TRIES):
        if try_to_lock(descriptor):
            return True
        sleep(PAUSE)
    return False


class Holds:
    """The locks that say of the nodes of this process that it lives."""

    def __init__(self) -> None:
        self._locks: dict[str, FileLock] = {}

    def take(self, files: RecordDirectory, node_id: str) -> None:
        """A node joins by this process."""
        lock = files.lock_on(name_of(node_id, HELD))
        if lock.acquire(LOCKING):
            self._locks[node_id] = lock

    def release(self, files: RecordDirectory, node_id: str) -> None:
        """It has left, or another one has buried it."""
        lock = self._locks.pop(node_id, None)
        if lock is not None:
            lock.release()
        with suppress(FileNotFoundError):
            files.remove(name_of(node_id, HELD))

    def release_all(self) -> None:
        """The nodes of this process are no more."""
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()

    def is_gone(self, files: RecordDirectory, node_id: str) -> bool:
        """Whether the process of a node is known to have ended; to be asked under the lock."""
        if node_id in self._locks:
            return False
        try:
            descriptor = files.open_file(name_of(node_id, HELD))
        except OSError:
            return False
        try:
            return try_to_lock(descriptor)
        finally:
            os.close(descriptor)


class FilePulse(Pulse):
    """Renews a lease from a thread of its own: nothing in it waits for the lock of the store.

    Args:
        path: The directory of the tasks, and the one in it that the lease files are in.
        node_id: The node.
        clock: The host's.
    """

    def __init__(self, path: tuple[Path, Path], node_id: str, clock: Clock) -> None:
        self._path = path
        self._node_id = node_id
        self._clock = clock
        self._files: RecordDirectory | None = None

    async def open(self) -> None:
        await self.close()
        tasks = RecordDirectory(self._path[0], SUFFIX, 0o700, make=False)
        try:
            self._files = RecordDirectory(self._path[1], SUFFIX, 0o700, tasks, make=False)
        finally:
            tasks.close()

    async def beat(self, lease: float, running: int) -> bool:
        files = self._files
        if files is None:
            raise RuntimeError("A pulse beats between open and close only.")
        while True:
            try:
                return renew(files, self._node_id, Lease.starting(self._clock, lease, running))
            except LeaseInUseError:
                await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        files, self._files = self._files, None
        if files is not None:
            files.close()
