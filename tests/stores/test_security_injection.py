"""Ids, filters and orders are text to every server, whatever they look like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asyncz.exceptions import TaskLookupError
from asyncz.stores.base import BaseStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.tasks.query import TaskQuery, TaskSummary
from asyncz.testing.store_suite_tools import SuiteHost, after, ids_of, make_task
from tests.services.databases import new_database
from tests.services.mongodb import mongodb_url

from .hostile import HOSTILE
from .places import motor_is_warm, new_place

__all__ = ["mongodb_url", "motor_is_warm"]

BYSTANDER = "an innocent bystander"
ALSO = "tasks\nscheduled"
"""What text is searched in beside a task's own: its store, its state."""


@contextmanager
def store_of(kind: str, request: pytest.FixtureRequest) -> Iterator[BaseStore]:
    if "+" in kind:
        with new_database(kind) as url:
            yield SQLAlchemyStore(url)
        return
    server = request.getfixturevalue("mongodb_url") if kind == "mongodb" else ""
    with new_place(kind, request.getfixturevalue("directory"), server) as place:
        yield place.store()


@pytest.fixture(params=["sqlite", "postgresql+asyncpg", "mysql+asyncmy", "redis", "mongodb"])
def store(request: pytest.FixtureRequest) -> Iterator[BaseStore]:
    with store_of(request.param, request) as made:
        yield made


async def found_by(store: BaseStore, **wanted: Any) -> tuple[list[str | None], int]:
    """Ids of the first page, and how many there are on all pages."""
    found = await store.find_tasks(TaskQuery(**wanted, sort_by="id", limit=3))
    return [info.id for info in found.infos], found.total


def test_there_are_two_hundred_and_each_is_another() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) == 200


async def test_hostile_texts_are_ids_and_filters_like_any_other(store: BaseStore) -> None:
    await store.start(SuiteHost(), "tasks")
    tasks = [make_task(text, after(n), name=text) for n, text in enumerate([*HOSTILE, BYSTANDER])]
    await store.add_tasks(tasks)
    assert ids_of(await store.get_all_tasks()) == [*HOSTILE, BYSTANDER]
    summaries = [(TaskSummary.of(task), str(task.id)) for task in tasks]
    searched = [(task_id, f"{known.search}\n{ALSO}") for known, task_id in sorted(summaries)]

    for number, text in enumerate(HOSTILE):
        if number % 3 == 0:
            task = await store.lookup_task(text)
            assert task is not None
            assert (task.id, task.name) == (text, text)
        if needle := text.strip().lower():
            ids = [task_id for task_id, words in searched if needle in words]
            assert await found_by(store, q=text) == (ids[:3], len(ids)), text
        wanted = {["executor", "trigger"][number % 2]: text}
        assert await found_by(store, **wanted) == ([], 0)

    gone = HOSTILE[::5]
    for text in gone:
        await store.delete_task(text)
    with pytest.raises(TaskLookupError):
        await store.delete_task(gone[0])
    left = [text for text in HOSTILE if text not in gone]
    assert ids_of(await store.get_all_tasks()) == [*left, BYSTANDER]
    await store.shutdown()


@pytest.mark.parametrize("option", ["sort_by", "schedule_state"])
def test_no_hostile_text_is_an_order_or_a_state(option: str) -> None:
    for text in [*HOSTILE, "ID", "id "]:
        if option == "sort_by" and text == "id":
            continue
        wanted: dict[str, Any] = {option: text}
        with pytest.raises(ValueError, match=option):
            TaskQuery(**wanted)
