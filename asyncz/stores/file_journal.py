"""The journal of a file store's runs: numbered files of checksummed lines, written at their end.

A line is one change, as a whole or not at all: what a writer that was killed has left of one is
passed over. A file that has become long is sealed by its last line, and the next one begins with
all that still goes on; so the sealed ones hold nothing but what has ended.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from zlib import crc32

from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.json import DECODER, ENCODER
from asyncz.stores.file_directory import RecordDirectory
from asyncz.stores.file_thread import give_way

__all__ = ["Change", "Journal", "name_of_part"]

Change = dict[str, Any]
"""What a line says: `op`, and what that needs."""

SEAL = "seal"
_NAME = re.compile(r"runs-([0-9]{8,18})\.log")
_CHUNK = 1024 * 1024


def name_of_part(number: int) -> str:
    """The file of that number."""
    return f"runs-{number:08d}.log"


def _name_beside(number: int) -> str:
    return f"runs-{number:08d}.index"


def to_line(change: Change) -> bytes:
    """A change as it is written."""
    # Half of a surrogate pair becomes an escape, which JSON has for it.
    data = ENCODER.encode(change).encode(errors="backslashreplace")
    return b"%08x %b\n" % (crc32(data), data)


def from_line(line: bytes) -> Change | None:
    """The reverse; None if it is not as it was written."""
    try:
        if int(line[:8], 16) != crc32(memoryview(line)[9:]):
            return None
        change = DECODER.decode(line[9:].decode())
    except (ValueError, RecursionError):
        return None
    return change if isinstance(change, dict) else None


class Journal:
    """The files of the journal, of which the last one is open. Used under the store's lock.

    Args:
        files: The directory.
        report: Told, once, of each line that cannot be read.
    """

    def __init__(self, files: RecordDirectory, report: Callable[[str], None]) -> None:
        self._files = files
        self._report = report
        self._reported: set[tuple[int, int]] = set()
        self.damaged: set[int] = set()
        """The numbers of the files in which lines cannot be read, as far as they were read."""
        self._descriptor: int | None = None
        self._is_torn = False
        self.number = 0
        self.end = 0
        """Of the last file: its number, and how far it has been read."""
        self.head_bytes = 0
        """How long its first line is."""

    @property
    def is_open(self) -> bool:
        """Whether a file is open."""
        return self._descriptor is not None

    def parts(self) -> list[int]:
        """The numbers of the files there are, in order."""
        found = (_NAME.fullmatch(name) for name in self._files.names())
        return sorted(int(match[1]) for match in found if match)

    def open(self, number: int) -> None:
        """Turn to a file; nothing of it has been read."""
        self.close()
        self._descriptor = self._files.open_file(name_of_part(number), append=True)
        self.number, self.end, self._is_torn = number, 0, False

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def is_removed(self) -> bool:
        """Whether somebody has removed the file that is open."""
        return self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0

    def read_on(self) -> list[Change]:
        """What has been written into the open file since."""
        assert self._descriptor is not None  # noqa: S101  # it is open
        if os.fstat(self._descriptor).st_size == self.end:
            return []
        data = _read_from(self._descriptor, self.end)
        whole = data.rfind(b"\n") + 1
        # Nobody writes now, so what comes behind the last end of a line is all there will be.
        self._is_torn = whole < len(data)
        if not self.end:
            self.head_bytes = data.find(b"\n") + 1
        changes = list(self._changes(self.number, self.end, data[:whole]))
        self.end += whole
        return changes

    def read_part(self, number: int, until: int | None = None, having: bytes = b"") -> list[Change]:
        """What is in a file. OSError if it is gone.

        Args:
            number: The file's.
            until: How far to read; None: all of it.
            having: Only lines with these bytes in them.
        """
        descriptor = self._files.open_file(name_of_part(number))
        try:
            data = _read_from(descriptor, 0, until)
        finally:
            os.close(descriptor)
        return list(self._changes(number, 0, data, having))

    def read_span(
        self, number: int, start: int, until: int | None = None, having: bytes = b""
    ) -> Iterator[tuple[int, Change]]:
        """What is in a part of a file, and where; likewise. It begins where a line does."""
        descriptor = self._files.open_file(name_of_part(number))
        try:
            data = _read_from(descriptor, start, until)
        finally:
            os.close(descriptor)
        return self._placed(number, start, data, having)

    def size_of(self, number: int) -> int:
        """How long a file is. OSError if it is gone."""
        found = self._files.signature(name_of_part(number))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", name_of_part(number))
        return found.size

    def read_beside(self, number: int) -> bytes | None:
        """What was put beside a file; None: nothing that can be read."""
        try:
            return self._files.read(_name_beside(number))
        except UnreadableRecordError:
            return None

    def put_beside(self, number: int, data: bytes) -> None:
        """Keep something beside a file that is sealed, if that is there; removed with it."""
        if self._files.signature(name_of_part(number)) is not None:
            self._files.write(_name_beside(number), data, flush=False)

    def _changes(
        self, number: int, start: int, data: bytes, having: bytes = b""
    ) -> Iterator[Change]:
        return (change for _, change in self._placed(number, start, data, having))

    def _placed(
        self, number: int, start: int, data: bytes, having: bytes
    ) -> Iterator[tuple[int, Change]]:
        for line in data.split(b"\n"):
            is_wanted = bool(line) and having in line
            if is_wanted:
                give_way()
            change = from_line(line) if is_wanted else None
            if change is not None:
                yield start, change
            elif is_wanted and (number, start) not in self._reported:
                self._reported.add((number, start))
                self.damaged.add(number)
                self._report(f"a line at {start} of {name_of_part(number)} cannot be read")
            start += len(line) + 1

    def append(self, change: Change, *, sync: bool = True) -> None:
        """Write a change behind all others.

        Args:
            change: What has happened.
            sync: Whether it has to last from now on.

        Raises:
            OSError: It is not written.
        """
        assert self._descriptor is not None  # noqa: S101  # it is open
        start = os.fstat(self._descriptor).st_size
        line = b"\n" * self._is_torn + to_line(change)
        try:
            _write_all(self._descriptor, line)
            if sync:
                os.fsync(self._descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)
            raise
        self.end, self._is_torn = start + len(line), False

    def begin(self, number: int, head: Change) -> list[Change]:
        """Make a new file that begins with this, turn to it, and return what is in it.

        The last one is sealed.
        """
        ready = self._files.prepare(to_line(head))
        try:
            if self._descriptor is not None:
                self.append({"op": SEAL})
            self._files.put_in_place(ready, name_of_part(number))
        except BaseException:
            with suppress(OSError):
                self._files.remove(ready)
            raise
        self._files.sync()
        self.open(number)
        return self.read_on()

    def is_whole(self, number: int) -> bool:
        """Whether all of a file can be read."""
        self.read_part(number)
        return number not in self.damaged

    def remove(self, number: int) -> None:
        """Remove a file, if it is there."""
        for name in (name_of_part(number), _name_beside(number)):
            with suppress(FileNotFoundError):
                self._files.remove(name)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read_from(descriptor: int, start: int, until: int | None = None) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    parts: list[bytes] = []
    left = float("inf") if until is None else until - start
    while left > 0 and (part := os.read(descriptor, int(min(left, _CHUNK)))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
