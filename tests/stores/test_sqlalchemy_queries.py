"""The database answers queries for snapshots as `TaskQuery` itself does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.tasks.base import Task
from asyncz.tasks.query import SORTERS, TaskQuery
from asyncz.testing.store_suite_tools import after, make_task
from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger
from tests.services.databases import BACKENDS, new_database

from .sqlalchemy_tools import opened

TRIGGERS = [IntervalTrigger(minutes=5), CronTrigger(hour=9), DateTrigger(run_at=after(7)), None]
NAMES = [
    "Report",
    "report 100%",
    "a_b",
    "aXb",
    "Straße",
    "STRASSE",
    "é",
    "zebra ",
    "zebra",
    "\\",
    "'",
]
IDS = [
    "b",
    "B",
    "a ",
    "a",
    "ä",
    "Z",
    "z\0",
    "x" * 300,
    "日次",
    "🕐",
    "10%",
    "_",
    "sha256:1",
    "t\n",
    "",
]

QUERIES: list[dict[str, Any]] = [
    {},
    {"schedule_state": "scheduled"},
    {"schedule_state": "paused"},
    {"executor": "pool"},
    {"executor": "POOL"},
    {"executor": "pool "},
    {"trigger": "cron"},
    {"trigger": "IntervalTrigger"},
    {"trigger": "no such"},
    *(
        {"q": q}
        for q in ("report", "100%", "_", "%", "A_B", "straße", "ZEBRA ", "é", "🕐", "'", "\\")
    ),
    *(
        {"q": q}
        for q in ("sched", "PAUSED", "tasks", "pool", "every", "x" * 290, "store_suite_tools")
    ),
    {"q": "a\nb"},
    {"q": "a", "executor": "pool", "schedule_state": "scheduled"},
]


def make_tasks() -> list[Task]:
    return [
        make_task(
            task_id or "last",
            None if number % 4 == 3 else after(number % 5),
            name=NAMES[number % len(NAMES)],
            executor=["default", "pool"][number % 2],
            trigger=TRIGGERS[number % len(TRIGGERS)],
        )
        for number, task_id in enumerate(IDS)
    ]


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    with new_database(request.param) as made:
        yield made


async def look(store: SQLAlchemyStore, query: TaskQuery) -> None:
    """Compare the answers."""
    everything = [task.snapshot() for task in await store.get_all_tasks()]
    expected, found = query.select(everything), await store.find_tasks(query)
    assert [info.id for info in found.infos] == [info.id for info in expected.infos], vars(query)
    assert found.total == expected.total


async def test_filters_orders_and_pages_are_those_of_the_query(url: URL) -> None:
    async with opened(url) as store:
        await store.add_tasks(make_tasks())
        for options in QUERIES:
            await look(store, TaskQuery(**options))
        for order in SORTERS:
            for descending in (False, True):
                await look(store, TaskQuery(sort_by=order, descending=descending))
        for limit, offset in ((0, 0), (3, 0), (3, 4), (3, 13), (None, 5), (5, 99)):
            await look(store, TaskQuery(limit=limit, offset=offset))
            await look(store, TaskQuery(q="a", sort_by="name", limit=limit, offset=offset))


async def test_what_is_passed_over_does_not_count(url: URL) -> None:
    passed_over = frozenset({"b", "x" * 300, "missing"})
    async with opened(url) as store:
        await store.add_tasks(make_tasks())
        found = await store.find_tasks(TaskQuery(limit=100), passed_over)
    assert found.total == len(IDS) - 2
    assert passed_over.isdisjoint({info.id for info in found.infos})


async def test_text_in_a_query_is_text_and_never_sql(url: URL) -> None:
    evil = "x' OR '1'='1'; DROP TABLE asyncz_tasks; --"
    async with opened(url) as store:
        await store.add_tasks(make_tasks())
        for query in (TaskQuery(q=evil), TaskQuery(executor=evil), TaskQuery(trigger=evil)):
            assert (await store.find_tasks(query)).infos == []
        assert len(await store.get_all_tasks()) == len(IDS)
