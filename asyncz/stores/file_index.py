"""What a file store knows of the records in its directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterator
from functools import lru_cache
from hashlib import sha256

from asyncz.clock import SystemClock
from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.base import Record
from asyncz.serializers.values import is_clean_text
from asyncz.stores.base import QuarantineNews
from asyncz.stores.file_changes import NOWHERE
from asyncz.stores.file_directory import RecordDirectory, Signature, nanoseconds_now
from asyncz.stores.file_entries import BY_NAME, FIRST_RETRY, Entry, RunOrder
from asyncz.stores.quarantine import reason
from asyncz.tasks.base import Task

__all__ = ["BY_NAME", "RecordIndex", "name_of"]

CLOCK = SystemClock()  # how long a look takes is up to the machine

LOOK_AGAIN = 1.0
"""Seconds after which all files are looked at even if no scheduler has changed one: people do."""
LOOK_SELDOM = 50
"""But looking at very many takes no more than one part of so many of the time."""
LAST_RETRY = 30.0
_DIGITS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [one + other for one in _DIGITS for other in _DIGITS]
_PLACES = range(250, -1, -10)
_BARE = re.compile(r"[a-z2-7]{52}\.[A-Za-z0-9_-]{1,32}")


@lru_cache(maxsize=4096)
def name_of(task_id: str, suffix: str) -> str:
    """The file name of a task: nothing of the id is in it, so no id can lead anywhere.

    Raises:
        UnicodeEncodeError: The id is not valid text.
    """
    number = int.from_bytes(sha256(task_id.encode()).digest(), "big") << 4
    # As base 32 does, of which the standard library's own takes several times as long.
    return "".join([_PAIRS[number >> place & 1023] for place in _PLACES]) + suffix


class RecordIndex:
    """The parsed records of a directory, kept in step with it. Used under the directory's lock.

    Only what a process that shares the directory has announced is looked at, and, once a second
    or less often if there are very many, all files: those that differ are read again.

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
        self._order = RunOrder(self._entries)
        self._seen = NOWHERE
        self._looked_at = 0.0
        self._look_again = LOOK_AGAIN
        self._last_order = 0

    def look_ahead(self) -> None:
        """Read all files without the lock, which `refresh` then has to be held for less long."""
        self._look_at_all(False)

    def refresh(self, *, thorough: bool = False) -> None:
        """Get in step with the directory.

        Args:
            thorough: Look at each file, and try the unreadable ones, in any case.
        """
        names, seen = self._directory.changes(self._seen)
        now = self._monotonic()
        if thorough or names is None or not 0 <= now - self._looked_at < self._look_again:
            began = CLOCK.monotonic()
            self._look_at_all(thorough)
            self._look_again = max(LOOK_AGAIN, LOOK_SELDOM * (CLOCK.monotonic() - began))
            self._looked_at = now
        else:
            for name in filter(self._is_name, names):
                self._look_at_one(name)
        self._seen = seen
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
            known.settled or self._directory.state() == self._seen.state
        )

    def __len__(self) -> int:
        return len(self._entries)

    def named(self, name: str) -> Entry | None:
        """The entry of that file name."""
        return self._entries.get(name)

    def readable(self) -> Iterator[Entry]:
        """The entries that make tasks."""
        return (entry for entry in self._entries.values() if entry.error is None)

    def scheduled(self, until: int) -> Generator[Entry]:
        """Those of them that are due until then, the earliest first. To be closed."""
        return self._order.up_to(until)

    def earliest(self) -> Entry | None:
        """The one that is due first."""
        return self._order.first()

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

    def begin_change(self, names: Collection[str] | None) -> None:
        """This process changes files now, and tells the index of each by `put` and `drop`.

        Args:
            names: Which; None: any.
        """
        in_step = self._directory.state() == self._seen.state
        seen = self._directory.begin_change(names)
        if in_step:
            self._seen = seen

    def put(self, name: str, signature: Signature, record: Record, data: bytes) -> None:
        """A file has been written, with a record that is known to be good."""
        entry = Entry(name, signature, signature.is_settled(nanoseconds_now()))
        entry.content = hash(data)
        self._learn(entry, record)
        self._enter(entry)

    def drop(self, name: str) -> None:
        """A file is gone."""
        self._entries.pop(name, None)
        self._failed.discard(name)
        self._told.pop(name, None)

    def forget_state(self) -> None:
        """Something went wrong in the middle: look at everything the next time."""
        self._seen = NOWHERE

    def _is_name(self, name: str) -> bool:
        # Whoever can write there may write anything; none of it may lead out of the directory.
        return name.endswith(self._directory.suffix) and _BARE.fullmatch(name) is not None

    def _look_at_one(self, name: str) -> None:
        signature = self._directory.signature(name)
        if signature is None:
            self.drop(name)
        else:
            self._look_at(name, signature, signature.is_settled(nanoseconds_now()), False)

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
            if entry.signature == signature and self._has_same_content(entry):
                entry.settled = settled
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

    def _has_same_content(self, entry: Entry) -> bool:
        """Whether a good record, of a young file that looks the same, is still what is in it."""
        try:
            return entry.error is None and hash(self._directory.read(entry.name)) == entry.content
        except UnreadableRecordError:
            return False

    def _read(self, entry: Entry) -> None:
        now = self._monotonic()
        data = b""
        try:
            data = self._directory.read(entry.name)
            entry.content = hash(data)
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
            self._order.add(entry)

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
            self._order.add(entry)
        else:
            self._failed.add(entry.name)
