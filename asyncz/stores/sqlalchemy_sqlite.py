"""Pages of firings and outcomes on SQLite: one statement for all rows, which are a JSON array.

A transaction has the database to itself, so nothing needs to be locked. The driver gives up the
interpreter for each row that it is given, and has to wait for it after each; so it is given one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from asyncz.stores.sqlalchemy_batches import (
    FOUND,
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
from asyncz.stores.sqlalchemy_schema import Tables

__all__ = ["SQLiteBatches"]


class SQLiteBatches:
    """See `Batches`."""

    def __init__(self, tables: Tables) -> None:
        names = {
            "tasks": _quoted(tables.tasks),
            "runs": _quoted(tables.runs),
            "found": FOUND,
            "shown": ", ".join(f"r.{name}" for name in SHOWN),
        }
        self._lock, self._count, self._move, self._remove, self._enter, self._name = (
            template.format(**names) for template in (LOCK, COUNT, MOVE, REMOVE, ENTER, NAME)
        )
        self._find, self._find_last, self._end, self._explain, self._forget = (
            template.format(**names) for template in (FIND, FIND_LAST, END, EXPLAIN, FORGET)
        )

    def lock_tasks(
        self, connection: Connection, keys: Sequence[str], waits: bool
    ) -> dict[str, LockedTask]:
        found = connection.exec_driver_sql(self._lock, (json.dumps(keys),))
        return {
            key: LockedTask(next_run, added, Going(active, bool(has_waiting)))
            for key, next_run, added, active, has_waiting in found
        }

    def count_active(self, connection: Connection, keys: Sequence[str]) -> dict[str, Going]:
        found = connection.exec_driver_sql(self._count, (json.dumps(keys),))
        return {key: Going(active, bool(has_waiting)) for key, active, has_waiting in found}

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
            connection.exec_driver_sql(self._move, (json.dumps(moves),))
        if gone:
            connection.exec_driver_sql(self._remove, (json.dumps(gone),))
        return there

    def _enter_all(
        self, connection: Connection, node_id: str, now: int, heads: Sequence[Head]
    ) -> set[RunName]:
        try:
            self._enter_some(connection, node_id, now, heads)
        except IntegrityError:
            pass  # SQLite takes back what the statement has done, and nothing else
        else:
            return set()
        found = self.find(connection, [head.name for head in heads])
        new, there = split_known(heads, found)
        if new:
            self._enter_some(connection, node_id, now, new)
        return there

    def _enter_some(
        self, connection: Connection, node_id: str, now: int, heads: Sequence[Head]
    ) -> None:
        rows = json.dumps([(*head[:4], *head[5:]) for head in heads])
        connection.exec_driver_sql(self._enter, (node_id, now, now, rows))
        names = [(head.task_id, *head.name, head.added) for head in heads if head.task_id]
        if names:
            connection.exec_driver_sql(self._name, names)

    def find(self, connection: Connection, names: Sequence[RunName]) -> list[FoundRun]:
        found = connection.exec_driver_sql(self._find, (json.dumps(names),))
        return [FoundRun._make(row) for row in found]

    def find_last(self, connection: Connection, keys: Sequence[str]) -> Sequence[Row[Any]]:
        return connection.exec_driver_sql(self._find_last, (json.dumps(keys),)).all()

    def end(
        self, connection: Connection, node_id: str, now: int | None, ends: Sequence[End]
    ) -> Ended:
        rows = json.dumps([end[:5] for end in ends])
        followers = connection.exec_driver_sql(self._end, (now, node_id, rows)).scalars().all()
        said = [end for end in ends if end.details is not None]
        if said:
            explained = [
                (details, task, run_us, kind, node_id, token, state)
                for task, run_us, kind, token, state, details in said
            ]
            connection.exec_driver_sql(self._explain, explained)
        return Ended.of(followers)

    def forget(self, connection: Connection, before: int, limit: int) -> int:
        return connection.exec_driver_sql(self._forget, (before, limit)).rowcount


def _quoted(table: Any) -> str:
    dialect: Any = sqlite
    return str(dialect.dialect().identifier_preparer.format_table(table))


# Nobody else writes now, so the runs can be counted at the same time.
LOCK = """
    SELECT t.id, t.next_run_us, t.added,
        (SELECT COUNT(*) FROM {runs} r WHERE r.active = 1 AND r.task = t.id),
        EXISTS (SELECT 1 FROM {runs} r WHERE r.active = 3 AND r.task = t.id)
    FROM {tasks} t WHERE t.id IN (SELECT value FROM json_each(?))
"""

COUNT = """
    SELECT s.value,
        (SELECT COUNT(*) FROM {runs} r WHERE r.active = 1 AND r.task = s.value),
        EXISTS (SELECT 1 FROM {runs} r WHERE r.active = 3 AND r.task = s.value)
    FROM json_each(?) AS s
"""

MOVE = """
    UPDATE {tasks} SET next_run_us = s.following, rev = rev + 1
    FROM (
        SELECT json_extract(value, '$[0]') AS task, json_extract(value, '$[1]') AS following
        FROM json_each(?)
    ) AS s WHERE id = s.task
"""

REMOVE = "DELETE FROM {tasks} WHERE id IN (SELECT value FROM json_each(?))"

ENTER = """
    INSERT INTO {runs} (
        task, run_us, kind, added, task_id, state, active, followers, occurrences, delivery,
        owner, token, attempt, claimed_us, started_us, record
    )
    SELECT
        s.task, s.run_us, s.kind, s.added, NULL,
        CASE WHEN s.once THEN 'claimed' ELSE 'running' END, 1, s.followers, 1,
        CASE WHEN s.once THEN 'at_most_once' ELSE 'at_least_once' END, ?, 1, 1, ?,
        CASE WHEN s.once THEN NULL ELSE ? END, (SELECT record FROM {tasks} WHERE id = s.gone)
    FROM (
        SELECT json_extract(value, '$[0]') AS task, json_extract(value, '$[1]') AS run_us,
            json_extract(value, '$[2]') AS kind, json_extract(value, '$[3]') AS added,
            json_extract(value, '$[4]') AS once, json_extract(value, '$[5]') AS followers,
            json_extract(value, '$[6]') AS gone
        FROM json_each(?)
    ) AS s
"""

# There is no way for bytes through JSON.
NAME = "UPDATE {runs} SET task_id = ? WHERE task = ? AND run_us = ? AND kind = ? AND added = ?"

FIND = """
    SELECT {found} FROM (
        SELECT json_extract(value, '$[0]') AS task, json_extract(value, '$[1]') AS run_us,
            json_extract(value, '$[2]') AS kind
        FROM json_each(?)
    ) AS s
    CROSS JOIN {runs} r WHERE r.task = s.task AND r.run_us = s.run_us AND r.kind = s.kind
"""

# The order is that of the primary key, which no other index has.
FIND_LAST = """
    SELECT {shown} FROM json_each(?) AS s
    CROSS JOIN {runs} r WHERE r.rowid = (
        SELECT q.rowid FROM {runs} q WHERE q.task = s.value
        ORDER BY q.run_us DESC, q.kind DESC, q.added DESC LIMIT 1
    )
"""

END = """
    UPDATE {runs} SET
        state = s.ended, active = NULL, details = NULL, record = NULL, attend_us = NULL,
        asked = NULL, finished_us = s.now
    FROM (
        SELECT json_extract(value, '$[0]') AS task, json_extract(value, '$[1]') AS run_us,
            json_extract(value, '$[2]') AS kind, json_extract(value, '$[3]') AS token,
            json_extract(value, '$[4]') AS ended, ? AS now, ? AS owner
        FROM json_each(?)
    ) AS s
    WHERE {runs}.task = s.task AND {runs}.run_us = s.run_us AND {runs}.kind = s.kind
        AND {runs}.owner = s.owner AND {runs}.token = s.token
        AND ({runs}.active < 3 OR {runs}.state = 'lost')
    RETURNING followers
"""

EXPLAIN = """
    UPDATE {runs} SET details = ?
    WHERE task = ? AND run_us = ? AND kind = ? AND owner = ? AND token = ? AND state = ?
        AND active IS NULL
"""

FORGET = """
    DELETE FROM {runs} WHERE rowid IN (
        SELECT rowid FROM {runs} WHERE finished_us < ? ORDER BY finished_us LIMIT ?
    )
"""
