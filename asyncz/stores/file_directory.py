"""The directory of a file store: files by name, never outside of it, each replaced as a whole."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from asyncz.clock import SystemClock
from asyncz.exceptions import UnreadableRecordError
from asyncz.file_lock import FileLock

__all__ = ["RecordDirectory", "Signature", "nanoseconds_now"]

LOCK_NAME = ".asyncz-lock"
ASIDE = ".unreadable-"
OLD_ENOUGH = 100_000_000
"""Nanoseconds. A file changed again within one tick of the file system's clock looks the same;
so what was read of a file younger than this is read again."""
MOST_BYTES = 64 * 1024 * 1024

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_COMMON = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | _NO_FOLLOW
# Opening a FIFO somebody put there must not wait for its writer.
_READ = os.O_RDONLY | _COMMON | getattr(os, "O_NONBLOCK", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON
_OPEN_DIRECTORY = os.O_RDONLY | _COMMON | getattr(os, "O_DIRECTORY", 0)

_TEMPORARY = re.compile(r"\.asyncz-[0-9a-f]{16}\.tmp")
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and os.scandir in os.supports_fd


class Signature(NamedTuple):
    """What tells an unchanged file: its inode, modification time and size; and its kind."""

    inode: int
    modified: int
    size: int
    kind: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        return cls(found.st_ino, found.st_mtime_ns, found.st_size, stat.S_IFMT(found.st_mode))

    def is_settled(self, now: int) -> bool:
        """Whether a later change is sure to change it, `now` in nanoseconds since the epoch."""
        return self.modified < now - OLD_ENOUGH


class RecordDirectory:
    """An open directory. All of its calls block; the writing ones are made under `lock`.

    Where the system can, everything is done relative to the directory's descriptor and no link
    is followed: neither a renamed directory nor a planted link leads anywhere else.

    Args:
        path: Made with `mode` if missing, its parents too; an existing one keeps its rights.
        suffix: What the names of records end with.

    Raises:
        OSError: It is a symbolic link or no directory, or cannot be made or opened.
    """

    def __init__(self, path: Path, suffix: str, mode: int) -> None:
        self.path = Path(os.path.abspath(path))
        self.suffix = suffix
        self.mode = mode
        self.open()

    def open(self) -> None:
        """Open it, again if somebody removed it meanwhile. Raises as the constructor does."""
        with suppress(FileExistsError):
            self.path.mkdir(mode=self.mode, parents=True)
        self._descriptor: int | None = None
        if _BY_DESCRIPTOR:
            self._descriptor = os.open(self.path, _OPEN_DIRECTORY)
        elif self.path.is_symlink() or not self.path.is_dir():
            raise NotADirectoryError(f"{str(self.path)!r} is not a directory")
        self.lock = FileLock(self._place(LOCK_NAME), dir_fd=self._descriptor)

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def rights(self) -> int:
        """The permission bits that the directory has."""
        where = self.path if self._descriptor is None else self._descriptor
        return stat.S_IMODE(os.stat(where).st_mode)

    def records(self) -> Iterator[tuple[str, Signature]]:
        """The names that end with the suffix, and their signatures."""
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as found:
            for item in found:
                if item.name.endswith(self.suffix) and not item.name.startswith("."):
                    with suppress(FileNotFoundError):
                        yield item.name, Signature.of(item.stat(follow_symlinks=False))

    def signature(self, name: str) -> Signature | None:
        """The signature of a file; None if there is none of that name."""
        try:
            found = os.stat(self._place(name), dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return Signature.of(found)

    def read(self, name: str) -> bytes:
        """What a file holds. UnreadableRecordError if it is no plain file or cannot be read."""
        try:
            descriptor = os.open(self._place(name), _READ, dir_fd=self._descriptor)
        except OSError as exc:
            link = os.path.islink(self.path / name)
            why = "it is a symbolic link" if link else exc.strerror
            raise UnreadableRecordError(f"The file {name!r} cannot be opened: {why}.") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
                raise UnreadableRecordError(f"{name!r} is not a plain file of a sensible size.")
            return _read_all(descriptor)
        except OSError as exc:
            raise UnreadableRecordError(f"{name!r} cannot be read: {exc.strerror}.") from None
        finally:
            os.close(descriptor)

    def write_all(self, files: Mapping[str, bytes]) -> dict[str, Signature]:
        """Put several files in place. Flushing them one after the other, once all are written,
        is several times faster than one by one: the file system flushes them together.

        Args:
            files: Their names, which are free, and what is to be in them.

        Raises:
            OSError: None of them is in place.
        """
        made: dict[str, str] = {}
        signatures: dict[str, Signature] = {}
        try:
            for name, data in files.items():
                made[name] = temporary = f".asyncz-{os.urandom(8).hex()}.tmp"
                with open(self._create(temporary), "wb") as file:
                    file.write(data)
            for name, temporary in made.items():
                signatures[name] = self._flush(temporary)
            for name, temporary in made.items():
                self._replace(temporary, name)
                made[name] = name
        except BaseException:
            for there in made.values():
                with suppress(OSError):
                    self.remove(there)
            raise
        return signatures

    def _flush(self, name: str) -> Signature:
        descriptor = os.open(self._place(name), _READ, dir_fd=self._descriptor)
        try:
            os.fsync(descriptor)
            return Signature.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def _create(self, name: str) -> int:
        return os.open(self._place(name), _WRITE, 0o600, dir_fd=self._descriptor)

    def write(self, name: str, data: bytes, *, keep_old: bool = False) -> Signature:
        """Put a file in place, as a whole or not at all. Lasts only after `sync`.

        Args:
            name: Of the file.
            data: All of it.
            keep_old: Set the one that is there aside first.
        """
        temporary = f".asyncz-{os.urandom(8).hex()}.tmp"
        descriptor = self._create(temporary)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                written = Signature.of(os.fstat(descriptor))
            if keep_old:
                self._keep(name)
            self._replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        return written

    def remove(self, name: str) -> None:
        """Remove a file. Lasts only after `sync`."""
        os.unlink(self._place(name), dir_fd=self._descriptor)

    def set_aside(self, name: str) -> str:
        """Give a file a name that is no record's, `NAME.unreadable-N`, and return that."""
        aside = self._name_aside(name)
        self._replace(name, aside)
        return aside

    def sync(self) -> None:
        """Make the names on the disk what they are here."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def remove_left_over(self) -> None:
        """Remove what writers that were killed have left; they held the lock, as we do now."""
        with os.scandir(self.path if self._descriptor is None else self._descriptor) as found:
            names = [item.name for item in found if item.is_file(follow_symlinks=False)]
        for name in filter(_TEMPORARY.fullmatch, names):
            with suppress(FileNotFoundError):
                self.remove(name)

    def remove_if_empty(self) -> None:
        """Remove the lock file and the directory, unless there is anything else in it."""
        where = self.path if self._descriptor is None else self._descriptor
        if set(os.listdir(where)) - {LOCK_NAME}:
            return
        with suppress(FileNotFoundError):
            self.remove(LOCK_NAME)
        with suppress(OSError):  # somebody has put something there since, or replaced it
            self.path.rmdir()

    def state(self) -> bytes:
        """What the last change wrote into the lock file; read and written under the lock."""
        descriptor = self.lock.descriptor
        os.lseek(descriptor, 0, os.SEEK_SET)
        # An empty one is new. With a state of its own it cannot pass for another new one later.
        return os.read(descriptor, 64) or self.begin_change()

    def begin_change(self) -> bytes:
        """Tell the other processes that the directory changes, and return the new state.

        Before the change: a writer that is killed in the middle has said so already. It need not
        last: after a power failure no process is left that knows an older state.
        """
        state = os.urandom(16).hex().encode()
        os.lseek(self.lock.descriptor, 0, os.SEEK_SET)
        os.write(self.lock.descriptor, state)
        return state

    def _keep(self, name: str) -> None:
        """Give a file that is to be replaced a second name, so that it is never without one."""
        aside = self._name_aside(name)
        here = self._descriptor
        try:
            os.link(
                self._place(name),
                self._place(aside),
                src_dir_fd=here,
                dst_dir_fd=here,
                follow_symlinks=False,
            )
        except (OSError, NotImplementedError):  # a directory, or a file system without links
            self._replace(name, aside)

    def _name_aside(self, name: str) -> str:
        number = 1
        while self.signature(f"{name}{ASIDE}{number}") is not None:
            number += 1
        return f"{name}{ASIDE}{number}"

    def _replace(self, source: str, target: str) -> None:
        os.replace(
            self._place(source),
            self._place(target),
            src_dir_fd=self._descriptor,
            dst_dir_fd=self._descriptor,
        )

    def _place(self, name: str) -> str:
        return name if self._descriptor is not None else str(self.path / name)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1024 * 1024):
        parts.append(part)
    return b"".join(parts)


def nanoseconds_now() -> int:
    """The machine's time as files carry it, whatever the clock of the scheduler says."""
    return int(SystemClock().now().timestamp() * 1_000_000) * 1000
