"""What a file store knows of the records in its directory."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.base import Record
from asyncz.serializers.values import is_clean_text
from asyncz.stores.base import QuarantineNews
from asyncz.stores.file_directory import RecordDirectory, Signature, nanoseconds_now
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

__all__ = ["BY_NAME", "Entry", "RecordIndex", "name_of"]

LOOK_AGAIN = 1.0
"""Seconds after which all files are looked at even if no scheduler has changed one: people do."""
BY_NAME = "file:"
FIRST_RETRY = 1.0
LAST_RETRY = 30.0


@lru_cache(maxsize=4096)
def name_of(task_id: str, suffix: str) -> str:
    """The file name of a task: nothing of the id is in it, so no id can lead anywhere.

    Raises:
        UnicodeEncodeError: The id is not valid text.
    """
    return b32encode(sha256(task_id.encode()).digest()).decode().rstrip("=").lower() + suffix


@dataclass(slots=True)
class Entry:
    """One file. It is quarantined while it has an error.

    Args:
        task_id: Of the record; None if that could not be learned.
        next_run: Microseconds since the epoch; None: paused.
        order: Of insertion.
        settled: Whether the signature is sure to tell the next change of the file.
        retry_at: When (monotonic) a record with an error is to be tried again, although its file
            is the same: what it needs may have come, such as a newer release of the code.
    """

    name: str
    signature: Signature
    settled: bool = True
    task_id: str | None = None
    record: Record | None = None
    next_run: int | None = None
    order: int = 0
    error: str | None = None
    retry_at: float = 0.0
    retry_delay: float = FIRST_RETRY

    @property
    def shown_id(self) -> str:
        """The task's id, or where the record lies."""
        return self.task_id if self.task_id is not None else f"{BY_NAME}{self.name}"

    @property
    def place(self) -> tuple[int, int, str]:
        """Sorts a scheduled record: by next run time, then by insertion."""
        return self.next_run or 0, self.order, self.name


class RecordIndex:
    """The parsed records of a directory, kept in step with it. Used under the directory's lock.

    While no process that shares the directory has changed it, nothing is looked at, except all
    files once a second. Otherwise each file is, and those that differ are read again.

    Args:
        directory: Where.
        unpack: Makes a record of a file's bytes.
        build: Makes a task of a record; it is a good one if this does not raise.
        monotonic: Seconds, for the times above.
        identify: The task's id that a file's bytes claim, or None.
    """

    def __init__(
        self,
        directory: RecordDirectory,
        unpack: Callable[[bytes], Record],
        build: Callable[[Record], Task],
        monotonic: Callable[[], float],
        identify: Callable[[bytes], str | None],
    ) -> None:
        self._directory = directory
        self._unpack = unpack
        self._build = build
        self._monotonic = monotonic
        self._identify = identify
        self._changed: set[str] = set()
        self._told: dict[str, QuarantineNews] = {}
        self._entries: dict[str, Entry] = {}
        self._failed: set[str] = set()
        self._state: bytes | None = None
        self._looked_at = 0.0
        self._last_order = 0

    def refresh(self, *, thorough: bool = False) -> None:
        """Get in step with the directory.

        Args:
            thorough: Look at each file, and try the unreadable ones, in any case.
        """
        state = self._directory.state()
        now = self._monotonic()
        if thorough or state != self._state or not 0 <= now - self._looked_at < LOOK_AGAIN:
            self._look_at_all(thorough)
            self._state, self._looked_at = state, now
        for name in tuple(self._failed):
            entry = self._entries[name]
            if entry.record is not None and (thorough or now >= entry.retry_at):
                self._validate(entry, now)

    def find(self, task_id: str) -> Entry | None:
        """The entry of the file that the task of that id has, as it is now on the disk."""
        if not is_clean_text(task_id):
            return None
        name = name_of(task_id, self._directory.suffix)
        signature = self._directory.signature(name)
        if signature is None:
            self.drop(name)
            return None
        known = self._entries.get(name)
        if known is not None and known.error is None and self._is_the_same(known, signature):
            return known
        entry = self._look_at(name, signature, signature.is_settled(nanoseconds_now()), True)
        if entry.error is not None and entry.record is not None:
            self._validate(entry, self._monotonic())
        return entry

    def _is_the_same(self, known: Entry, signature: Signature) -> bool:
        # A file that is very young may have changed without a trace, but not by one of us.
        return known.signature == signature and (
            known.settled or self._directory.state() == self._state
        )

    def __len__(self) -> int:
        return len(self._entries)

    def named(self, name: str) -> Entry | None:
        """The entry of that file name."""
        return self._entries.get(name)

    def readable(self) -> Iterator[Entry]:
        """The entries that make tasks."""
        return (entry for entry in self._entries.values() if entry.error is None)

    def quarantined(self) -> Iterator[Entry]:
        """The other entries."""
        return (self._entries[name] for name in sorted(self._failed))

    def take_news(self) -> list[QuarantineNews]:
        """What went into the quarantine and came out of it since the last time."""
        news = []
        for name in self._changed:
            entry, told = self._entries.get(name), self._told.pop(name, None)
            if entry is None:
                continue
            now = QuarantineNews(entry.shown_id, entry.error)
            if entry.error is not None:
                self._told[name] = now
            if now != told and (told is not None or entry.error is not None):
                news.append(now)
        self._changed.clear()
        return news

    def next_order(self) -> int:
        """The order of a task that is added now: higher than all that were ever seen."""
        # The time of day keeps it above those of records that cannot be read at the moment.
        self._last_order = max(self._last_order + 1, nanoseconds_now() // 1000)
        return self._last_order

    def build(self, entry: Entry) -> Task | None:
        """A new task of the entry's record; None, and quarantine, if it makes none any more."""
        assert entry.record is not None  # noqa: S101  # a readable one
        try:
            return self._build(entry.record)
        except UnreadableRecordError as exc:
            self._fail(entry, reason(exc), self._monotonic())
            return None

    def begin_change(self) -> None:
        """This process changes files now, and tells the index of each by `put` and `drop`."""
        in_step = self._directory.state() == self._state
        state = self._directory.begin_change()
        self._state = state if in_step else None

    def put(self, name: str, signature: Signature, record: Record) -> None:
        """A file has been written, with a record that is known to be good."""
        entry = Entry(name, signature, signature.is_settled(nanoseconds_now()))
        self._learn(entry, record)
        self._enter(entry)

    def drop(self, name: str) -> None:
        """A file is gone."""
        self._entries.pop(name, None)
        self._failed.discard(name)
        self._told.pop(name, None)

    def forget_state(self) -> None:
        """Something went wrong in the middle: look at everything the next time."""
        self._state = None

    def _look_at_all(self, thorough: bool) -> None:
        seen = set()
        now = nanoseconds_now()
        for name, signature in self._directory.records():
            seen.add(name)
            self._look_at(name, signature, signature.is_settled(now), thorough)
        for name in self._entries.keys() - seen:
            self.drop(name)

    def _look_at(self, name: str, signature: Signature, settled: bool, thorough: bool) -> Entry:
        entry = self._entries.get(name)
        fresh = Entry(name, signature, settled)
        if entry is not None:
            if entry.signature == signature and not self._is_worth_reading(entry, thorough):
                return entry
            # What was known before its file was spoilt still says whose it is.
            fresh.task_id, fresh.order = entry.task_id, entry.order
            if entry.signature == signature:
                fresh.error, fresh.retry_delay = entry.error, entry.retry_delay
        self._read(fresh)
        self._enter(fresh)
        return fresh

    def _is_worth_reading(self, entry: Entry, thorough: bool) -> bool:
        """Whether a file is to be read again although it looks the same."""
        if entry.record is None:  # it may have been a matter of permissions
            return thorough or not entry.settled or self._monotonic() >= entry.retry_at
        return not entry.settled

    def _read(self, entry: Entry) -> None:
        now = self._monotonic()
        data = b""
        try:
            data = self._directory.read(entry.name)
            record = self._unpack(data)
        except UnreadableRecordError as exc:
            claimed = self._identify(data)
            if self._is_name_of(entry.name, claimed):
                entry.task_id = claimed
            self._fail(entry, reason(exc), now)
            return
        task_id = record.get("id")
        if not self._is_name_of(entry.name, task_id):
            entry.task_id = None
            self._fail(entry, f"The id in the file {entry.name!r} is not the file's own.", now)
            return
        self._learn(entry, record)
        self._validate(entry, now)

    def _is_name_of(self, name: str, task_id: object) -> bool:
        try:
            return isinstance(task_id, str) and name_of(task_id, self._directory.suffix) == name
        except UnicodeEncodeError:
            return False

    def _learn(self, entry: Entry, record: Record) -> None:
        entry.record, entry.task_id = record, record["id"]
        next_run, notes = record.get("next_run_time"), record.get("store")
        entry.next_run = next_run if isinstance(next_run, int) else None
        order = notes.get("order") if isinstance(notes, dict) else None
        entry.order = order if isinstance(order, int) else 0
        self._last_order = max(self._last_order, entry.order)

    def _validate(self, entry: Entry, now: float) -> None:
        assert entry.record is not None  # noqa: S101  # asked for only where there is one
        try:
            self._build(entry.record)
        except UnreadableRecordError as exc:
            self._fail(entry, reason(exc), now)
        else:
            entry.error, entry.retry_delay = None, FIRST_RETRY
            if entry.name in self._told:
                self._changed.add(entry.name)
            self._failed.discard(entry.name)

    def _fail(self, entry: Entry, error: str, now: float) -> None:
        if entry.error is not None:
            entry.retry_delay = min(entry.retry_delay * 2, LAST_RETRY)
        entry.error, entry.retry_at = error, now + entry.retry_delay
        if entry.name in self._entries:
            self._failed.add(entry.name)
            self._changed.add(entry.name)

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        if entry.error is not None or entry.name in self._told:
            self._changed.add(entry.name)
        if entry.error is None:
            self._failed.discard(entry.name)
        else:
            self._failed.add(entry.name)
