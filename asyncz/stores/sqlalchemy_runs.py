"""The rows of runs: read, taken over, given back, noted down.

See `AttemptRows` for those that wait for their next attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from asyncz.stores.sqlalchemy_batches import OPEN, QUEUED, WAITING, FoundRun, RunName
from asyncz.stores.sqlalchemy_nodes import ALIVE
from asyncz.stores.sqlalchemy_schema import Tables, family_of
from asyncz.stores.sqlalchemy_time import StoreTime

__all__ = ["Explain", "RunRows", "is_behind", "is_named"]

Explain = Callable[[bytes | None], bytes | None]
"""Adds why a run has ended to what was said of it before."""

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
        self.opened = select(
            *(column for column in runs.c if column.name != "details"),
            tasks.c.next_run_us,
            tasks.c.record.label("task_record"),
        ).select_from(
            runs.outerjoin(tasks, and_(tasks.c.id == runs.c.task, tasks.c.added == runs.c.added))
        )

    # What there is.

    def look(self, connection: Connection) -> tuple[int, int | None, bool, int | None]:
        """The time, the earliest next run time, whether there are open runs of nobody, and when
        somebody has to attend to one."""
        runs, nodes, tasks = self._runs, self._tables.nodes, self._tables.tasks
        earliest = select(tasks.c.next_run_us).where(tasks.c.next_run_us.is_not(None))
        released = self._oldest_open(runs.c.owner.is_(None))
        left = select(nodes.c.id).where(
            nodes.c.state.is_not(None),
            nodes.c.state != ALIVE,
            self._oldest_open(runs.c.owner == nodes.c.id).is_not(None),
        )
        # Nothing more is asked of it, which might be a reason to read it by another index.
        waits = select(runs.c.attend_us).where(runs.c.attend_us.is_not(None))
        looked = select(
            self._time.expression(connection),
            earliest.order_by(tasks.c.next_run_us).limit(1).scalar_subquery(),
            or_(released.is_not(None), left.limit(1).scalar_subquery().is_not(None)),
            waits.order_by(runs.c.attend_us).limit(1).scalar_subquery(),
        )
        now, moment, has_unowned, attend_at = connection.execute(looked).one()
        return now, moment, bool(has_unowned), attend_at

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
        wanted = self.opened.where(runs.c.active == OPEN, runs.c.owner == node_id)
        return list(connection.execute(wanted.order_by(runs.c.run_us, runs.c.task)))

    def unowned(self, connection: Connection, after: Row[Any] | None, limit: int) -> list[Row[Any]]:
        """Open runs whose owner is not alive, or that have none, oldest first.

        Args:
            after: Only those behind this one.
            limit: At most so many.
        """
        runs, nodes = self._runs, self._tables.nodes
        alive = exists().where(nodes.c.id == runs.c.owner, nodes.c.state == ALIVE)
        wanted = self.opened.where(runs.c.active == OPEN, ~alive)
        order = (runs.c.run_us, runs.c.task, runs.c.kind, runs.c.added)
        if after is not None:
            wanted = wanted.where(
                is_behind(order, (after.run_us, after.task, after.kind, after.added))
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
        is_open = runs.c.active.in_([OPEN, WAITING])
        bare = and_(runs.c.task.in_(tasks), is_open, runs.c.record.is_(None))
        connection.execute(update(runs).where(bare).values(record=record))

    def note(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Note down occurrences, unless they are there already."""
        connection.execute(self._notes[family_of(connection.dialect)], rows)

    def start(self, connection: Connection, node_id: str, name: RunName, token: int) -> bool:
        """Mark a run as running; whether this node may start it."""
        runs = self._runs
        started = func.coalesce(runs.c.started_us, self._time.expression(connection))
        return self.change(
            connection, self.is_owned(node_id, name, token), state=RUNNING, started_us=started
        )

    def release(self, connection: Connection, node_id: str, name: RunName, token: int) -> None:
        """Give a run back that was not carried out."""
        runs = self._runs
        fewer = case((runs.c.attempt > 0, runs.c.attempt - 1), else_=0)
        self.change(
            connection, self.is_owned(node_id, name, token),
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
        self.change(connection, waiting, owner=None, attempt=fewer)

    def take(self, connection: Connection, node_id: str, run: Row[Any], now: int) -> bool:
        """Make a run this node's; False: somebody else was first."""
        new = {"owner": node_id, "token": run.token + 1, "attempt": run.attempt + 1}
        state = {} if run.delivery == ONCE else {"state": RUNNING, "started_us": now}
        taken = self.change(connection, self.is_as_it_was(run), **new, **state)
        if taken and run.followers:
            self.change(connection, self._behind(run), **new)
        return taken

    def settle(
        self,
        connection: Connection,
        run: Row[Any] | FoundRun,
        state: str,
        now: int,
        explain: Explain | None = None,
    ) -> bool:
        """End a run that is nobody's, with all that wait behind it; False: it is somebody's."""
        ended: dict[str, Any] = {"state": state, "active": None, "record": None}
        ended |= {"finished_us": now, "attend_us": None, "asked": None}
        this, details = self.is_as_it_was(run), self._runs.c.details
        head = behind = ended
        if explain is not None:
            before = connection.execute(select(details).where(this)).scalar()
            head = {**ended, "details": explain(before)}
            behind = {**ended, "details": explain(None)}
        settled = self.change(connection, this, **head)
        if settled and isinstance(run, Row) and run.followers:
            self.change(connection, self._behind(run), **behind)
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
                this = and_(
                    is_named(self._runs, RunName(task, run_us, kind)), columns.added == added
                )
                self.change(
                    connection, this, state=RunState.CANCELLED.value, active=None,
                    finished_us=self._time.expression(connection),
                )  # fmt: skip

    def note_of(
        self, connection: Connection, node_id: str, name: RunName, token: int, explain: Explain
    ) -> bool:
        """Change what is said of a node's open run; whether there is one."""
        this, details = self.is_owned(node_id, name, token), self._runs.c.details
        found = connection.execute(select(details).where(this)).all()
        if not found:
            return False
        return self.change(connection, this, details=explain(found[0].details))

    # Which.

    def change(self, connection: Connection, which: ColumnElement[bool], **values: Any) -> bool:
        """Change the runs that are meant; whether there are any."""
        changed = update(self._runs).where(which).values(**values)
        return bool(connection.execute(changed).rowcount)

    def is_owned(self, node_id: str, name: RunName, token: int) -> ColumnElement[bool]:
        """That open run, if it is this node's."""
        columns = self._runs.c
        return and_(
            is_named(self._runs, name),
            columns.owner == node_id,
            columns.token == token,
            columns.active == OPEN,
        )

    def is_as_it_was(self, run: Row[Any] | FoundRun) -> ColumnElement[bool]:
        """That run, if nobody has changed whose it is since it was read."""
        columns = self._runs.c
        same_owner = columns.owner.is_(None) if run.owner is None else columns.owner == run.owner
        return and_(
            is_named(self._runs, RunName(run.task, run.run_us, run.kind)),
            columns.added == run.added,
            same_owner,
            columns.token == run.token,
            columns.state == run.state,
            columns.active == run.active,
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


def is_named(runs: Any, name: RunName) -> ColumnElement[bool]:
    """The run of that name; several if the task was added anew."""
    columns = runs.c
    return and_(columns.task == name.task, columns.run_us == name.run_us, columns.kind == name.kind)


def is_behind(columns: Sequence[Any], place: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after a place, by several columns."""
    first, *others = zip(columns, place, strict=True)
    column, value = first
    if not others:
        return column > value  # type: ignore[no-any-return]
    rest = is_behind(columns[1:], place[1:])
    return or_(column > value, and_(column == value, rest))
