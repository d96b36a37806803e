"""The rows of runs: read, taken over, given back, noted down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Row,
    ScalarSelect,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from asyncz.enums import Delivery, RunState
from asyncz.stores.sqlalchemy_batches import OPEN, QUEUED, RunName
from asyncz.stores.sqlalchemy_nodes import ALIVE
from asyncz.stores.sqlalchemy_schema import Tables, family_of
from asyncz.stores.sqlalchemy_time import StoreTime

__all__ = ["RunRows"]

RUNNING, CLAIMED = RunState.RUNNING.value, RunState.CLAIMED.value
ONCE = Delivery.AT_MOST_ONCE.value


class RunRows:
    """The runs of one store.

    Args:
        tables: The store's.
        time: What says what time it is.
    """

    def __init__(self, tables: Tables, time: StoreTime) -> None:
        self._tables = tables
        self._time = time
        self._runs = runs = tables.runs
        self._notes: dict[str, Insert] = {
            "mysql": mysql.insert(runs).on_duplicate_key_update(task=runs.c.task),
            "postgresql": postgresql.insert(runs).on_conflict_do_nothing(),
            "sqlite": sqlite.insert(runs).on_conflict_do_nothing(),
        }
        tasks = tables.tasks
        # What is known of a run, and of its task as it is now, if that is the same one still.
        self._open = select(
            *(column for column in runs.c if column.name != "details"),
            tasks.c.next_run_us,
            tasks.c.record.label("task_record"),
        ).select_from(
            runs.outerjoin(tasks, and_(tasks.c.id == runs.c.task, tasks.c.added == runs.c.added))
        )

    # What there is.

    def look(self, connection: Connection) -> tuple[int, int | None, bool]:
        """The time, the earliest next run time, and whether there are open runs of nobody."""
        runs, nodes, tasks = self._runs, self._tables.nodes, self._tables.tasks
        earliest = select(tasks.c.next_run_us).where(tasks.c.next_run_us.is_not(None))
        released = self._oldest_open(runs.c.owner.is_(None))
        left = select(nodes.c.id).where(
            nodes.c.state.is_not(None),
            nodes.c.state != ALIVE,
            self._oldest_open(runs.c.owner == nodes.c.id).is_not(None),
        )
        looked = select(
            self._time.expression(connection),
            earliest.order_by(tasks.c.next_run_us).limit(1).scalar_subquery(),
            or_(released.is_not(None), left.limit(1).scalar_subquery().is_not(None)),
        )
        now, moment, has_unowned = connection.execute(looked).one()
        return now, moment, bool(has_unowned)

    def _oldest_open(self, whose: ColumnElement[bool]) -> ScalarSelect[int]:
        """Since when somebody has an open run. Not EXISTS, for which PostgreSQL forgets the order,
        which makes it take the index that goes by owner and not the one that goes by task."""
        runs = self._runs
        oldest = select(runs.c.run_us).where(runs.c.active == OPEN, whose)
        return (
            oldest.order_by(runs.c.run_us).limit(1).correlate(self._tables.nodes).scalar_subquery()
        )

    def owned(self, connection: Connection, node_id: str) -> list[Row[Any]]:
        """The open runs of a node, oldest first, and their tasks."""
        runs = self._runs
        wanted = self._open.where(runs.c.active == OPEN, runs.c.owner == node_id)
        return list(connection.execute(wanted.order_by(runs.c.run_us, runs.c.task)))

    def unowned(self, connection: Connection, after: Row[Any] | None, limit: int) -> list[Row[Any]]:
        """Open runs whose owner is not alive, or that have none, oldest first.

        Args:
            after: Only those behind this one.
            limit: At most so many.
        """
        runs, nodes = self._runs, self._tables.nodes
        alive = exists().where(nodes.c.id == runs.c.owner, nodes.c.state == ALIVE)
        wanted = self._open.where(runs.c.active == OPEN, ~alive)
        order = (runs.c.run_us, runs.c.task, runs.c.kind, runs.c.added)
        if after is not None:
            wanted = wanted.where(
                _is_behind(order, (after.run_us, after.task, after.kind, after.added))
            )
        return list(connection.execute(wanted.order_by(*order).limit(limit)))

    def with_followers(
        self, connection: Connection, rows: Sequence[Row[Any]]
    ) -> list[tuple[Row[Any], list[int]]]:
        """Runs, each with when those were due that wait behind it."""
        return [(row, self._followers(connection, row) if row.followers else []) for row in rows]

    def _followers(self, connection: Connection, run: Row[Any]) -> list[int]:
        runs = self._runs
        wanted = select(runs.c.run_us).where(self._behind(run)).order_by(runs.c.run_us)
        return list(connection.execute(wanted).scalars())

    # What changes.

    def keep_records(self, connection: Connection, tasks: Sequence[str]) -> None:
        """Keep the records of tasks that are about to be removed with their open runs."""
        runs, table = self._runs, self._tables.tasks
        # Not for runs of another task that had this id before.
        is_its = and_(table.c.id == runs.c.task, table.c.added == runs.c.added)
        record = select(table.c.record).where(is_its).scalar_subquery()
        bare = and_(runs.c.task.in_(tasks), runs.c.active == OPEN, runs.c.record.is_(None))
        connection.execute(update(runs).where(bare).values(record=record))

    def note(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Note down occurrences, unless they are there already."""
        connection.execute(self._notes[family_of(connection.dialect)], rows)

    def start(self, connection: Connection, node_id: str, name: RunName, token: int) -> bool:
        """Mark a run as running; whether this node may start it."""
        runs = self._runs
        started = func.coalesce(runs.c.started_us, self._time.expression(connection))
        return self._change(
            connection, self._owned(node_id, name, token), state=RUNNING, started_us=started
        )

    def release(self, connection: Connection, node_id: str, name: RunName, token: int) -> None:
        """Give a run back that was not carried out."""
        runs = self._runs
        fewer = case((runs.c.attempt > 0, runs.c.attempt - 1), else_=0)
        self._change(
            connection, self._owned(node_id, name, token),
            state=CLAIMED, owner=None, attempt=fewer, started_us=None,
        )  # fmt: skip
        waiting = and_(
            runs.c.active == QUEUED,
            runs.c.owner == node_id,
            runs.c.task == name.task,
            runs.c.head_us == name.run_us,
            runs.c.kind == name.kind,
            runs.c.token == token,
        )
        self._change(connection, waiting, owner=None, attempt=fewer)

    def take(self, connection: Connection, node_id: str, run: Row[Any], now: int) -> bool:
        """Make a run this node's; False: somebody else was first."""
        new = {"owner": node_id, "token": run.token + 1, "attempt": run.attempt + 1}
        state = {} if run.delivery == ONCE else {"state": RUNNING, "started_us": now}
        taken = self._change(connection, self._as_it_was(run), **new, **state)
        if taken and run.followers:
            self._change(connection, self._behind(run), **new)
        return taken

    def settle(self, connection: Connection, run: Row[Any], state: str, now: int) -> bool:
        """End a run that is nobody's, with all that wait behind it; False: it is somebody's."""
        ended = {"state": state, "active": None, "record": None, "finished_us": now}
        settled = self._change(connection, self._as_it_was(run), **ended)
        if settled and run.followers:
            self._change(connection, self._behind(run), **ended)
        return settled

    def cancel_left_out(
        self, connection: Connection, node_id: str, heads: set[tuple[RunName, int]]
    ) -> None:
        """Settle what waits behind runs of a node that have ended, but has no outcome.

        Args:
            heads: Their names and tokens: with another token, a run may go on.
        """
        columns = self._runs.c
        name = columns.task, columns.head_us, columns.kind
        waiting = select(*name, columns.token, columns.run_us, columns.added).where(
            columns.active == QUEUED, columns.owner == node_id
        )
        for task, head_us, kind, token, run_us, added in connection.execute(waiting).all():
            if (RunName(task, head_us, kind), token) in heads:
                this = and_(_is(self._runs, RunName(task, run_us, kind)), columns.added == added)
                self._change(
                    connection, this, state=RunState.CANCELLED.value, active=None,
                    finished_us=self._time.expression(connection),
                )  # fmt: skip

    def _change(self, connection: Connection, which: ColumnElement[bool], **values: Any) -> bool:
        changed = update(self._runs).where(which).values(**values)
        return bool(connection.execute(changed).rowcount)

    def _owned(self, node_id: str, name: RunName, token: int) -> ColumnElement[bool]:
        columns = self._runs.c
        return and_(
            _is(self._runs, name),
            columns.owner == node_id,
            columns.token == token,
            columns.active == OPEN,
        )

    def _as_it_was(self, run: Row[Any]) -> ColumnElement[bool]:
        """That run, if nobody has changed whose it is since it was read."""
        columns = self._runs.c
        same_owner = columns.owner.is_(None) if run.owner is None else columns.owner == run.owner
        return and_(
            _is(self._runs, RunName(run.task, run.run_us, run.kind)),
            columns.added == run.added,
            same_owner,
            columns.token == run.token,
            columns.state == run.state,
            columns.active == OPEN,
        )

    def _behind(self, run: Row[Any]) -> ColumnElement[bool]:
        columns = self._runs.c
        return and_(
            columns.active == QUEUED,
            columns.task == run.task,
            columns.head_us == run.run_us,
            columns.kind == run.kind,
            columns.added == run.added,
        )


def _is(runs: Any, name: RunName) -> ColumnElement[bool]:
    columns = runs.c
    return and_(columns.task == name.task, columns.run_us == name.run_us, columns.kind == name.kind)


def _is_behind(columns: Sequence[Any], place: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after a place, by several columns."""
    first, *others = zip(columns, place, strict=True)
    column, value = first
    if not others:
        return column > value  # type: ignore[no-any-return]
    rest = _is_behind(columns[1:], place[1:])
    return or_(column > value, and_(column == value, rest))
