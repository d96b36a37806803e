"""What becomes of records that cannot be read: news of them, their repair, and large ones."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from asyncz.exceptions import (
    SerializationError,
    TaskLookupError,
    TaskOptionError,
    UnreadableRecordError,
)
from asyncz.stores.base import BaseStore
from asyncz.testing.store_suite_persistence import OutlivingTheProcess, changed
from asyncz.testing.store_suite_tools import NOON, after, cases, ids_of, job, make_task, raises

__all__ = ["KeepingQuarantine", "moved_job"]

MOVED = "asyncz.testing.store_suite_quarantine:moved_job"
MIB = 1024 * 1024


def moved_job(*args: Any, **kwargs: Any) -> None:
    """Where the suite's job is said to have been moved."""


def lost(record: dict[str, Any], **values: Any) -> bytes:
    """The record, naming a function that is not there any more."""
    return changed(record, fn="asyncz.testing.store_suite_quarantine:lost_job", **values)


ASKING: dict[str, Callable[[BaseStore], Awaitable[Any]]] = {
    "get_due_tasks": lambda store: store.get_due_tasks(after(9)),
    "get_all_tasks": lambda store: store.get_all_tasks(),
    "lookup_task": lambda store: store.lookup_task("a"),
    "get_next_run_time": lambda store: store.get_next_run_time(),
    "get_quarantined_tasks": lambda store: store.get_quarantined_tasks(),
}


class KeepingQuarantine(OutlivingTheProcess):
    """For persistent stores: what comes after a record was found unreadable."""

    @cases(**ASKING)
    async def test_an_unreadable_record_is_told_once_and_so_is_its_return(self, case: Any) -> None:
        async with self.running() as store:
            self.host.news.clear()
            good = await self.spoil(store, lost)
            assert [news.task_id for news in self.host.news] == ["a"]
            assert "lost_job" in (self.host.news[0].error or "")
            for _ in range(3):
                await case(store)
            await self.write_record(store, "a", good)
            await store.get_quarantined_tasks()
            for _ in range(3):
                await case(store)
        assert [(task_id, bool(error)) for task_id, error in self.host.news] == [
            ("a", True),
            ("a", False),
        ]

    async def test_what_a_record_says_cannot_break_a_line_of_the_log(self) -> None:
        async with self.running() as store:
            self.host.news.clear()
            await self.spoil(store, lambda record: changed(record, trigger={"type": "x\n\x1b[2J"}))
            (kept,) = await store.get_quarantined_tasks()
        assert kept.error.isprintable()
        assert (self.host.news[0].error or "").isprintable()

    async def test_a_record_is_pointed_at_where_its_function_is_now(self) -> None:
        async with self.running() as store:
            await self.spoil(store, lost)
            before = json.loads(await self.read_record(store, "a"))
            self.host.news.clear()
            task = await store.repair_task("a", MOVED)
            assert (task.id, task.fn, task.next_run_time) == ("a", moved_job, NOON)
            assert self.host.news == [("a", None)]
            assert json.loads(await self.read_record(store, "a")) == {**before, "fn": MOVED}
            assert await store.get_quarantined_tasks() == []
            assert ids_of(await store.get_due_tasks(after(9))) == ["a", "other"]
        async with self.running(await self.reopen(store)) as store:
            assert (await store.lookup_task("a")).fn is moved_job

    @cases(
        unknown_function=(lost, "asyncz:no_such", "no_such"),
        forbidden_function=(lost, "os:getcwd", "standard library"),
        something_else_wrong=(lambda record: lost(record, args=[{"$": "x"}]), MOVED, "tag"),
        not_even_a_record=(lambda record: b"garbage", MOVED, "JSON"),
    )
    async def test_a_repair_that_does_not_help_changes_nothing(self, case: Any) -> None:
        spoiling, reference, word = case
        async with self.running() as store:
            await self.spoil(store, spoiling)
            before = await self.read_record(store, "a")
            with raises(UnreadableRecordError, "'a'", word, "left as it is"):
                await store.repair_task("a", reference)
            assert await self.read_record(store, "a") == before
            assert [kept.task_id for kept in await store.get_quarantined_tasks()] == ["a"]

    async def test_what_is_not_broken_is_not_repaired(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            with raises(TaskOptionError, "'a'", "update_task"):
                await store.repair_task("a", MOVED)
            assert (await store.lookup_task("a")).fn is job
            for nobody in ("b", "\ud800", ""):
                with raises(TaskLookupError):
                    await store.repair_task(nobody, MOVED)

    @cases(
        text="x" * MIB,
        wide_text="ü" * (MIB // 2),
        binary=bytes(range(256)) * (MIB // 256),
        numbers=list(range(MIB // 8)),
    )
    async def test_a_mebibyte_of_arguments_fits(self, case: Any) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=(case,)))
            assert (await store.lookup_task("a")).args == (case,)

    async def test_more_is_refused_and_its_size_is_named(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            with raises(SerializationError, "'a'", "3,14", "max_payload"):
                await store.update_task(make_task("a", args=("x" * 3 * MIB,)))
            with raises(SerializationError, "'b'", "max_payload"):
                await store.add_task(make_task("b", args=("x" * 3 * MIB,)))
            assert ids_of(await store.get_all_tasks()) == ["a"]
            assert (await store.lookup_task("a")).args == ()
