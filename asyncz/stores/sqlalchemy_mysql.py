"""Pages of firings and outcomes on MySQL and MariaDB: one statement with many rows written out.

Their drivers put the values into the text of a statement themselves. Runs are looked up by a join
in a fixed order (STRAIGHT_JOIN), with the list of them first: as a condition, such a list takes
the servers thirty times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError

from asyncz.stores.sqlalchemy_batches import (
    FOUND,
    OPEN,
    SHOWN,
    End,
    Ended,
    FoundRun,
    Going,
    Head,
    LockedTask,
    Move,
    RunName,
    split_known,
)
from asyncz.stores.sqlalchemy_dialects import can_skip_locked
from asyncz.stores.sqlalchemy_schema import Tables
from asyncz.stores.sqlalchemy_time import NOW

__all__ = ["MySQLBatches"]


class MySQLBatches:
    """See `Batches`."""

    def __init__(self, tables: Tables) -> None:
        self._names = {
            "tasks": _quoted(tables.tasks),
            "runs": _quoted(tables.runs),
            "found": FOUND,
            "shown": ", ".join(f"r.{name}" for name in SHOWN),
            "now": NOW["mysql"],
        }
        self._row = self._written(ENTERED)

    def _written(self, template: str, **parts: str) -> str:
        return template.format(**self._names, **parts)

    def lock_tasks(
        self, connection: Connection, keys: Sequence[str], waits: bool
    ) -> dict[str, LockedTask]:
        lock = self._written(LOCK, keys=_marks(keys))
        if not waits and can_skip_locked(connection.dialect):
            lock += "SKIP LOCKED"
        found = connection.exec_driver_sql(lock, tuple(keys))
        return {key: LockedTask(next_run, added) for key, next_run, added in found}

    def count_active(self, connection: Connection, keys: Sequence[str]) -> dict[str, Going]:
        count = self._written(COUNT, keys=_marks(keys))
        going = dict.fromkeys(keys, Going())
        for active, key, number in connection.exec_driver_sql(count, tuple(keys)):
            changed = {"active": number} if active == OPEN else {"has_waiting": True}
            going[key] = going[key]._replace(**changed)
        return going

    def begin(
        self,
        connection: Connection,
        node_id: str,
        now: int,
        moves: Sequence[Move],
        gone: Sequence[str],
        heads: Sequence[Head],
    ) -> set[RunName]:
        there = self._enter_all(connection, node_id, now, heads) if heads else set()
        if moves:
            keys = [key for key, _ in moves]
            cases = "WHEN %s THEN %s " * len(moves)
            move = self._written(MOVE, cases=cases, keys=_marks(keys))
            connection.exec_driver_sql(move, (*chain.from_iterable(moves), *keys))
        if gone:
            remove = self._written(REMOVE, keys=_marks(gone))
            connection.exec_driver_sql(remove, tuple(gone))
        return there

    def _enter_all(
        self, connection: Connection, node_id: str, now: int, heads: Sequence[Head]
    ) -> set[RunName]:
        try:
            self._enter_some(connection, node_id, now, heads)
        except IntegrityError:  # the statement has left nothing
            found = self.find(connection, [head.name for head in heads])
        else:
            return set()
        new, there = split_known(heads, found)
        if new:
            self._enter_some(connection, node_id, now, new)
        return there

    def _enter_some(
        self, connection: Connection, node_id: str, now: int, heads: Sequence[Head]
    ) -> None:
        enter = self._written(ENTER, rows=", ".join([self._row] * len(heads)))
        values = (
            (
                task, run_us, kind, added, None if task_id is None else task_id.decode(),
                "claimed" if once else "running", followers,
                "at_most_once" if once else "at_least_once", node_id, now,
                None if once else now, gone,
            )
            for task, run_us, kind, added, task_id, once, followers, gone in heads
        )  # fmt: skip
        connection.exec_driver_sql(enter, tuple(chain.from_iterable(values)))

    def find(self, connection: Connection, names: Sequence[RunName]) -> list[FoundRun]:
        find = self._written(FIND, names=_table(("task", "run_us", "kind"), len(names)))
        found = connection.exec_driver_sql(find, tuple(chain.from_iterable(names)))
        return [FoundRun._make(row) for row in found]

    def find_last(self, connection: Connection, keys: Sequence[str]) -> Sequence[Row[Any]]:
        find = self._written(FIND_LAST, names=_table(("task",), len(keys)), number=str(len(keys)))
        return connection.exec_driver_sql(find, tuple(keys)).all()

    def end(
        self, connection: Connection, node_id: str, now: int | None, ends: Sequence[End]
    ) -> Ended:
        end = self._written(END, ends=_table(End._fields, len(ends)))
        rows = ((*each[:-1], None if each.details is None else each.details.hex()) for each in ends)
        values = (*chain.from_iterable(rows), now, node_id)
        # Without RETURNING, who is behind them has to be looked for.
        return Ended(connection.exec_driver_sql(end, values).rowcount, may_leave_others=True)

    def forget(self, connection: Connection, before: int, limit: int) -> int:
        return connection.exec_driver_sql(self._written(FORGET), (before, limit)).rowcount


def _quoted(table: Any) -> str:
    dialect: Any = mysql
    return str(dialect.dialect().identifier_preparer.format_table(table))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _table(columns: Sequence[str], length: int) -> str:
    """Rows as what can be joined: each server knows this way of writing them out."""
    first = ", ".join(f"%s AS {name}" for name in columns)
    others = f" UNION ALL SELECT {_marks(columns)}" * (length - 1)
    return f"(SELECT {first}{others}) AS s"


LOCK = """
    SELECT id, next_run_us, added FROM {tasks} WHERE id IN ({keys}) ORDER BY id FOR UPDATE
"""

COUNT = """
    SELECT active, task, COUNT(*) FROM {runs} WHERE active IN (1, 3) AND task IN ({keys})
    GROUP BY active, task
"""

MOVE = """
    UPDATE {tasks} SET rev = rev + 1, next_run_us = CASE id {cases}END WHERE id IN ({keys})
"""

REMOVE = "DELETE FROM {tasks} WHERE id IN ({keys})"

ENTER = """
    INSERT INTO {runs} (
        task, run_us, kind, added, task_id, state, active, followers, occurrences, delivery,
        owner, token, attempt, claimed_us, started_us, record
    ) VALUES {rows}
"""

ENTERED = (
    "(%s, %s, %s, %s, %s, %s, 1, %s, 1, %s, %s, 1, 1, %s, %s, "
    "(SELECT record FROM {tasks} WHERE id = %s))"
)

FIND = """
    SELECT STRAIGHT_JOIN {found} FROM {names}
    JOIN {runs} r FORCE INDEX (PRIMARY)
    ON r.task = s.task AND r.run_us = s.run_us AND r.kind = s.kind
"""

# There may be two of one instant: one by hand, one by schedule. The limit keeps the list a list
# of its own, which is made first; there is a way to its runs then.
FIND_LAST = """
    SELECT STRAIGHT_JOIN {shown} FROM (
        SELECT s.task, (
            SELECT q.run_us FROM {runs} q FORCE INDEX (PRIMARY) WHERE q.task = s.task
            ORDER BY q.run_us DESC LIMIT 1
        ) AS run_us FROM {names} LIMIT {number}
    ) AS f
    JOIN {runs} r FORCE INDEX (PRIMARY) ON r.task = f.task AND r.run_us = f.run_us
"""

END = """
    UPDATE {ends} STRAIGHT_JOIN {runs} r FORCE INDEX (PRIMARY)
    ON r.task = s.task AND r.run_us = s.run_us AND r.kind = s.kind
    SET r.state = s.state, r.active = NULL, r.details = UNHEX(s.details), r.record = NULL,
        r.attend_us = NULL, r.asked = NULL, r.finished_us = COALESCE(%s, {now})
    WHERE r.owner = %s AND r.token = s.token AND (r.active < 3 OR r.state = 'lost')
"""

FORGET = "DELETE FROM {runs} WHERE finished_us < %s ORDER BY finished_us LIMIT %s"
