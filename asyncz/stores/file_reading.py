"""What a file store is asked for. All of it blocks; it is done on the store's own thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from contextlib import AbstractContextManager, closing
from datetime import datetime

from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.base import QuarantinedTask
from asyncz.stores.file_index import RecordIndex
from asyncz.stores.file_thread import give_way
from asyncz.stores.rows import added_at
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task

__all__ = ["FileReading"]


class FileReading(ABC):
    """The questions about a directory of tasks. Each is one hold of the lock between processes."""

    index: RecordIndex
    codec: Codec

    @abstractmethod
    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock."""

    def lookup(self, task_id: str) -> Task | None:
        with self.locked():
            entry = self.index.find(task_id)
            return self.index.build(entry) if entry is not None and entry.error is None else None

    def due(self, now: datetime, limit: int | None, exclude: Set[str]) -> list[Task]:
        bound = to_microseconds(now)
        tasks: list[Task] = []
        with self.locked():
            self.index.refresh()
            with closing(self.index.scheduled(bound)) as entries:
                for entry in entries:
                    if len(tasks) == limit:
                        break
                    give_way()
                    if entry.task_id not in exclude:
                        tasks.extend(filter(None, [self.index.build(entry)]))
        return tasks

    def next_run(self) -> datetime | None:
        """The earliest next run time there is; to be called under the lock."""
        self.index.refresh()
        return self._earliest(None)

    def next_run_time(self, after: datetime | None) -> datetime | None:
        with self.locked():
            self.index.refresh()
            return self._earliest(None if after is None else to_microseconds(after))

    def _earliest(self, bound: int | None) -> datetime | None:
        if bound is None:
            first = self.index.earliest()
            moment = None if first is None else first.next_run
        else:
            moments = (entry.next_run for entry in self.index.readable())
            moment = min((at for at in moments if at is not None and at > bound), default=None)
        if moment is None:
            return None
        return from_microseconds(moment).astimezone(self.codec.host.timezone)

    def all(self) -> list[Task]:
        with self.locked():
            self.index.refresh(thorough=True)
            entries = list(self.index.readable())
            entries.sort(key=lambda entry: (entry.next_run is None, entry.place))
            return list(filter(None, map(self.index.build, entries)))

    def expecting(self) -> list[tuple[Task, datetime | None]]:
        """The tasks that have `expect_every`, and when they were added."""
        with self.locked():
            self.index.refresh()
            found = [entry for entry in self.index.readable() if entry.expects]
            return [(t, added_at(e.order)) for e in found if (t := self.index.build(e))]

    def quarantined(self) -> list[QuarantinedTask]:
        with self.locked():
            self.index.refresh(thorough=True)
            return [
                QuarantinedTask(entry.shown_id, entry.error or "")
                for entry in self.index.quarantined()
            ]
