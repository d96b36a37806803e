"""Runs as they are shown: asked for, read, and forgotten when there are too many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, select, union_all

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.serializing import Codec
from asyncz.stores.sqlalchemy_batches import MANY, OPEN, QUEUED, SHOWN, WAITING
from asyncz.stores.sqlalchemy_details import unseal
from asyncz.stores.sqlalchemy_schema import UNLUCKY, Tables

__all__ = ["Pruning", "id_of", "runs_of_query", "show"]

DAY = 24 * 3600 * 1_000_000
UNLUCKY_STATES = frozenset(
    state for state in RunState if not state.is_open and state is not RunState.SUCCEEDED
)
UNLIMITED = 1_000_000_000
"""Of so many a task has fewer, and they need not be counted."""


def runs_of_query(tables: Tables, query: RunQuery, key: str | None) -> Select[Any]:
    """What finds the runs that are wanted, the latest first.

    Args:
        query: Which.
        key: That of its task, if it names one.
    """
    if len(query.states) < 2 or not query.states <= UNLUCKY_STATES:
        return _latest(tables, query, key)
    # The index has those of each state in the order of time; those of several are sorted.
    states = sorted(query.states)
    each = [_latest(tables, query._replace(states=frozenset({state})), key) for state in states]
    columns = union_all(*(select(found.subquery()) for found in each)).subquery().c
    order = [columns.run_us.desc(), columns.task.desc()]
    return select(*columns).order_by(*order).limit(query.limit)


def _latest(tables: Tables, query: RunQuery, key: str | None) -> Select[Any]:
    columns = tables.runs.c
    wanted = select(*(columns[name] for name in SHOWN))
    is_unlucky = bool(query.states) and query.states <= UNLUCKY_STATES
    if key is not None:
        # Of such runs there are few, and a look at all that the task has would take long.
        wanted = wanted.where((columns.task.concat("") if is_unlucky else columns.task) == key)
    if query.since is not None:
        wanted = wanted.where(columns.run_us >= to_microseconds(query.since))
    if query.until is not None:
        wanted = wanted.where(columns.run_us <= to_microseconds(query.until))
    moment: ColumnElement[int] = columns.run_us
    # Of one task, in the order of the primary key: MariaDB sorts for what is the same in all rows.
    others = [columns.task] if key is None else [columns.kind, columns.added]
    index = "late" if key is None else None
    if query.states:
        index = None
        wanted = wanted.where(columns.state.in_(sorted(state.value for state in query.states)))
        if all(state.is_open for state in query.states):
            # There is an index of these; with the sum there is none that has their order too.
            wanted = wanted.where(columns.active.in_([OPEN, QUEUED, WAITING]))
            moment = moment + 0
        elif is_unlucky:
            wanted, index, others = wanted.where(UNLUCKY), "unlucky", [columns.task]
    if index is not None:
        # MariaDB and MySQL read a table of some 100,000 runs from end to end, and sort it.
        for name in ("mysql", "mariadb"):
            hint = f"FORCE INDEX ({tables.runs.name}_{index})"
            wanted = wanted.with_hint(tables.runs, hint, name)
    order = [moment.desc(), *(column.desc() for column in others)]
    return wanted.order_by(*order).limit(query.limit)


def show(row: Row[Any], alias: str | None, codec: Codec) -> Run:
    """A run of a row."""
    task_id, state = id_of(row), RunState(row.state)
    return Run(
        task_id=task_id,
        store_alias=alias,
        kind=RunKind(row.kind),
        scheduled_time=from_microseconds(row.run_us),
        state=state,
        occurrences=row.occurrences,
        last_scheduled_time=_moment(row.last_us),
        owner=row.owner,
        attempt=row.attempt,
        token=row.token,
        claimed_at=_moment(row.claimed_us),
        started_at=_moment(row.started_us),
        finished_at=_moment(row.finished_us),
        retry_at=_moment(row.attend_us) if state is RunState.RETRYING and row.attend_us else None,
        **unseal(codec, task_id, row.details),
    )


class Pruning(NamedTuple):
    """What is to be forgotten of one task. See `ClusterStore.prune_runs`.

    Args:
        key: The task's.
    """

    key: str
    states: frozenset[RunState]
    keep: int
    before: datetime

    def prune(self, connection: Connection, tables: Tables, limit: int) -> int:
        """Forget at most so many; how many were."""
        runs, moment = tables.runs.c, to_microseconds(self.before)
        settled = [
            runs.task == self.key,
            runs.active.is_(None),
            runs.finished_us.is_not(None),
            runs.state.in_(sorted(state.value for state in self.states)),
        ]
        name = select(runs.run_us, runs.kind, runs.added).where(*settled)
        latest = name.order_by(runs.run_us.desc(), runs.kind.desc(), runs.added.desc())
        found: list[Any] = []
        if self.keep < UNLIMITED:
            found = [*connection.execute(latest.offset(self.keep).limit(limit))]
        if len(found) < limit:
            # They end after they were due, by all clocks; so the others need not be looked at.
            old = name.where(runs.finished_us < moment, runs.run_us < moment + DAY)
            found += connection.execute(old.order_by(runs.run_us).limit(limit))
        return self._forget(connection, tables, [*dict.fromkeys(map(tuple, found))][:limit])

    def _forget(
        self, connection: Connection, tables: Tables, names: Sequence[tuple[Any, ...]]
    ) -> int:
        runs, count = tables.runs.c, 0
        alike: dict[tuple[str, int], list[int]] = defaultdict(list)
        for run_us, kind, added in names:
            alike[kind, added].append(run_us)
        for (kind, added), moments in alike.items():
            for start in range(0, len(moments), MANY):
                gone = delete(tables.runs).where(
                    runs.task == self.key,
                    runs.run_us.in_(moments[start : start + MANY]),
                    runs.kind == kind,
                    runs.added == added,
                    runs.active.is_(None),
                )
                count += connection.execute(gone).rowcount
        return count


def id_of(row: Row[Any]) -> str:
    """The id of the task of a run."""
    return row.task if row.task_id is None else bytes(row.task_id).decode()


def _moment(count: int | None) -> Any:
    return None if count is None else from_microseconds(count)
