"""The run: one occurrence of a task, from due to done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from asyncz.enums import RunKind, RunState

__all__ = ["MAX_ERROR", "MAX_TRACEBACK", "Run", "RunQuery", "readable_notes"]

MAX_ERROR = 1_000
"""Characters that are kept of an error's text."""
MAX_TRACEBACK = 16_384
"""Characters that are kept of a traceback."""


class Run(BaseModel):
    """What is known of one occurrence of a task. Frozen; a later look gives another one.

    Args:
        task_id, store_alias: Whose.
        kind: Whether its schedule or somebody asked for it.
        scheduled_time: The instant that it was due, aware. Of several that are recorded as one
            (`occurrences`), the first.
        state: What became of it.
        occurrences: How many it stands for: more than 1 when many were missed, skipped or folded.
        last_scheduled_time: Of several, the last.
        owner: The id of the node that has it, or had it last.
        attempt: How often it was claimed.
        token: Grows when another worker takes it over; who has an older one may not say how it
            ended.
        claimed_at, started_at, finished_at: By the store's clock.
        reason: Why it was not run, or not to its end, in words.
        error, traceback: Of the exception it raised; while it is `retrying`, of its last attempt.
        retry_at: When it is tried again at the earliest, by the store's clock; of `retrying` runs.
        progress, message, log: What it has said of itself (`current_run()`): a fraction, what it is
            at, and its last lines.
        result: What it returned, if that is JSON and not too long.
        result_repr: The beginning of the `repr` of what it returned, if that is not.
    """

    model_config = ConfigDict(frozen=True)

    task_id: str
    store_alias: str | None = None
    kind: RunKind = RunKind.SCHEDULED
    scheduled_time: datetime
    state: RunState
    occurrences: int = 1
    last_scheduled_time: datetime | None = None
    owner: str | None = None
    attempt: int = 0
    token: int = 0
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    reason: str | None = None
    error: str | None = Field(default=None, repr=False)
    traceback: str | None = Field(default=None, repr=False)
    retry_at: datetime | None = None
    progress: float | None = None
    message: str | None = None
    log: tuple[str, ...] = Field(default=(), repr=False)
    result: Any = Field(default=None, repr=False)
    result_repr: str | None = Field(default=None, repr=False)

    @property
    def id(self) -> str:
        """The task's id and the instant, `task@2026-01-01T00:00:00+00:00`; the same each try."""
        return f"{self.task_id}@{self.scheduled_time.isoformat()}"


class RunQuery(NamedTuple):
    """Which runs are wanted. The answer has the latest first, by scheduled time.

    Args:
        task_id: Of this task; None: of all.
        states: In one of these; empty: in any.
        since: Scheduled at or after this instant; None: at any.
        limit: At most so many.
        until: Scheduled at or before this instant; None: at any.
    """

    task_id: str | None = None
    states: frozenset[RunState] = frozenset()
    since: datetime | None = None
    limit: int = 100
    until: datetime | None = None

    def select(self, runs: Iterable[Run]) -> list[Run]:
        """Those of these runs that are wanted."""
        wanted = [run for run in runs if self.matches(run)]
        wanted.sort(key=lambda run: (run.scheduled_time, run.task_id), reverse=True)
        return wanted[: self.limit]

    def matches(self, run: Run) -> bool:
        """Whether a run is wanted."""
        return (
            (self.task_id is None or run.task_id == self.task_id)
            and (not self.states or run.state in self.states)
            and (self.since is None or run.scheduled_time >= self.since)
            and (self.until is None or run.scheduled_time <= self.until)
        )


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


NOTES: dict[str, Callable[[Any], bool]] = {
    "progress": _is_fraction,
    "message": _is_text,
    "log": _are_texts,
    "result": lambda value: True,
    "result_repr": _is_text,
}
"""Fields of `Run` that a run or its worker has written, and what they may be."""


def readable_notes(notes: Any) -> dict[str, Any]:
    """Those of a run's notes, as a store has kept them, that are what they should be."""
    if not isinstance(notes, Mapping):
        return {}
    readable = {
        name: notes[name] for name, fits in NOTES.items() if name in notes and fits(notes[name])
    }
    if "log" in readable:
        readable["log"] = tuple(readable["log"])
    return readable
