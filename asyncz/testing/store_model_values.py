"""What the model of a shared store is made of, and what is compared of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from unittest.mock import ANY

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.runs.base import Run
from asyncz.stores.cluster import RunOutcome, RunRef
from asyncz.testing.store_model import TaskView

__all__ = ["Identity", "ModelNode", "ModelRun", "RunView"]

CANCELLED, RETRYING = RunState.CANCELLED, RunState.RETRYING
Notes = tuple[Any, ...]
NO_NOTES: Notes = (None, None, (), None, None)


def notes_of(notes: Mapping[str, Any] | None) -> Notes:
    """What a run is to show of such notes."""
    run = Run(task_id="", scheduled_time=datetime.min, state=RETRYING, **(notes or {}))
    return run.progress, run.message, run.log, run.result, run.result_repr


class Identity(NamedTuple):
    """What makes an occurrence the same one; of each there is one record."""

    task_id: str
    generation: int
    kind: RunKind
    at: datetime


class RunView(NamedTuple):
    """What is compared of the record of an occurrence. Some things are a store's own affair."""

    at: datetime
    task_id: str
    kind: RunKind
    claimed: datetime | None
    token: int
    state: RunState
    attempt: int
    owner: str | None
    finished: datetime | None
    started: Any
    occurrences: int = 1
    last: datetime | None = None
    reason: Any = None
    error: str | None = None
    traceback: str | None = None
    retry_at: datetime | None = None
    notes: Any = NO_NOTES

    @classmethod
    def of(cls, run: Run) -> RunView:
        """Of a run that a store knows."""
        return cls(
            run.scheduled_time, run.task_id, run.kind, run.claimed_at, run.token, run.state,
            run.attempt, run.owner, run.finished_at, run.started_at, run.occurrences,
            run.last_scheduled_time, run.reason, run.error, run.traceback, run.retry_at,
            (run.progress, run.message, run.log, run.result, run.result_repr),
        )  # fmt: skip


@dataclass
class ModelNode:
    """A node in the model."""

    id: str
    joined: datetime
    seen: datetime
    lease_until: datetime
    state: NodeState = NodeState.ALIVE
    running: int = 0


@dataclass
class ModelRun:
    """A run in the model, from its claim on; it is open as long as it is not finished.

    Args:
        kept: The task, if it was forgotten meanwhile by who moved it on to its end.
        outcomes: By instant, once it has ended, and when that was said.
        again: How many of its claims were for another attempt.
        retry_at: While it waits for one, when it is due.
        said, noted: What was said of its last attempt, and what it has said of itself since.
        asked: Who has asked to cancel it.
        is_vague: A claim for another attempt was given back: whether one less counts for its
            limit, or one less that does not, is a store's own affair.
        is_part: Its head is another run by now.
    """

    task_id: str
    generation: int
    kind: RunKind
    times: tuple[datetime, ...]
    delivery: Delivery
    owner: str | None
    claimed: datetime
    state: RunState
    started: datetime | None
    token: int = 1
    attempt: int = 1
    finished: datetime | None = None
    kept: TaskView | None = None
    outcomes: dict[datetime, tuple[RunOutcome, datetime]] = field(default_factory=dict)
    was_lost: bool = False
    again: int = 0
    retry_at: datetime | None = None
    said: RunOutcome | None = None
    noted: Mapping[str, Any] | None = None
    asked: str | None = None
    is_attempt: bool = False
    is_vague: bool = False
    is_part: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is open, and waits for its next attempt."""
        return self.finished is None and self.state is RETRYING

    @property
    def ref(self) -> RunRef:
        """What its owner knows it by."""
        return RunRef(self.task_id, self.kind, self.times[0], self.token)

    @property
    def head_state(self) -> RunState:
        """What its head is, or ended as."""
        return self.state if self.finished is None else self.outcomes[self.times[0]][0].state

    def end(self, outcomes: dict[datetime, RunOutcome], now: datetime) -> None:
        """It has ended so. What is left out was cancelled, but if it was lost it stays so."""
        self.was_lost = self.finished is not None
        if not self.was_lost:
            self.outcomes = {at: (RunOutcome(at, CANCELLED, reason=ANY), now) for at in self.times}
        self.outcomes |= {at: (said, now) for at, said in outcomes.items()}
        self.finished = now

    def identities(self) -> Iterator[Identity]:
        """Of its occurrences."""
        return (Identity(self.task_id, self.generation, self.kind, at) for at in self.times)

    def views(self) -> Iterator[RunView]:
        """The records of its occurrences."""
        for number, at in enumerate(self.times):
            said, finished = self.outcomes.get(at) or (self._so_far(number), None)
            yield RunView(
                at, self.task_id, self.kind, self.claimed, self.token, said.state, self.attempt,
                self.owner, finished, ANY if number or self.said or self.is_part else self.started,
                reason=said.reason, error=said.error, traceback=said.traceback,
                retry_at=None if finished else self.retry_at,
                notes=said.notes if said.notes is ANY else notes_of(said.notes),
            )  # fmt: skip

    def _so_far(self, number: int) -> RunOutcome:
        """What is known of an occurrence as long as it is open."""
        at, said = self.times[number], self.said
        if number or said is None:
            state = RunState.QUEUED if number else self.state
            return RunOutcome(at, state, notes=None if number else self.noted)
        if self.noted is None:
            return said._replace(state=self.state)
        # Whether it says of its last attempt why that failed, once it has said something else, is
        # a store's own affair.
        return RunOutcome(at, self.state, ANY, ANY, ANY, self.noted)
