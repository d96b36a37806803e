"""The statements of a `SQLAlchemyStore`: each takes a connection and does one thing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Insert,
    String,
    Table,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from asyncz.stores.records import Place, Row, Step, StoredRow
from asyncz.stores.sqlalchemy_schema import Tables, family_of

__all__ = ["Rows"]

BATCH = 250
"""Rows that go into one call of the driver, which is as long as the event loop has to wait."""

COUNTED = {"preserve_rowcount": True}
"""For insertions, whose rows SQLAlchemy does not count otherwise."""

SUMMARY = ("lower_id", "lower_name", "executor", "trigger_alias", "trigger_class", "search")


def storable(value: str) -> str:
    """Text that every server takes: PostgreSQL refuses NUL. Its order is as good as the same."""
    return value.replace("\0", "\1") if "\0" in value else value


def values_of(row: Row) -> dict[str, Any]:
    """The columns of a row, but for those that only the store changes."""
    summary = row.summary
    texts: list[str | None] = [None] * len(SUMMARY)
    if summary is not None:
        texts = [*map(storable, summary.texts)]
    return {
        "id": row.key,
        "next_run_us": row.next_run,
        "added": row.order,
        "rev": 0,
        "record": row.data,
        "expects": 1 if summary is not None and summary.expects else None,
        **dict(zip(SUMMARY, texts, strict=True)),
    }


class Rows:
    """The rows of one store."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.table = table = tables.tasks
        self.columns = (table.c.id, table.c.next_run_us, table.c.added, table.c.record)
        # A statement that fails would be the end of the caller's transaction on PostgreSQL.
        self._insertions: dict[str, Insert] = {
            "mysql": insert(table),
            "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
            "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        }
        self._batches = {
            "postgresql": [_postgresql_steps(table)],
            "sqlite": [_sqlite_removal(table), _sqlite_steps(table)],
        }

    # Adding, replacing, removing.

    def insert_one(self, connection: Connection, row: Row) -> bool:
        """Insert a row, unless its key is taken; whether it was inserted."""
        statement = self._insertions[family_of(connection.dialect)]
        try:
            done = connection.execute(statement, values_of(row), execution_options=COUNTED)
        except IntegrityError:
            return False
        return bool(done.rowcount)

    def insert_many(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Insert rows. Raises IntegrityError if a key is taken."""
        for batch in _batches(rows):
            connection.execute(insert(self.table), [values_of(row) for row in batch])

    def first_taken(self, connection: Connection, rows: Sequence[Row]) -> Row | None:
        """One of these rows whose key is taken."""
        by_key = {row.key: row for row in rows}
        for batch in _batches([*by_key]):
            found = select(self.table.c.id).where(self.table.c.id.in_(batch)).limit(1)
            key = (connection.execute(found)).scalar()
            if key is not None:
                return by_key[key]
        return None

    def has(self, connection: Connection, row: Row) -> bool:
        """Whether this very row is there."""
        found = self.fetch(connection, row.key)
        return found is not None and (found.order, found.data) == (row.order, row.data)

    def replace(self, connection: Connection, row: Row, before: StoredRow | None = None) -> bool:
        """Put a row in the place of the one with its key; whether there is one, and it has the
        next run time of the one before."""
        values = values_of(row)
        del values["added"], values["rev"]
        key = values.pop("id")
        changed = update(self.table).where(self.table.c.id == key)
        if before is not None:
            # "IS NULL" where it is paused.
            changed = changed.where(self.table.c.next_run_us.is_not_distinct_from(before.next_run))
        done = connection.execute(changed.values(**values, rev=self.table.c.rev + 1))
        return bool(done.rowcount)

    def remove(self, connection: Connection, keys: Sequence[str]) -> int:
        """Remove the rows of those keys; how many there were."""
        count = 0
        for batch in _batches(keys):
            gone = delete(self.table).where(self.table.c.id.in_(batch))
            count += (connection.execute(gone)).rowcount
        return count

    def set_aside(self, connection: Connection, row: StoredRow, now: int) -> bool:
        """Move a row to where unreadable ones are kept, if it is still what it was."""
        table, aside = self.table, self._tables.aside
        same = and_(
            table.c.id == row.key,
            table.c.added == row.order,
            table.c.next_run_us.is_(None)
            if row.next_run is None
            else table.c.next_run_us == row.next_run,
            table.c.record == row.data,
        )
        names = ["id", "added", "set_aside_us", "next_run_us", "record"]
        copied = select(
            table.c.id, table.c.added, literal(now, BigInteger), table.c.next_run_us, table.c.record
        ).where(same)
        if family_of(connection.dialect) != "sqlite":
            copied = copied.with_for_update()
        copying = insert(aside).from_select(names, copied)
        if not (connection.execute(copying, execution_options=COUNTED)).rowcount:
            return False
        connection.execute(delete(table).where(table.c.id == row.key))
        return True

    # Reading.

    def fetch(self, connection: Connection, key: str, lock: bool = False) -> StoredRow | None:
        """The row of that key, locked or not."""
        wanted = select(*self.columns).where(self.table.c.id == key)
        row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
        return None if row is None else StoredRow._make(row)

    def page(
        self, connection: Connection, after: Place | None, limit: int, until: int | None
    ) -> list[StoredRow]:
        """Rows in the order of `Place`: the scheduled ones, then the paused ones."""
        rows: list[StoredRow] = []
        if after is None or after.next_run is not None:
            rows = self._part(connection, self._scheduled(after, until), limit, False)
            after = None
        if until is None and len(rows) < limit:
            paused = self._paused(after)
            rows += self._part(connection, paused, limit - len(rows), True)
        return rows

    def expecting(self, connection: Connection, after: str | None, limit: int) -> list[StoredRow]:
        """Rows of tasks that have `expect_every`, by their keys, behind one of these."""
        columns = self.table.c
        page = select(*self.columns).where(columns.expects == 1)
        if after is not None:
            page = page.where(columns.id > after)
        found = connection.execute(page.order_by(columns.id).limit(limit))
        return [StoredRow._make(row) for row in found]

    def find_place(self, connection: Connection, number: int, until: int) -> Place | None:
        """The place of the row of this number among those due at or before a time, if any."""
        table = self.table
        place = table.c.next_run_us, table.c.added, table.c.id
        due = select(*place).where(table.c.next_run_us <= until).order_by(*place)
        row = connection.execute(due.offset(number - 1).limit(1)).one_or_none()
        return None if row is None else Place._make(row)

    def _part(
        self, connection: Connection, which: ColumnElement[bool], limit: int, paused: bool
    ) -> list[StoredRow]:
        table = self.table
        order = [table.c.added, table.c.id]
        if not paused:
            order.insert(0, table.c.next_run_us)
        page = select(*self.columns).where(which).order_by(*order).limit(limit)
        return [StoredRow._make(row) for row in connection.execute(page)]

    def _scheduled(self, after: Place | None, until: int | None) -> ColumnElement[bool]:
        column = self.table.c.next_run_us
        which = [column.is_not(None)] if until is None else [column <= until]
        if after is not None and after.next_run is not None:
            # The first says again what the second says, in a way that every server has use for.
            which += [
                column >= after.next_run,
                or_(column > after.next_run, self._behind(after)),
            ]
        return and_(*which)

    def _paused(self, after: Place | None) -> ColumnElement[bool]:
        paused = self.table.c.next_run_us.is_(None)
        return paused if after is None else and_(paused, self._behind(after))

    def _behind(self, place: Place) -> ColumnElement[bool]:
        added, key = self.table.c.added, self.table.c.id
        return or_(added > place.order, and_(added == place.order, key > place.key))

    def count(self, connection: Connection) -> tuple[int, int]:
        """How many rows are scheduled and how many are paused."""
        counted = select(func.count(self.table.c.next_run_us), func.count())
        found = (connection.execute(counted.select_from(self.table))).one()
        return found[0], found[1] - found[0]

    # Steps.

    def advance(self, connection: Connection, steps: Iterable[Step]) -> set[str]:
        """Make those steps whose row has the expected time; the keys of these. No key twice."""
        # In one order everywhere, so that two who do the same do not wait for each other.
        ordered = sorted(steps)
        family = family_of(connection.dialect)
        if family == "mysql":
            return self._advance_locked(connection, ordered)
        made: set[str] = set()
        for batch in self._batches[family]:
            parameters = (
                _as_arrays(ordered) if family == "postgresql" else {"steps": json.dumps(ordered)}
            )
            made.update((connection.execute(batch, parameters)).scalars())
        return made

    def _advance_locked(self, connection: Connection, steps: list[Step]) -> set[str]:
        """For servers that cannot say which rows they have changed: lock, compare, change."""
        table = self.table
        keys = [step.key for step in steps]
        locked = select(table.c.id, table.c.next_run_us).where(table.c.id.in_(keys))
        rows = connection.execute(locked.order_by(table.c.id).with_for_update())
        found: dict[str, int | None] = dict(iter(rows.all()))
        made = {step.key for step in steps if found.get(step.key) == step.expected}
        gone = [step.key for step in steps if step.key in made and step.next_run is None]
        if gone:
            connection.execute(delete(table).where(table.c.id.in_(gone)))
        moved = {
            step.key: step.next_run
            for step in steps
            if step.key in made and step.next_run is not None
        }
        if moved:
            following = case(moved, value=table.c.id)
            changed = update(table).where(table.c.id.in_([*moved]))
            connection.execute(changed.values(next_run_us=following, rev=table.c.rev + 1))
        return made


def _batches(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _as_arrays(steps: Sequence[Step]) -> dict[str, list[Any]]:
    keys, expected, following = zip(*steps, strict=True)
    return {"keys": [*keys], "expected": [*expected], "following": [*following]}


def _quoted(table: Table, backend: Any) -> str:
    return str(backend.dialect().identifier_preparer.format_table(table))


def _postgresql_steps(table: Table) -> TextClause:
    name = _quoted(table, postgresql)
    numbers = ARRAY(BigInteger)
    return text(
        f"""
        WITH step AS (
            SELECT * FROM unnest(:keys, :expected, :following) AS s(id, expected, following)
        ), found AS (
            SELECT t.id, s.expected, s.following FROM {name} t JOIN step s ON t.id = s.id
            WHERE t.next_run_us = s.expected ORDER BY t.id FOR UPDATE OF t
        ), moved AS (
            UPDATE {name} t SET next_run_us = f.following, rev = t.rev + 1 FROM found f
            WHERE t.id = f.id AND t.next_run_us = f.expected AND f.following IS NOT NULL
            RETURNING t.id
        ), gone AS (
            DELETE FROM {name} t USING found f
            WHERE t.id = f.id AND t.next_run_us = f.expected AND f.following IS NULL
            RETURNING t.id
        )
        SELECT id FROM moved UNION ALL SELECT id FROM gone
        """  # noqa: S608  # the name is quoted, and was checked
    ).bindparams(
        bindparam("keys", type_=ARRAY(String)),
        bindparam("expected", type_=numbers),
        bindparam("following", type_=numbers),
    )


SQLITE_STEPS = """
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS expected,
        json_extract(value, '$[2]') AS following
    FROM json_each(:steps)
"""


def _sqlite_removal(table: Table) -> TextClause:
    name = _quoted(table, sqlite)
    return text(
        f"""
        DELETE FROM {name} WHERE (id, next_run_us) IN
            (SELECT id, expected FROM ({SQLITE_STEPS}) WHERE following IS NULL)
        RETURNING id
        """  # noqa: S608  # the name is quoted, and was checked
    )


def _sqlite_steps(table: Table) -> TextClause:
    name = _quoted(table, sqlite)
    return text(
        f"""
        UPDATE {name} AS t SET next_run_us = s.following, rev = rev + 1 FROM ({SQLITE_STEPS}) AS s
        WHERE t.id = s.id AND t.next_run_us = s.expected AND s.following IS NOT NULL
        RETURNING id
        """  # noqa: S608  # the name is quoted, and was checked
    )
