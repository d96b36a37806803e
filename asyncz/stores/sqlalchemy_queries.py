"""Queries for snapshots of tasks, answered by the database."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select, true

from asyncz.enums import TaskScheduleState
from asyncz.stores.records import StoredRow
from asyncz.stores.sqlalchemy_rows import Rows, storable
from asyncz.stores.sqlalchemy_schema import family_of
from asyncz.tasks.query import TaskQuery

__all__ = ["find_rows"]


def find_rows(
    connection: Connection, rows: Rows, query: TaskQuery, exclude: Set[str], alias: str
) -> tuple[list[StoredRow], int] | None:
    """The page of rows of a query and how many there are on all pages.

    Returns:
        None if the database cannot say: the text that is looked for has a line break, and would
        be found across two of the texts, which are lines here.
    """
    if "\n" in query.needle:
        return None
    table, family = rows.table, family_of(connection.dialect)
    wanted = and_(true(), *_filters(table, family, query, exclude, alias))
    counted = select(func.count()).select_from(table).where(wanted)
    total = (connection.execute(counted)).scalar_one()
    page = select(*rows.columns).where(wanted).order_by(*_order(table, family, query))
    if query.limit is not None:
        page = page.limit(query.limit)
    elif query.offset and family != "postgresql":
        page = page.limit(2**62)  # which these need before an offset
    if query.offset:
        page = page.offset(query.offset)
    return [StoredRow._make(row) for row in connection.execute(page)], total


def _filters(
    table: Table, family: str, query: TaskQuery, exclude: Set[str], alias: str
) -> Iterator[ColumnElement[bool]]:
    due = table.c.next_run_us
    if query.schedule_state is not None:
        paused = query.schedule_state is TaskScheduleState.PAUSED
        yield due.is_(None) if paused else due.is_not(None)
    if query.executor is not None:
        yield table.c.executor == storable(query.executor)
    if query.trigger is not None:
        trigger = storable(query.trigger)
        yield or_(table.c.trigger_alias == trigger, table.c.trigger_class == trigger)
    if query.needle and query.needle not in alias.lower():
        yield _mentions(table, family, query.needle)
    if exclude:
        yield table.c.id.not_in(sorted(exclude))


def _mentions(table: Table, family: str, needle: str) -> ColumnElement[bool]:
    # Not LIKE: there is nothing to escape here, and SQLite's LIKE folds cases in its own way.
    find = func.strpos if family == "postgresql" else func.instr
    found = [find(table.c.search, storable(needle)) > 0]
    if needle in TaskScheduleState.SCHEDULED.value:
        found.append(table.c.next_run_us.is_not(None))
    if needle in TaskScheduleState.PAUSED.value:
        found.append(table.c.next_run_us.is_(None))
    return or_(*found)


def _order(table: Table, family: str, query: TaskQuery) -> list[ColumnElement[Any]]:
    columns = table.c
    due: list[ColumnElement[Any]] = [columns.next_run_us]
    if family == "mysql":
        due.insert(0, columns.next_run_us.is_(None))
    # `scheduled` comes after `paused` by name, which are the only two states here.
    orders: dict[str, list[ColumnElement[Any]]] = {
        "id": [],
        "name": [columns.lower_name],
        "next_run_time": [*due, columns.lower_name],
        "schedule_state": [columns.next_run_us.is_not(None), *due],
        "executor": [columns.executor],
        "store": [],
        "trigger": [columns.trigger_alias],
    }
    order = [*orders[query.sort_by], columns.lower_id]
    if query.descending:
        ordered = [column.desc() for column in order]
        if family != "mysql":
            ordered = [part.nulls_first() for part in ordered]
    else:
        ordered = [column.asc() for column in order]
        if family == "sqlite":
            ordered = [part.nulls_last() for part in ordered]
    return [*ordered, columns.added, columns.id]
