"""The operations of a file store. All of them block; they are made on the store's own thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import Logger, getLogger

from asyncz.exceptions import (
    AsynczException,
    ConflictIdError,
    StoreError,
    StoreTimeoutError,
    TaskLookupError,
)
from asyncz.serializers.base import Record
from asyncz.serializers.json import to_microseconds
from asyncz.stores.base import TaskAdvance
from asyncz.stores.file_directory import RecordDirectory
from asyncz.stores.file_entries import BY_NAME, Entry
from asyncz.stores.file_index import RecordIndex, name_of
from asyncz.stores.file_ledger import Move
from asyncz.stores.file_options import Companion, FileOptions
from asyncz.stores.file_reading import FileReading
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task

__all__ = ["FileRecords"]


class FileRecords(FileReading):
    """A directory of tasks. Each operation is one hold of the lock between processes.

    Raises:
        StoreTimeoutError: Another process held the lock for all of `lock_timeout`.
        StoreError: The system refused something; also without space on the disk.
    """

    def __init__(self, options: FileOptions, codec: Codec) -> None:
        self._options = options
        self.codec = codec
        self._announced = False
        self._opened = False
        self.is_joined = False
        """Whether a node has joined by this object: the directory must not vanish unnoticed."""
        self.logger: Logger = codec.host.loggers.get("asyncz.stores") or getLogger("asyncz.stores")

    def open(self) -> None:
        """Make the directory ready and look at what is in it."""
        options, codec = self._options, self.codec
        try:
            self.files = RecordDirectory(options.directory, options.suffix, options.mode)
        except OSError as exc:
            raise self._failure(exc) from exc
        self.index = RecordIndex(
            self.files, codec.unpack, codec.build, codec.host.clock.monotonic, codec.identify
        )
        wider = self.files.rights() & ~options.mode
        if wider:
            self.logger.warning(
                "Store %r: who may write to %s may have this app's code called, and others than "
                "its owner have rights there (%s); take them away with chmod %o.",
                options.alias, self.files.path, oct(wider), options.mode,
            )  # fmt: skip
        try:
            self.index.look_ahead()
        except OSError as exc:
            raise self._failure(exc) from exc
        with self.locked():
            self.files.remove_left_over()
            self.index.refresh()
        self._opened = True

    def close(self, cleanup: bool, runs: Companion | None = None) -> None:
        """Give everything back; with `cleanup`, first remove the tasks and an empty directory."""
        files = getattr(self, "files", None)
        if files is None:
            return
        try:
            if cleanup and self._opened:
                with self.locked():
                    self._remove_readable()
                if runs is not None:
                    runs.remove()
                with self.locked():
                    files.remove_if_empty()
        except AsynczException as exc:
            self.logger.error("Store %r: could not clean up: %s", self._options.alias, exc)
        finally:
            if runs is not None:
                runs.close()
            files.close()

    def log_stuck(self) -> None:
        """Say that `close` did not come to its end."""
        self.logger.error(
            "Store %r: the disk of %s does not answer; its thread is left behind.",
            self._options.alias, self._options.directory,
        )  # fmt: skip

    def add(self, task: Task, check_room: Callable[[int, int], None]) -> None:
        record = self.codec.serializer.to_record(task)
        task_id: str = record["id"]
        with self.locked():
            if self.index.find(task_id) is not None:
                raise ConflictIdError(task_id, self._options.alias)
            check_room(len(self.index), 1)
            self._put(record, self.index.next_order())
            self.files.sync()

    def add_all(self, tasks: Sequence[Task], check_room: Callable[[int, int], None]) -> None:
        records = {str(task.id): self.codec.serializer.to_record(task) for task in tasks}
        with self.locked():
            for task_id in records:
                if self.index.find(task_id) is not None:
                    raise ConflictIdError(task_id, self._options.alias)
            check_room(len(self.index), len(records))
            files, by_name = {}, {}
            for task_id, record in records.items():
                record["store"] = {"order": self.index.next_order()}
                name = name_of(task_id, self._options.suffix)
                files[name], by_name[name] = self.codec.pack(record), record
            self._announce(files)
            for name, signature in self.files.write_all(files).items():
                self.index.put(name, signature, by_name[name], files[name])
            self.files.sync()

    def update(self, task: Task) -> None:
        record = self.codec.serializer.to_record(task)
        with self.locked():
            self._update(self._found(record["id"]), record)

    def update_if(self, task: Task, expected: int | None) -> bool:
        record = self.codec.serializer.to_record(task)
        with self.locked():
            entry = self._found(record["id"])
            if entry.error is None and entry.next_run != expected:
                return False
            self._update(entry, record)
        return True

    def _update(self, entry: Entry, record: Record) -> None:
        # A record that cannot be read is somebody's task still; only its name is taken.
        order = entry.order or self.index.next_order()
        self._put(record, order, keep_old=entry.error is not None)
        self.files.sync()

    def delete(self, task_id: str) -> None:
        with self.locked():
            entry = self._found(task_id)
            self._announce((entry.name,))
            if entry.error is None:
                self.files.remove(entry.name)
            else:
                aside = self.files.set_aside(entry.name)
                self.logger.warning(
                    "Store %r: the record of %r cannot be read (%s); it is kept as %s.",
                    self._options.alias, task_id, entry.error, aside,
                )  # fmt: skip
            self.index.drop(entry.name)
            self.files.sync()

    def repair(self, task_id: str, reference: str) -> Task:
        with self.locked():
            entry = self._found(task_id)
            if entry.record is None:
                raise self.codec.left_alone(task_id, entry.error or "")
            record, task = self.codec.repair(entry.record, reference)
            self._put(record, entry.order or self.index.next_order())
            self.files.sync()
        return task

    def remove_all(self) -> None:
        with self.locked():
            self._remove_readable()

    def advance(self, advances: Sequence[TaskAdvance]) -> list[bool]:
        made: list[bool] = []
        with self.locked():
            try:
                names = [name_of(str(step.task.id), self._options.suffix) for step in advances]
                for step in advances:
                    made.append(self._advance(step, names))
            except (OSError, AsynczException) as exc:
                # The steps that were made are made: not to say so would lose their runs.
                if not any(made):
                    raise
                self._log_incomplete(exc)
                made += [False] * (len(advances) - len(made))
            if any(made):
                self._sync_if_possible()
        return made

    def _advance(self, step: TaskAdvance, names: Collection[str]) -> bool:
        entry = self.index.find(str(step.task.id))
        if entry is None or entry.error is not None or entry.record is None:
            return False
        if entry.next_run != to_microseconds(step.expected):
            return False
        self._announce(names)
        if step.next_run_time is None:
            self._remove(entry)
        else:
            moment = to_microseconds(step.next_run_time)
            self._put({**entry.record, "next_run_time": moment}, entry.order)
        return True

    def move_all(self, moves: Sequence[Move], entries: Mapping[str, Entry]) -> None:
        """Make these moves, of which some may have been made; to be called under the lock.

        Args:
            moves: Which.
            entries: Of tasks that were found under this hold of the lock.

        Raises:
            OSError: Some are not made. All can be asked for again.
        """
        changed: dict[str, tuple[int, Record]] = {}
        gone: list[Entry] = []
        for task_id, generation, expected, next_run, forget in moves:
            entry = entries.get(task_id) or self.index.find(task_id)
            if entry is None or entry.record is None or entry.order != generation:
                continue
            if entry.error is not None or entry.next_run != expected:
                continue
            if forget:
                gone.append(entry)
            else:
                record = {**entry.record, "next_run_time": next_run}
                changed[entry.name] = entry.order, record
        self._announce([*changed, *(entry.name for entry in gone)])
        self._replace_all(changed)
        for entry in gone:
            self._remove(entry)
        if changed or gone:
            self.files.sync()

    def _replace_all(self, changed: Mapping[str, tuple[int, Record]]) -> None:
        data = {}
        for name, (order, record) in changed.items():
            record["store"] = {"order": order}
            data[name] = self.codec.pack(record)
        for name, signature in self.files.replace_all(data).items():
            self.index.put(name, signature, changed[name][1], data[name])

    def _sync_if_possible(self) -> None:
        try:
            self.files.sync()
        except OSError as exc:
            self._log_incomplete(exc)

    def _log_incomplete(self, error: Exception) -> None:
        self.index.forget_state()
        self.logger.error(
            "Store %r: some tasks could not be moved on to their next run time: %s",
            self._options.alias, error,
        )  # fmt: skip

    def _found(self, task_id: str) -> Entry:
        entry = self.index.find(task_id)
        if entry is None and task_id.startswith(BY_NAME):
            self.index.refresh(thorough=True)
            listed = self.index.named(task_id.removeprefix(BY_NAME))
            if listed is not None and listed.shown_id == task_id:
                entry = listed
        if entry is None:
            raise TaskLookupError(task_id, self._options.alias)
        return entry

    def _put(self, record: Record, order: int, *, keep_old: bool = False) -> None:
        record["store"] = {"order": order}
        data = self.codec.pack(record)
        name = name_of(record["id"], self._options.suffix)
        self._announce((name,))
        self.index.put(name, self.files.write(name, data, keep_old=keep_old), record, data)

    def _remove(self, entry: Entry) -> None:
        self._announce((entry.name,))
        self.files.remove(entry.name)
        self.index.drop(entry.name)

    def _remove_readable(self) -> None:
        self.index.refresh(thorough=True)
        self._announce(None)
        for entry in list(self.index.readable()):
            self._remove(entry)
        self.files.sync()

    def _announce(self, names: Collection[str] | None) -> None:
        """Tell the other processes, once in an operation, which files it changes (None: any)."""
        if not self._announced:
            self.index.begin_change(names)
            self._announced = True

    @contextmanager
    def locked(self) -> Iterator[None]:
        if not self._acquire():
            raise StoreTimeoutError(
                f"The store {self._options.alias!r} waited {self._options.lock_timeout:g} s for "
                f"another process that uses {str(self.files.path)!r}; see whether one hangs "
                f"there, or give a longer lock_timeout."
            )
        lock = self.files.lock
        self._announced = False
        try:
            yield
        except OSError as exc:
            self.index.forget_state()
            raise self._failure(exc) from exc
        finally:
            lock.release()
            if news := self.index.take_news():
                self.codec.host.quarantine_changed(self._options.alias, news)

    def _acquire(self) -> bool:
        timeout = self._options.lock_timeout
        try:
            try:
                return self.files.lock.acquire(timeout)
            except FileNotFoundError:
                # Somebody removed the directory, perhaps another store that was to clean up.
                was_joined = self.is_joined
                if was_joined and not self.files.path.is_dir():
                    raise self._lost() from None
                self.files.close()
                self.files.open()
                self.index.forget_state()
                self.is_joined = False
                if was_joined:
                    raise self._lost() from None
                return self.files.lock.acquire(timeout)
        except OSError as exc:
            raise self._failure(exc) from exc

    def _lost(self) -> StoreError:
        return StoreError(
            f"The store {self._options.alias!r} has lost its tasks: the directory "
            f"{str(self._options.directory)!r} was removed while it was in use. Put it back from "
            f"a backup, or make it again and add the tasks anew."
        )

    def _failure(self, error: OSError) -> StoreError:
        return StoreError(
            f"The store {self._options.alias!r} cannot use {str(self._options.directory)!r}: "
            f"{error.strerror or error}. Look at the directory's rights and the disk's space; a "
            f"symbolic link in its place is refused."
        )
