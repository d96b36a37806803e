"""What may be given to operations on runs and tags, and what is said if it is not that."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from math import isfinite
from typing import Any

from asyncz.enums import RunState
from asyncz.exceptions import TaskOptionError
from asyncz.runs.base import Run

__all__ = ["canceller", "instant_since", "limit_of_runs", "named_run", "seconds_to_wait", "states"]

MOST_RUNS = 10_000


def named_run(run: Any, store: str | None) -> tuple[str, str | None]:
    """The id of a run, and the store that it is in, as far as that is known."""
    if isinstance(run, Run):
        return run.id, store or run.store_alias
    if not isinstance(run, str):
        raise TaskOptionError(f"A run is named by its id or a Run, not {type(run).__name__}.")
    return run, store


def limit_of_runs(limit: Any) -> int:
    """How many runs are wanted at most."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_RUNS:
        raise TaskOptionError(
            f"limit must be a whole number between 1 and {MOST_RUNS:,}, not {limit!r}."
        )
    return limit


def instant_since(since: Any) -> datetime | None:
    """From when on they are wanted."""
    if since is None:
        return None
    if not isinstance(since, datetime):
        raise TaskOptionError(
            f"since must be a datetime with a time zone, not {type(since).__name__}; for a text "
            "there is datetime.fromisoformat."
        )
    if since.tzinfo is None:
        raise TaskOptionError(f"since must have a time zone, {since!r} has none.")
    return since


def states(state: Any) -> frozenset[RunState]:
    """In which states they are wanted; empty: in any."""
    if state is None:
        return frozenset()
    several = [state] if isinstance(state, str) or not isinstance(state, Iterable) else [*state]
    try:
        return frozenset(map(RunState, several))
    except ValueError:
        known = ", ".join(known.value for known in RunState)
        raise TaskOptionError(
            f"state must be one of these, or a list of them: {known}; not {state!r}."
        ) from None


def seconds_to_wait(timeout: Any) -> float | None:
    """How long somebody waits; None: as long as it takes."""
    if timeout is None:
        return None
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not is_number or not isfinite(timeout) or timeout < 0:
        raise TaskOptionError(
            f"timeout must be seconds, 0 or more, or None for as long as it takes; not {timeout!r}."
        )
    return float(timeout)


def canceller(by: Any, identity: str) -> str:
    """Who cancels a run."""
    if by is not None and not isinstance(by, str):
        raise TaskOptionError(f"by must be a text that says who, not {type(by).__name__}.")
    return by or identity
