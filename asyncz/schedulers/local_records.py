"""What is remembered of the runs of a store that keeps none."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from asyncz.enums import RunKind
from asyncz.stores.cluster import RunOutcome, Unrun

__all__ = ["Ended", "NotRun", "Ordinary", "Special"]


class Special(NamedTuple):
    """An open run that is not an ordinary one: by hand, for several instants, or one of several."""

    since: datetime
    kind: RunKind
    run_times: tuple[datetime, ...]


class Ended(NamedTuple):
    """What became of a run that is not an ordinary one, or did not go well."""

    task_id: str
    run: Special
    finished_at: datetime
    outcomes: tuple[RunOutcome, ...]
    attempt: int = 1


class NotRun(NamedTuple):
    """Occurrences that were not run."""

    task_id: str
    when: datetime
    unrun: Unrun


Ordinary = tuple[str, datetime, datetime, datetime]
"""A run that went well: its task, its instant, when it was begun and when it ended. A bare tuple of
such things is nothing that the garbage collector would look at twice."""
