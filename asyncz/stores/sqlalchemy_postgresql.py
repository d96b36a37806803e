"""Pages of firings and outcomes on PostgreSQL: arrays, which one statement takes apart.

Their plans are kept for long, and the statistics that they are made from are old when a table
grows fast, as that of the runs does. So each lookup of a run is one by its key that the planner
cannot turn round (LATERAL, LIMIT), and in these transactions it may not read tables from end to
end, nor join by hash or merge, where there is another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Connection,
    Integer,
    LargeBinary,
    Row,
    String,
    TextClause,
    bindparam,
    text,
)
from sqlalchemy.dialects import postgresql

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
)
from asyncz.stores.sqlalchemy_schema import Tables
from asyncz.stores.sqlalchemy_time import NOW

__all__ = ["PostgreSQLBatches"]

STEADY = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true)"
)
TEXTS, NUMBERS, FLAGS = ARRAY(String), ARRAY(BigInteger), ARRAY(Boolean)


class PostgreSQLBatches:
    """See `Batches`."""

    def __init__(self, tables: Tables) -> None:
        names = {
            "tasks": _quoted(tables.tasks),
            "runs": _quoted(tables.runs),
            "now": NOW["postgresql"],
            "found": FOUND,
            "shown": ", ".join(f"r.{name}" for name in SHOWN),
        }
        self._lock = _statement(LOCK, names, keys=TEXTS)
        self._lock_free = _statement(LOCK + "SKIP LOCKED", names, keys=TEXTS)
        self._count = _statement(COUNT, names, keys=TEXTS)
        self._find = _statement(FIND, names, tasks=TEXTS, instants=NUMBERS, kinds=TEXTS)
        self._find_last = _statement(FIND_LAST, names, keys=TEXTS)
        self._forget = _statement(FORGET, names, before=BigInteger, limit=BigInteger)
        self._begin = _statement(
            BEGIN, names, moved=TEXTS, following=NUMBERS, gone=TEXTS, tasks=TEXTS,
            instants=NUMBERS, kinds=TEXTS, added=NUMBERS, ids=ARRAY(LargeBinary), once=FLAGS,
            followers=ARRAY(Integer), keeps=TEXTS, node=String, now=BigInteger,
        )  # fmt: skip
        self._end = _statement(
            END, names, tasks=TEXTS, instants=NUMBERS, kinds=TEXTS, tokens=ARRAY(Integer),
            states=TEXTS, details=ARRAY(LargeBinary), node=String, now=BigInteger,
        )  # fmt: skip

    def lock_tasks(
        self, connection: Connection, keys: Sequence[str], waits: bool
    ) -> dict[str, LockedTask]:
        connection.execute(STEADY)
        lock = self._lock if waits else self._lock_free
        found = connection.execute(lock, {"keys": [*keys]})
        return {key: LockedTask(next_run, added) for key, next_run, added in found}

    def count_active(self, connection: Connection, keys: Sequence[str]) -> dict[str, Going]:
        found = connection.execute(self._count, {"keys": [*keys]})
        return {key: Going(active, waiting) for key, active, waiting in found}

    def begin(
        self,
        connection: Connection,
        node_id: str,
        now: int,
        moves: Sequence[Move],
        gone: Sequence[str],
        heads: Sequence[Head],
    ) -> set[RunName]:
        names = ("tasks", "instants", "kinds", "added", "ids", "once", "followers", "keeps")
        parameters = _columns(("moved", "following"), moves) | _columns(names, heads)
        parameters |= {"gone": [*gone], "node": node_id, "now": now}
        entered = {RunName._make(row) for row in connection.execute(self._begin, parameters)}
        if len(entered) == len(heads):
            return set()
        return {head.name for head in heads} - entered

    def find(self, connection: Connection, names: Sequence[RunName]) -> list[FoundRun]:
        parameters = _columns(("tasks", "instants", "kinds"), names)
        return [FoundRun._make(row) for row in connection.execute(self._find, parameters)]

    def find_last(self, connection: Connection, keys: Sequence[str]) -> Sequence[Row[Any]]:
        return connection.execute(self._find_last, {"keys": [*keys]}).all()

    def end(
        self, connection: Connection, node_id: str, now: int | None, ends: Sequence[End]
    ) -> Ended:
        connection.execute(STEADY)
        names = ("tasks", "instants", "kinds", "tokens", "states", "details")
        parameters = _columns(names, ends) | {"node": node_id, "now": now}
        return Ended.of(connection.execute(self._end, parameters).scalars().all())

    def forget(self, connection: Connection, before: int, limit: int) -> int:
        parameters = {"before": before, "limit": limit}
        return connection.execute(self._forget, parameters).rowcount


def _quoted(table: Any) -> str:
    dialect: Any = postgresql
    return str(dialect.dialect().identifier_preparer.format_table(table))


def _statement(template: str, names: dict[str, str], **types: Any) -> TextClause:
    made = text(template.format(**names))
    return made.bindparams(*(bindparam(name, type_=kind) for name, kind in types.items()))


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Rows as an array for each of their columns."""
    if not rows:
        return {name: [] for name in names}
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


LOCK = """
    SELECT id, next_run_us, added FROM {tasks} WHERE id = ANY(:keys) ORDER BY id FOR UPDATE
"""

# The order is that of the index of open runs by task; without it the planner may take the other one
# of open runs, and read them all.
COUNT = """
    SELECT s.task, (
        SELECT COUNT(*) FROM (
            SELECT 1 FROM {runs} r WHERE r.active = 1 AND r.task = s.task ORDER BY r.run_us
        ) AS q
    ), (
        SELECT r.run_us FROM {runs} r WHERE r.active = 3 AND r.task = s.task
        ORDER BY r.run_us LIMIT 1
    ) IS NOT NULL FROM unnest(:keys) AS s(task)
"""

BEGIN = """
    WITH moved AS (
        UPDATE {tasks} t SET next_run_us = s.following, rev = t.rev + 1
        FROM unnest(:moved, :following) AS s(id, following)
        WHERE t.id = ANY(:moved) AND t.id = s.id
    ), gone AS (
        DELETE FROM {tasks} WHERE id = ANY(:gone) RETURNING id, record
    )
    INSERT INTO {runs} (
        task, run_us, kind, added, task_id, state, active, followers, occurrences, delivery,
        owner, token, attempt, claimed_us, started_us, record
    )
    SELECT
        s.task, s.run_us, s.kind, s.added, s.task_id,
        CASE WHEN s.once THEN 'claimed' ELSE 'running' END, 1, s.followers, 1,
        CASE WHEN s.once THEN 'at_most_once' ELSE 'at_least_once' END,
        :node, 1, 1, :now, CASE WHEN s.once THEN NULL ELSE :now END, g.record
    FROM unnest(:tasks, :instants, :kinds, :added, :ids, :once, :followers, :keeps)
        AS s(task, run_us, kind, added, task_id, once, followers, keeps)
    LEFT JOIN gone g ON g.id = s.keeps
    ON CONFLICT DO NOTHING
    RETURNING task, run_us, kind
"""

FIND = """
    SELECT {found} FROM unnest(:tasks, :instants, :kinds) AS s(task, run_us, kind)
    CROSS JOIN LATERAL (
        SELECT * FROM {runs} q
        WHERE q.task = s.task AND q.run_us = s.run_us AND q.kind = s.kind
        ORDER BY q.added DESC LIMIT 10
    ) AS r
"""

# The order is that of the primary key, which no other index has.
FIND_LAST = """
    SELECT {shown} FROM unnest(:keys) AS s(task)
    CROSS JOIN LATERAL (
        SELECT * FROM {runs} q WHERE q.task = s.task
        ORDER BY q.run_us DESC, q.kind DESC, q.added DESC LIMIT 1
    ) AS r
"""

# By the key, not by `ctid`: that of a row which a note, or a wish to cancel it, has just changed is
# another one, and the run would count as somebody else's.
END = """
    UPDATE {runs} r SET
        state = f.state, active = NULL, details = f.details, record = NULL,
        attend_us = NULL, asked = NULL, finished_us = COALESCE(:now, {now})
    FROM (
        SELECT s.task, s.run_us, s.kind, q.added, s.state, s.details
        FROM unnest(:tasks, :instants, :kinds, :tokens, :states, :details)
            AS s(task, run_us, kind, token, state, details)
        CROSS JOIN LATERAL (
            SELECT o.added FROM {runs} o
            WHERE o.task = s.task AND o.run_us = s.run_us AND o.kind = s.kind
                AND o.owner = :node AND o.token = s.token
                AND (o.active < 3 OR o.state = 'lost')
            ORDER BY o.added DESC LIMIT 1
        ) AS q
    ) AS f
    WHERE r.task = f.task AND r.run_us = f.run_us AND r.kind = f.kind AND r.added = f.added
        AND r.owner = :node AND (r.active < 3 OR r.state = 'lost')
    RETURNING r.followers
"""

FORGET = """
    DELETE FROM {runs} WHERE finished_us < :before AND ctid = ANY(ARRAY(
        SELECT ctid FROM {runs} WHERE finished_us < :before ORDER BY finished_us LIMIT :limit
    ))
"""
