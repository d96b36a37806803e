"""Runs as people see them, from what MongoDB keeps of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run, readable_notes
from asyncz.serializers.json import from_microseconds
from asyncz.stores.mongo_runs import Held, identity_of

__all__ = ["open_runs_of", "run_of"]


def run_of(row: Mapping[str, Any], alias: str | None, texts: Mapping[str, str]) -> Run:
    """The run of a row.

    Args:
        texts: Its reason, error, traceback and notes, those that it has.
    """
    key, at, kind, _ = identity_of(row)
    occurrences = int(row.get("occurrences", 1))
    return Run(
        task_id=key,
        store_alias=alias,
        kind=RunKind(kind),
        scheduled_time=from_microseconds(at),
        state=RunState(row["state"]),
        occurrences=occurrences,
        last_scheduled_time=_moment(row.get("last")) if occurrences > 1 else None,
        owner=row["owner"] or None,
        attempt=int(row["attempt"]),
        token=int(row["token"]),
        claimed_at=_moment(row["claimed"]),
        started_at=_moment(row["started"]),
        finished_at=_moment(row["finished"]),
        **_said(texts),
    )


def open_runs_of(held: Held, alias: str | None, texts: Mapping[str, str]) -> Iterator[Run]:
    """An open run and its followers.

    Args:
        texts: Of the run itself: see `run_of`.
    """
    for moment in held.times:
        is_head = moment == held.at
        yield Run(
            task_id=held.key,
            store_alias=alias,
            kind=RunKind(held.kind),
            scheduled_time=from_microseconds(moment),
            state=RunState(held.state) if is_head else RunState.QUEUED,
            owner=held.owner or None,
            attempt=held.attempt,
            token=held.token,
            claimed_at=_moment(held.claimed),
            started_at=_moment(held.started),
            retry_at=_moment(held.retry),
            **(_said(texts) if is_head else {}),
        )


def _said(texts: Mapping[str, str]) -> dict[str, Any]:
    """Fields of `Run`. What is no JSON, people have put there."""
    said: dict[str, Any] = {
        name: texts[name] for name in ("reason", "error", "traceback") if name in texts
    }
    try:
        return said | readable_notes(json.loads(texts.get("notes", "{}")))
    except (ValueError, RecursionError):
        return said


def _moment(count: int | None) -> datetime | None:
    return None if count is None else from_microseconds(count)
