"""What becomes of runs in a file store that nobody has any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.json import from_microseconds
from asyncz.stores.cluster import OpenRun, RunRef
from asyncz.stores.fates import DELETED, why_ended
from asyncz.stores.file_claims import read_kept
from asyncz.stores.file_index import RecordIndex
from asyncz.stores.file_live import RUNNING, LiveRun, LiveRuns
from asyncz.stores.file_thread import give_way
from asyncz.stores.quarantine import reason
from asyncz.stores.serializing import Codec
from asyncz.tasks.base import Task

__all__ = ["Fates", "TakeOver"]

TRY_AGAIN = 30.0
"""Seconds after which a run is tried again whose task could not be read here."""
TRIED_ANYWAY = 16
"""But so many of those that wait for an attempt are, each time: it costs little."""


class Fates(NamedTuple):
    """What becomes of runs.

    Args:
        taken: They are run again, with these tasks.
        ended: They are not, and why.
    """

    taken: list[tuple[LiveRun, Task]]
    ended: list[tuple[LiveRun, RunState, str]]


class TakeOver:
    """Decides what becomes of runs, and reads their tasks.

    Args:
        index, codec: The store's.
    """

    def __init__(self, index: RecordIndex, codec: Codec) -> None:
        self._index = index
        self._codec = codec
        self._monotonic = codec.host.clock.monotonic
        self._retry_at: dict[int, float] = {}

    def is_worth_trying(self, run: LiveRun) -> bool:
        """Whether its task is not known to be one that cannot be read here."""
        return not self._retry_at or self._monotonic() >= self._retry_at.get(run.number, 0.0)

    def decide(self, runs: Iterable[LiveRun], max_attempts: int, limit: int) -> Fates:
        """What becomes of these, of so many at most; the others are left as they are."""
        taken: list[tuple[LiveRun, Task]] = []
        ended: list[tuple[LiveRun, RunState, str]] = []
        for run in runs:
            if len(taken) + len(ended) >= limit:
                break
            state = _end_of(run, max_attempts)
            task = None
            if state is None:
                task, error = self.read_task(run)
                if task is None and error == DELETED:
                    state = RunState.CANCELLED
            if state is not None:
                ended.append((run, state, why_ended(state, run.owner, run.attempt)))
            elif task is not None:
                taken.append((run, task))
                self._retry_at.pop(run.number, None)
            else:
                self._retry_at[run.number] = self._monotonic() + TRY_AGAIN
        return Fates(taken, ended)

    def decide_attempts(self, live: LiveRuns, now: int, limit: int) -> Fates:
        """What becomes of those whose next attempt is due, of so many at most; likewise."""
        fates = Fates([], [])
        given: dict[str, int] = {}
        patience = TRIED_ANYWAY
        with closing(live.waiting.due(now)) as tasks:
            for key in tasks:
                most = limit - len(fates.taken) - len(fates.ended)
                if most <= 0:
                    break
                give_way()
                runs = list(live.named(live.waiting.of(key, now, most)))
                if not self.is_worth_trying(runs[0]):
                    patience -= 1
                    if patience < 0:
                        continue
                active = live.active.get(key[0], 0) + given.get(key[0], 0)
                given[key[0]] = given.get(key[0], 0) + self._attempt(runs, active, fates)
        return fates

    def _attempt(self, runs: Sequence[LiveRun], active: int, fates: Fates) -> int:
        """The same of runs of one task, of which others go on; how many are taken."""
        task, error = self.read_task(runs[0])
        if task is None and error == DELETED:
            fates.ended.extend((run, RunState.CANCELLED, DELETED) for run in runs)
        if task is None:
            self._retry_at[runs[0].number] = self._monotonic() + TRY_AGAIN
            return 0
        self._retry_at.pop(runs[0].number, None)
        chosen = runs[: max(0, task.max_instances - active)]
        for run in chosen:
            # To each a task of its own, since they are changed.
            own = task if run is runs[0] else self.read_task(run)[0]
            fates.taken.append((run, own or task))
        return len(chosen)

    def read_task(self, run: LiveRun) -> tuple[Task | None, str | None]:
        """The task of a run, or why there is none."""
        if run.record is not None:
            try:
                return read_kept(self._codec, run.record), None
            except UnreadableRecordError as exc:
                return None, reason(exc)
        entry = self._index.find(run.task_id)
        if entry is None:
            return None, DELETED
        if entry.error is None and entry.order != run.generation:
            return None, DELETED  # it is another task that has this id now
        task = None if entry.error is not None else self._index.build(entry)
        return (task, None) if task is not None else (None, entry.error)

    def open_run(self, run: LiveRun, task: Task | None, error: str | None) -> OpenRun:
        """What its owner is told of a run."""
        return OpenRun(
            RunRef(run.task_id, RunKind(run.kind), from_microseconds(run.times[0]), run.token),
            RunState.RUNNING if run.state == RUNNING else RunState.CLAIMED,
            run.attempt,
            tuple(map(from_microseconds, run.times)),
            Delivery.AT_MOST_ONCE if run.once else Delivery.AT_LEAST_ONCE,
            task,
            error,
        )


def _end_of(run: LiveRun, max_attempts: int) -> RunState | None:
    if run.once and run.state == RUNNING:
        return RunState.LOST
    return RunState.ABANDONED if run.attempt - run.again >= max_attempts else None
