"""Runs as they are shown: asked for, read, and what was said of them."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, Select, select

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.serializing import Codec
from asyncz.stores.sqlalchemy_batches import SHOWN
from asyncz.stores.sqlalchemy_schema import Tables

__all__ = ["id_of", "runs_of_query", "seal", "show"]


def runs_of_query(tables: Tables, query: RunQuery, key: str | None) -> Select[Any]:
    """What finds the runs that are wanted, the latest first.

    Args:
        query: Which.
        key: That of its task, if it names one.
    """
    columns = tables.runs.c
    wanted = select(*(columns[name] for name in SHOWN))
    if key is not None:
        wanted = wanted.where(columns.task == key)
    if query.since is not None:
        wanted = wanted.where(columns.run_us >= to_microseconds(query.since))
    if query.states:
        wanted = wanted.where(columns.state.in_(sorted(state.value for state in query.states)))
        if all(state.is_open for state in query.states):
            wanted = wanted.where(columns.active.in_([1, 2]))  # there is an index of these
    return wanted.order_by(columns.run_us.desc(), columns.task.desc()).limit(query.limit)


def show(row: Row[Any], alias: str | None, codec: Codec) -> Run:
    """A run of a row."""
    task_id = id_of(row)
    return Run(
        task_id=task_id,
        store_alias=alias,
        kind=RunKind(row.kind),
        scheduled_time=from_microseconds(row.run_us),
        state=RunState(row.state),
        occurrences=row.occurrences,
        last_scheduled_time=_moment(row.last_us),
        owner=row.owner,
        attempt=row.attempt,
        token=row.token,
        claimed_at=_moment(row.claimed_us),
        started_at=_moment(row.started_us),
        finished_at=_moment(row.finished_us),
        **_unseal(codec, task_id, row.details),
    )


def id_of(row: Row[Any]) -> str:
    """The id of the task of a run."""
    return row.task if row.task_id is None else bytes(row.task_id).decode()


def _moment(count: int | None) -> Any:
    return None if count is None else from_microseconds(count)


def seal(
    codec: Codec, task_id: str, reason: str | None, error: str | None, traceback: str | None
) -> bytes | None:
    """What is said of a run, as bytes; encrypted if the records are, and bound to the task."""
    said = {"reason": reason, "error": error, "traceback": traceback}
    said = {name: text for name, text in said.items() if text is not None}
    if not said:
        return None
    # An error may have half of a surrogate pair in its text, which is no UTF-8.
    return codec.encrypt(json.dumps({"id": task_id, **said}, ensure_ascii=True).encode())


def _unseal(codec: Codec, task_id: str, data: bytes | None) -> dict[str, str | None]:
    if data is None:
        return {}
    try:
        said = json.loads(codec.decrypt(bytes(data)))
        if said["id"] != task_id:
            raise ValueError("it is of another task")
        return {name: said.get(name) for name in ("reason", "error", "traceback")}
    except (UnreadableRecordError, ValueError, KeyError, TypeError, AttributeError) as exc:
        return {"reason": f"what was said of it cannot be read here: {exc}"}
