"""What became of the runs of a store that keeps none, such as the one in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run, readable_notes
from asyncz.runs.policy import FAILURES, History
from asyncz.stores.cluster import RunOutcome, Unrun
from asyncz.tasks.base import Task

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["LocalHistory", "Special", "said_of"]

KEPT = 1_000
"""Settled runs that are remembered: so many that failed, were lost or were abandoned, and so many
others. Few enough that the garbage collector does not notice."""
SURPLUS = 1_000
"""Beyond those, before the ones that nobody will ask for are looked for among them."""


class Special(NamedTuple):
    """An open run that is not an ordinary one: by hand, for several instants, or one of several."""

    since: datetime
    kind: RunKind
    run_times: tuple[datetime, ...]


class _Ended(NamedTuple):
    """What became of an occurrence that is not an ordinary one, or did not go well."""

    task_id: str
    kind: RunKind
    since: datetime
    finished_at: datetime
    outcome: RunOutcome
    attempt: int


class _NotRun(NamedTuple):
    """Occurrences that were not run."""

    task_id: str
    unrun: Unrun
    kind: RunKind  # which makes the instant the fourth thing of each of these
    finished_at: datetime


Ordinary = tuple[str, datetime, datetime, datetime]
"""A run that went well: its task, its instant, when it was begun and when it ended. A bare tuple of
such things is nothing that the garbage collector would look at twice."""
Entry = Ordinary | _Ended | _NotRun


class LocalHistory:
    """The settled runs of one store, as many and as long as their tasks' `history` says.

    An entry for each, in the order in which they ended; there may be some that are none of the
    task's latest any more, as they are looked for only when there are many, and before somebody
    sees them.

    Args:
        engine, alias: Whose.
    """

    def __init__(self, engine: Engine, alias: str) -> None:
        self._engine = engine
        self._alias = alias
        self._now = engine.clock.now
        self._others: deque[Entry] = deque()
        self._failures: deque[Entry] = deque()
        self._histories: dict[str, History] = {}
        self._successes: dict[str, datetime | None] = {}

    # What is noted.

    def meet(self, task: Task, goes_on: bool) -> None:
        """A task is run: remember what it says about its history, and its last success.

        Args:
            goes_on: Whether it will be due again.
        """
        task_id = str(task.id)
        if task.history is not None:
            self._histories[task_id] = task.history
        elif task_id in self._histories:
            del self._histories[task_id]
        if task.expect_every is not None:
            if goes_on:
                self._successes.setdefault(task_id, None)
            else:
                self._successes.pop(task_id, None)

    def forget_successes(self, task_id: str | None) -> None:
        """A task was deleted; None: all were."""
        if task_id is None:
            self._successes.clear()
        else:
            self._successes.pop(task_id, None)

    def last_success(self, task_id: str) -> datetime | None:
        """When a task that has `expect_every` has gone well for the last time."""
        return self._successes.get(task_id)

    def succeeded(self, task_id: str, run_time: datetime, since: datetime) -> None:
        """An ordinary run went well."""
        now, others = self._now(), self._others
        others.append((task_id, run_time, since, now))
        if len(others) > KEPT + SURPLUS:
            self._tidy(others, False)
        if task_id in self._successes:
            self._successes[task_id] = now

    def ended(self, task_id: str, run: Special, outcome: RunOutcome, attempt: int) -> None:
        """An occurrence of another run is settled."""
        entry = _Ended(task_id, run.kind, run.since, self._now(), outcome, attempt)
        has_failed = outcome.state in FAILURES
        entries = self._failures if has_failed else self._others
        entries.append(entry)
        if len(entries) > KEPT + SURPLUS:
            self._tidy(entries, has_failed)
        if outcome.state is RunState.SUCCEEDED and task_id in self._successes:
            self._successes[task_id] = entry.finished_at

    def not_run(self, task_id: str, unrun: Unrun, when: datetime) -> None:
        """Occurrences are not run."""
        self._others.append(_NotRun(task_id, unrun, RunKind.SCHEDULED, when))
        if len(self._others) > KEPT + SURPLUS:
            self._tidy(self._others, False)

    # What is kept.

    def _tidy(self, entries: deque[Entry], are_failures: bool) -> None:
        """Forget what is not of interest any more, and then the oldest of what are too many."""
        kept: list[Entry] = []
        counts: dict[str, int] = {}
        default, own, now = self._engine.settings.history, self._histories, self._now()
        longest = max(default.age, default.failures_age)

        def limits(history: History) -> tuple[int, datetime]:
            age = history.failures_age if are_failures else history.age
            return history.count, now - min(age, longest)

        usual = limits(default)
        others = {name: limits(history) for name, history in own.items()}
        for entry in reversed(entries):
            name = entry[0]
            most, since = others.get(name, usual) if others else usual
            count = counts.get(name, 0)
            if count < most and entry[3] >= since:
                counts[name] = count + 1
                kept.append(entry)
                if len(kept) == KEPT:
                    break
        entries.clear()
        entries.extend(reversed(kept))
        if len(own) > KEPT:
            there = {entry[0] for ring in (self._others, self._failures) for entry in ring}
            self._histories = {name: own[name] for name in own if name in there}

    def runs(self) -> Iterator[Run]:
        """All that is kept."""
        self._tidy(self._others, False)
        self._tidy(self._failures, True)
        for ring in (self._others, self._failures):
            for entry in ring:
                yield self._run_of(entry)

    def _run_of(self, entry: Entry) -> Run:
        if isinstance(entry, _NotRun):
            return self._of_unrun(entry)
        if isinstance(entry, _Ended):
            task_id, kind, since, finished_at, outcome, attempt = entry
            run = self.make_run(task_id, kind, outcome.scheduled_time, outcome.state, since)
            numbers = {"attempt": attempt, "token": attempt}
            said = {"finished_at": finished_at, **numbers, **said_of(outcome)}
            return run.model_copy(update=said)
        task_id, moment, since, finished_at = entry
        run = self.make_run(task_id, RunKind.SCHEDULED, moment, RunState.SUCCEEDED, since)
        return run.model_copy(update={"finished_at": finished_at})

    def _of_unrun(self, note: _NotRun) -> Run:
        unrun, when = note.unrun, note.finished_at
        return Run(
            task_id=note.task_id,
            store_alias=self._alias,
            scheduled_time=unrun.first,
            state=unrun.state,
            occurrences=unrun.occurrences,
            last_scheduled_time=unrun.last if unrun.occurrences > 1 else None,
            owner=self._engine.identity,
            claimed_at=when,
            finished_at=when,
            reason=unrun.reason,
        )

    def make_run(
        self,
        task_id: str,
        kind: RunKind,
        moment: datetime,
        state: RunState,
        since: datetime,
        attempt: int = 1,
        notes: dict[str, Any] | None = None,
    ) -> Run:
        """A record of a run of this scheduler's."""
        return Run(
            task_id=task_id,
            store_alias=self._alias,
            kind=kind,
            scheduled_time=moment,
            state=state,
            owner=self._engine.identity,
            attempt=attempt,
            token=attempt,
            claimed_at=since,
            started_at=since,
            **({} if notes is None else readable_notes(notes)),
        )


def said_of(outcome: RunOutcome) -> dict[str, Any]:
    """The fields of a run that say how it ended."""
    return {
        "error": outcome.error,
        "traceback": outcome.traceback,
        "reason": outcome.reason,
        **readable_notes(outcome.notes),
    }
