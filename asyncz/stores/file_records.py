"""The operations of a file store. All of them block; they are made on the store's own thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from logging import Logger, getLogger
from pathlib import Path

from asyncz.exceptions import (
    AsynczException,
    ConflictIdError,
    StoreError,
    StoreTimeoutError,
    TaskLookupError,
)
from asyncz.serializers.base import Record
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.base import QuarantinedTask, TaskAdvance
from asyncz.stores.file_directory import RecordDirectory
from asyncz.stores.file_index import BY_NAME, Entry, RecordIndex, name_of
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task

__all__ = ["FileOptions", "FileRecords"]


@dataclass(frozen=True)
class FileOptions:
    """What a file store was made with; see there."""

    directory: Path
    suffix: str
    mode: int
    lock_timeout: float
    alias: str


class FileRecords:
    """A directory of tasks. Each operation is one hold of the lock between processes.

    Raises:
        StoreTimeoutError: Another process held the lock for all of `lock_timeout`.
        StoreError: The system refused something; also without space on the disk.
    """

    def __init__(self, options: FileOptions, codec: Codec) -> None:
        self._options = options
        self._codec = codec
        self._announced = False
        self._opened = False
        self._logger: Logger = codec.host.loggers.get("asyncz.stores") or getLogger("asyncz.stores")

    def open(self) -> None:
        """Make the directory ready and look at what is in it."""
        options, codec = self._options, self._codec
        try:
            self._files = RecordDirectory(options.directory, options.suffix, options.mode)
        except OSError as exc:
            raise self._failure(exc) from exc
        self._index = RecordIndex(
            self._files, codec.unpack, codec.build, codec.host.clock.monotonic, codec.identify
        )
        wider = self._files.rights() & ~options.mode
        if wider:
            self._logger.warning(
                "Store %r: who may write to %s may have this app's code called, and others than "
                "its owner have rights there (%s); take them away with chmod %o.",
                options.alias, self._files.path, oct(wider), options.mode,
            )  # fmt: skip
        with self._locked():
            self._files.remove_left_over()
            self._index.refresh()
        self._opened = True

    def close(self, cleanup: bool) -> None:
        """Give everything back; with `cleanup`, first remove the tasks and an empty directory."""
        files = getattr(self, "_files", None)
        if files is None:
            return
        try:
            if cleanup and self._opened:
                with self._locked():
                    self._remove_readable()
                    files.remove_if_empty()
        except AsynczException as exc:
            self._logger.error("Store %r: could not clean up: %s", self._options.alias, exc)
        finally:
            files.close()

    def log_stuck(self) -> None:
        """Say that `close` did not come to its end."""
        self._logger.error(
            "Store %r: the disk of %s does not answer; its thread is left behind.",
            self._options.alias, self._options.directory,
        )  # fmt: skip

    def add(self, task: Task, check_room: Callable[[int, int], None]) -> None:
        record = self._codec.serializer.to_record(task)
        task_id: str = record["id"]
        with self._locked():
            if self._index.find(task_id) is not None:
                raise ConflictIdError(task_id, self._options.alias)
            check_room(len(self._index), 1)
            self._put(record, self._index.next_order())
            self._files.sync()

    def add_all(self, tasks: Sequence[Task], check_room: Callable[[int, int], None]) -> None:
        records = {str(task.id): self._codec.serializer.to_record(task) for task in tasks}
        with self._locked():
            for task_id in records:
                if self._index.find(task_id) is not None:
                    raise ConflictIdError(task_id, self._options.alias)
            check_room(len(self._index), len(records))
            files, by_name = {}, {}
            for task_id, record in records.items():
                record["store"] = {"order": self._index.next_order()}
                name = name_of(task_id, self._options.suffix)
                files[name], by_name[name] = self._codec.pack(record), record
            self._announce()
            for name, signature in self._files.write_all(files).items():
                self._index.put(name, signature, by_name[name])
            self._files.sync()

    def update(self, task: Task) -> None:
        record = self._codec.serializer.to_record(task)
        with self._locked():
            entry = self._found(record["id"])
            # A record that cannot be read is somebody's task still; only its name is taken.
            order = entry.order or self._index.next_order()
            self._put(record, order, keep_old=entry.error is not None)
            self._files.sync()

    def delete(self, task_id: str) -> None:
        with self._locked():
            entry = self._found(task_id)
            self._announce()
            if entry.error is None:
                self._files.remove(entry.name)
            else:
                aside = self._files.set_aside(entry.name)
                self._logger.warning(
                    "Store %r: the record of %r cannot be read (%s); it is kept as %s.",
                    self._options.alias, task_id, entry.error, aside,
                )  # fmt: skip
            self._index.drop(entry.name)
            self._files.sync()

    def repair(self, task_id: str, reference: str) -> Task:
        with self._locked():
            entry = self._found(task_id)
            if entry.record is None:
                raise self._codec.left_alone(task_id, entry.error or "")
            record, task = self._codec.repair(entry.record, reference)
            self._put(record, entry.order or self._index.next_order())
            self._files.sync()
        return task

    def remove_all(self) -> None:
        with self._locked():
            self._remove_readable()

    def lookup(self, task_id: str) -> Task | None:
        with self._locked():
            entry = self._index.find(task_id)
            return self._index.build(entry) if entry is not None and entry.error is None else None

    def due(self, now: datetime, limit: int | None, exclude: Set[str]) -> list[Task]:
        bound = to_microseconds(now)
        tasks: list[Task] = []
        with self._locked():
            self._index.refresh()
            due = [item for item in self._scheduled() if item[0] <= bound]
            for _, entry in sorted(due, key=lambda item: item[1].place):
                if len(tasks) == limit:
                    break
                if entry.task_id not in exclude:
                    tasks.extend(filter(None, [self._index.build(entry)]))
        return tasks

    def next_run_time(self, after: datetime | None) -> datetime | None:
        bound = None if after is None else to_microseconds(after)
        with self._locked():
            self._index.refresh()
            moments = [moment for moment, _ in self._scheduled() if bound is None or moment > bound]
        if not moments:
            return None
        return from_microseconds(min(moments)).astimezone(self._codec.host.timezone)

    def all(self) -> list[Task]:
        with self._locked():
            self._index.refresh(thorough=True)
            entries = list(self._index.readable())
            entries.sort(key=lambda entry: (entry.next_run is None, entry.place))
            return list(filter(None, map(self._index.build, entries)))

    def quarantined(self) -> list[QuarantinedTask]:
        with self._locked():
            self._index.refresh(thorough=True)
            return [
                QuarantinedTask(entry.shown_id, entry.error or "")
                for entry in self._index.quarantined()
            ]

    def advance(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        made: list[bool] = []
        with self._locked():
            try:
                for step in advances:
                    made.append(self._advance(step))
            except (OSError, AsynczException) as exc:
                # The steps that were made are made: not to say so would lose their runs.
                if not any(made):
                    raise
                self._log_incomplete(exc)
                made += [False] * (len(advances) - len(made))
            if any(made):
                self._sync_if_possible()
        return made

    def _advance(self, step: TaskAdvance) -> bool:
        entry = self._index.find(str(step.task.id))
        if entry is None or entry.error is not None or entry.record is None:
            return False
        if entry.next_run != to_microseconds(step.expected):
            return False
        if step.next_run_time is None:
            self._remove(entry)
        else:
            moment = to_microseconds(step.next_run_time)
            self._put({**entry.record, "next_run_time": moment}, entry.order)
        return True

    def _sync_if_possible(self) -> None:
        try:
            self._files.sync()
        except OSError as exc:
            self._log_incomplete(exc)

    def _log_incomplete(self, error: Exception) -> None:
        self._index.forget_state()
        self._logger.error(
            "Store %r: some tasks could not be moved on to their next run time: %s",
            self._options.alias, error,
        )  # fmt: skip

    def _found(self, task_id: str) -> Entry:
        entry = self._index.find(task_id)
        if entry is None and task_id.startswith(BY_NAME):
            self._index.refresh(thorough=True)
            listed = self._index.named(task_id.removeprefix(BY_NAME))
            if listed is not None and listed.shown_id == task_id:
                entry = listed
        if entry is None:
            raise TaskLookupError(task_id, self._options.alias)
        return entry

    def _scheduled(self) -> Iterator[tuple[int, Entry]]:
        for entry in self._index.readable():
            if entry.next_run is not None:
                yield entry.next_run, entry

    def _put(self, record: Record, order: int, *, keep_old: bool = False) -> None:
        record["store"] = {"order": order}
        data = self._codec.pack(record)
        name = name_of(record["id"], self._options.suffix)
        self._announce()
        self._index.put(name, self._files.write(name, data, keep_old=keep_old), record)

    def _remove(self, entry: Entry) -> None:
        self._announce()
        self._files.remove(entry.name)
        self._index.drop(entry.name)

    def _remove_readable(self) -> None:
        self._index.refresh(thorough=True)
        for entry in list(self._index.readable()):
            self._remove(entry)
        self._files.sync()

    def _announce(self) -> None:
        if not self._announced:
            self._index.begin_change()
            self._announced = True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._acquire():
            raise StoreTimeoutError(
                f"The store {self._options.alias!r} waited {self._options.lock_timeout:g} s for "
                f"another process that uses {str(self._files.path)!r}; see whether one hangs "
                f"there, or give a longer lock_timeout."
            )
        lock = self._files.lock
        self._announced = False
        try:
            yield
        except OSError as exc:
            self._index.forget_state()
            raise self._failure(exc) from exc
        finally:
            lock.release()
            if news := self._index.take_news():
                self._codec.host.quarantine_changed(self._options.alias, news)

    def _acquire(self) -> bool:
        timeout = self._options.lock_timeout
        try:
            try:
                return self._files.lock.acquire(timeout)
            except FileNotFoundError:
                # Somebody removed the directory, perhaps another store that was to clean up.
                self._files.close()
                self._files.open()
                self._index.forget_state()
                return self._files.lock.acquire(timeout)
        except OSError as exc:
            raise self._failure(exc) from exc

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(
            f"The store {self._options.alias!r} cannot use {str(self._options.directory)!r}: "
            f"{error.strerror or error}. Look at the directory's rights and the disk's space; a "
            f"symbolic link in its place is refused."
        )
