"""The directory of a file store: files by name, never outside of it, each replaced as a whole."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from asyncz.clock import SystemClock
from asyncz.exceptions import UnreadableRecordError
from asyncz.file_lock import FileLock
from asyncz.stores.file_changes import Changes, Seen, announce, catch_up, state_of

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
_CHANGE = os.O_RDWR | _COMMON | getattr(os, "O_NONBLOCK", 0)
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
        within: The directory that it is in, open; None: anywhere.
        make: Whether it is made if missing.

    Raises:
        OSError: It is a symbolic link or no directory, or cannot be made or opened.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        mode: int,
        within: RecordDirectory | None = None,
        *,
        make: bool = True,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.suffix = suffix
        self.mode = mode
        self._within = within
        self._make = make
        self.times_opened = 0
        self.open()

    def open(self) -> None:
        """Open it, again if somebody removed it meanwhile. Raises as the constructor does."""
        self._descriptor: int | None = None
        within = None if self._within is None else self._within._descriptor
        if self._make:
            with suppress(FileExistsError):
                if within is None:
                    self.path.mkdir(mode=self.mode, parents=self._within is None)
                else:
                    os.mkdir(self.path.name, self.mode, dir_fd=within)
        if _BY_DESCRIPTOR:
            where = self.path if within is None else self.path.name
            self._descriptor = os.open(where, _OPEN_DIRECTORY, dir_fd=within)
        elif self.path.is_symlink() or not self.path.is_dir():
            raise NotADirectoryError(f"{str(self.path)!r} is not a directory")
        self.times_opened += 1
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

    def replace_all(self, files: Mapping[str, bytes]) -> dict[str, Signature]:
        """As `write_all`, but files may have those names. Raises OSError; some may be in place."""
        temporary: dict[str, str] = {}
        try:
            for name, data in files.items():
                temporary[name] = new = f".asyncz-{os.urandom(8).hex()}.tmp"
                with open(self._create(new), "wb") as file:
                    file.write(data)
            signatures = {name: self._flush(new) for name, new in temporary.items()}
            for name in files:
                self._replace(temporary[name], name)
                del temporary[name]
        finally:
            for left in temporary.values():
                with suppress(OSError):
                    self.remove(left)
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

    def write(
        self, name: str, data: bytes, *, keep_old: bool = False, flush: bool = True
    ) -> Signature:
        """Put a file in place, as a whole or not at all. Lasts only after `sync`.

        Args:
            name: Of the file.
            data: All of it.
            keep_old: Set the one that is there aside first.
            flush: Whether it has to be whole after a power failure.
        """
        temporary = self.prepare(data, flush=flush)
        try:
            written = self.signature(temporary)
            if keep_old:
                self._keep(name)
            self._replace(temporary, name)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        assert written is not None  # noqa: S101  # it was there a moment ago, under the lock
        return written

    def prepare(self, data: bytes, *, flush: bool = True) -> str:
        """Write a file under a temporary name, flushed, and return the name."""
        temporary = f".asyncz-{os.urandom(8).hex()}.tmp"
        descriptor = self._create(temporary)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if flush:
                    os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise
        return temporary

    def put_in_place(self, temporary: str, name: str) -> None:
        """Give a file that `prepare` has written its name. Lasts only after `sync`."""
        self._replace(temporary, name)

    def open_file(self, name: str, *, append: bool = False) -> int:
        """A descriptor of a plain file, to read and to write.

        Args:
            name: The file's.
            append: Whether what is written comes at its end.

        Raises:
            OSError: It is not there, or is not a plain file.
        """
        flags = _CHANGE | os.O_APPEND if append else _CHANGE
        descriptor = os.open(self._place(name), flags, dir_fd=self._descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, f"{name!r} is not a plain file")
        return descriptor

    def lock_on(self, name: str) -> FileLock:
        """A lock whose file has that name."""
        return FileLock(self._place(name), dir_fd=self._descriptor)

    def names(self) -> list[str]:
        """The names of all that is in it."""
        return os.listdir(self.path if self._descriptor is None else self._descriptor)

    def is_removed(self) -> bool:
        """Whether somebody has removed the directory."""
        if self._descriptor is None:
            return not self.path.is_dir()
        return os.fstat(self._descriptor).st_nlink == 0

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
        return state_of(self.lock.descriptor)

    def begin_change(self, names: Collection[str] | None = None) -> Seen:
        """Tell the other processes which files change from now on (None: any), under the lock."""
        return announce(self.lock.descriptor, names)

    def changes(self, seen: Seen) -> Changes:
        """What the other processes have changed since, under the lock."""
        return catch_up(self.lock.descriptor, seen)

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
