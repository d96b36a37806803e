"""The open runs of a file store's ledger: whose they are, which count, which wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncz.enums import RunState
from asyncz.stores.file_waiting import TaskKey, Waiting

__all__ = ["CLAIMED", "RETRYING", "RUNNING", "LiveRun", "LiveRuns", "RunKey", "Said"]

CLAIMED, RUNNING = RunState.CLAIMED.value, RunState.RUNNING.value
RETRYING = RunState.RETRYING.value

RunKey = tuple[str, str, int]
"""A task's id, the kind of its run, and the instant of it in microseconds."""
Said = dict[str, Any]
"""What was said of an occurrence, as it stands in a row. See `RowWriter.say`."""


@dataclass(slots=True)
class LiveRun:
    """A run that is open. Instants in microseconds.

    Args:
        number: Of its own in this journal.
        times: The head's and its followers'.
        once: Whether it is `at_most_once`.
        record: The task's record, if the task was forgotten with this run or after it.
        again: How many of its claims were for another attempt: they are no deaths.
        retry: When it is tried again, while it waits for that.
        said: What was said of its last attempt, if that failed.
        noted: What it has said of itself since.
        asked: Who has asked to cancel it.
    """

    number: int
    task_id: str
    kind: str
    times: list[int]
    generation: int
    once: bool
    record: dict[str, Any] | str | None = None
    owner: str | None = None
    state: str = CLAIMED
    attempt: int = 1
    token: int = 1
    claimed: int = 0
    started: int | None = None
    again: int = 0
    retry: int | None = None
    said: Said | None = None
    noted: Said | None = None
    asked: str | None = None

    @property
    def key(self) -> RunKey:
        """What refers to it; not its task's generation."""
        return self.task_id, self.kind, self.times[0]

    @property
    def task(self) -> TaskKey:
        """Whose it is."""
        return self.task_id, self.generation

    def all_keys(self) -> Iterator[RunKey]:
        """The same of each of its occurrences."""
        return ((self.task_id, self.kind, at) for at in self.times)


class LiveRuns:
    """The open runs, by what they are asked for by.

    One that waits for its next attempt is nobody's, and does not count for its task's limit.
    """

    def __init__(self) -> None:
        self.by_number: dict[int, LiveRun] = {}
        self.owned: dict[str | None, dict[int, LiveRun]] = {}
        """Those that do not wait, by owner."""
        self.active: dict[str, int] = {}
        """How many do not wait, by task."""
        self.waiting = Waiting()
        self.marked: dict[int, LiveRun] = {}
        """Those that somebody has asked to cancel."""
        self._by_key: dict[RunKey, list[LiveRun]] = {}

    def named(self, numbers: Sequence[int]) -> Iterable[LiveRun]:
        """Those of these numbers."""
        return filter(None, map(self.by_number.get, numbers))

    def having(self, key: RunKey) -> Sequence[LiveRun]:
        """Those one of whose occurrences has that key."""
        return self._by_key.get(key, ())

    def has_any(self, task: TaskKey) -> bool:
        """Whether some of a task may be open."""
        return task[0] in self.active or task in self.waiting

    def enter(self, run: LiveRun) -> None:
        """It is open from now on."""
        self.by_number[run.number] = run
        for key in run.all_keys():
            self._by_key.setdefault(key, []).append(run)
        if run.asked is not None:
            self.marked[run.number] = run
        self._count(run)

    def drop(self, run: LiveRun) -> None:
        """It is open no longer."""
        del self.by_number[run.number]
        for key in run.all_keys():
            alike = self._by_key[key]
            alike.remove(run)
            if not alike:
                del self._by_key[key]
        self.marked.pop(run.number, None)
        self._discount(run)

    def hand_over(self, run: LiveRun, owner: str | None) -> None:
        """It is somebody else's, and waits for nothing."""
        self._discount(run)
        run.owner = owner
        run.retry = None
        self._count(run)

    def mark(self, run: LiveRun, by: str) -> None:
        """Somebody has asked to cancel it."""
        run.asked = by
        self.marked[run.number] = run

    def _count(self, run: LiveRun) -> None:
        if run.retry is not None:
            self.waiting.add(run.task, run.retry, run.number)
            return
        self.owned.setdefault(run.owner, {})[run.number] = run
        self.active[run.task_id] = self.active.get(run.task_id, 0) + 1

    def _discount(self, run: LiveRun) -> None:
        if run.retry is not None:
            self.waiting.remove(run.task, run.retry, run.number)
            return
        runs = self.owned[run.owner]
        del runs[run.number]
        if not runs:
            del self.owned[run.owner]
        left = self.active.pop(run.task_id) - 1
        if left:
            self.active[run.task_id] = left
