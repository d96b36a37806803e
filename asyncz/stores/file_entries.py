"""What a file store keeps in mind of each file, and which of them is due first."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from asyncz.serializers.base import Record
from asyncz.stores.file_directory import Signature

__all__ = ["BY_NAME", "FIRST_RETRY", "Entry", "RunOrder"]

BY_NAME = "file:"
FIRST_RETRY = 1.0
STALE_ALLOWED = 1024


@dataclass(slots=True)
class Entry:
    """One file. It is quarantined while it has an error.

    Args:
        task_id: Of the record; None if that could not be learned.
        next_run: Microseconds since the epoch; None: paused.
        order: Of insertion.
        settled: Whether the signature is sure to tell the next change of the file.
        content: Hash of the bytes.
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
    content: int = 0
    retry_at: float = 0.0
    retry_delay: float = FIRST_RETRY

    @property
    def shown_id(self) -> str:
        """The task's id, or where the record lies."""
        return self.task_id if self.task_id is not None else f"{BY_NAME}{self.name}"

    @property
    def expects(self) -> bool:
        """Whether the task has `expect_every`."""
        return self.record is not None and self.record.get("expect_every") is not None

    @property
    def place(self) -> tuple[int, int, str]:
        """Sorts a scheduled record: by next run time, then by insertion."""
        return self.next_run or 0, self.order, self.name


class RunOrder:
    """The readable, scheduled entries by their places: a heap with lazy deletion.

    Args:
        entries: By name. An item of the heap counts while the entry of its name has its place.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._heap: list[tuple[int, int, str]] = []

    def add(self, entry: Entry) -> None:
        """An entry is new, has another run time, or can be read again."""
        if entry.next_run is None:
            return
        heap = self._heap
        if len(heap) > 2 * len(self._entries) + STALE_ALLOWED:
            heap[:] = {place for place in heap if self._at(place) is not None}
            heapify(heap)
        heappush(heap, entry.place)

    def first(self) -> Entry | None:
        """The one that is due first."""
        heap = self._heap
        while heap:
            if entry := self._at(heap[0]):
                return entry
            heappop(heap)
        return None

    def up_to(self, until: int) -> Generator[Entry]:
        """Those that are due until then, in order. To be closed: until then they are out."""
        heap = self._heap
        out: list[tuple[int, int, str]] = []
        try:
            while heap and heap[0][0] <= until:
                place = heappop(heap)
                entry = self._at(place)
                if entry is not None and (not out or out[-1] != place):
                    out.append(place)
                    yield entry
        finally:
            for place in out:
                heappush(heap, place)

    def _at(self, place: tuple[int, int, str]) -> Entry | None:
        entry = self._entries.get(place[2])
        if entry is None or entry.error is not None or entry.next_run != place[0]:
            return None
        return entry if entry.order == place[1] else None
