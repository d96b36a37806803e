"""Many at once: adding, finding by page, counting."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from typing import Any

from asyncz.exceptions import ConflictIdError
from asyncz.stores.base import BaseStore
from asyncz.tasks.base import Task
from asyncz.tasks.query import SORTERS, FoundTasks, TaskQuery
from asyncz.testing.store_suite_basics import SuiteBase
from asyncz.testing.store_suite_tools import NOON, after, cases, ids_of, make_task, raises
from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger, ShutdownTrigger

__all__ = ["AskingForTasks"]

TRIGGERS = (
    IntervalTrigger(minutes=5, start_at=NOON),
    CronTrigger(hour=9, minute="*/7", timezone="Europe/Berlin"),
    DateTrigger(run_at=NOON),
    None,
    ShutdownTrigger(),
)
NAMES = ("Nightly report", "100% of_it", "back\\slash", 'Émile\'s "job"', "a.*b", "$gt[0]")
EXECUTORS = ("default", "pool", "Pool")

FILTERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "scheduled": {"schedule_state": "scheduled"},
    "paused": {"schedule_state": "paused"},
    "pending": {"schedule_state": "pending"},
    "quarantined": {"schedule_state": "quarantined"},
    "an executor": {"executor": "pool"},
    "an executor that is not there": {"executor": "POOL"},
    "a trigger": {"trigger": "Cron"},
    "a class of triggers": {"trigger": "intervaltrigger"},
    "state and executor": {"schedule_state": "scheduled", "executor": "default"},
    "everything at once": {
        "schedule_state": "scheduled", "executor": "pool", "trigger": "interval", "q": "t",
    },
}  # fmt: skip
TEXTS = (
    "report", "NIGHTLY", "%", "_", "100%", "\\", "é", "É", "'", '"', ".*", "$gt[", "interval[",
    "store_suite_tools:job", "crontrigger", "paused", "sched", "suite", "pool", "\n", "\0", "  t7 ",
    "nobody has this",
)  # fmt: skip
PAGES = ((None, 0), (3, 0), (4, 3), (0, 0), (5, 17), (100, 5), (2, 1_000))


def many_tasks() -> list[Task]:
    """Twenty tasks of all kinds; some have the same run time, some are paused."""
    return [
        make_task(
            f"t{number}",
            None if number % 5 == 3 else after(number % 4),
            name=NAMES[number % len(NAMES)],
            executor=EXECUTORS[number % len(EXECUTORS)],
            trigger=TRIGGERS[number % len(TRIGGERS)],
        )
        for number in range(20)
    ]


def seen(found: FoundTasks) -> tuple[list[Any], int]:
    """What is compared."""
    shown = [(info.id, info.name, info.schedule_state, info.next_run_time) for info in found.infos]
    return shown, found.total


class AskingForTasks(SuiteBase):
    """For every store."""

    async def test_several_tasks_are_added_at_once(self) -> None:
        async with self.running() as store:
            await store.add_tasks([make_task("b", after(1)), make_task("a"), make_task("c", None)])
            assert ids_of(await store.get_all_tasks()) == ["a", "b", "c"]

    async def test_tasks_added_at_once_keep_their_order(self) -> None:
        async with self.running() as store:
            await store.add_tasks([make_task(name) for name in "zyxwv"])
            assert ids_of(await store.get_due_tasks(NOON)) == list("zyxwv")

    async def test_adding_no_tasks_changes_nothing(self) -> None:
        async with self.running() as store:
            await store.add_tasks([])
            assert await store.get_all_tasks() == []

    @cases(taken=["a", "new", "b"], twice=["a", "a"], taken_last=["x", "y", "b"])
    async def test_of_tasks_added_at_once_all_or_none_are_kept(self, case: list[str]) -> None:
        async with self.running() as store:
            await store.add_task(make_task("b", name="first"))
            with raises(ConflictIdError):
                await store.add_tasks([make_task(name) for name in case])
            (kept,) = await store.get_all_tasks()
            assert (kept.id, kept.name) == ("b", "first")

    async def test_one_bad_id_among_several_keeps_all_out(self) -> None:
        async with self.running() as store:
            with raises(ValueError):
                await store.add_tasks([make_task("a"), make_task("")])
            assert await store.get_all_tasks() == []

    async def test_ten_thousand_tasks_are_added_at_once(self) -> None:
        async with self.running() as store:
            await store.add_tasks([make_task(f"t{number:05}") for number in range(10_000)])
            found = await store.find_tasks(TaskQuery(sort_by="id", limit=2, offset=9_998))
            assert [info.id for info in found.infos] == ["t09998", "t09999"]
            assert found.total == 10_000
            await store.remove_all_tasks()

    @cases(**FILTERS)
    async def test_tasks_are_found_by_what_they_are(self, case: dict[str, Any]) -> None:
        async with self.with_many() as store:
            await self.compare(store, **case)

    async def test_tasks_are_found_by_text_taken_literally(self) -> None:
        async with self.with_many() as store:
            for text in TEXTS:
                await self.compare(store, q=text)

    @cases(**{name: name for name in SORTERS})
    async def test_tasks_are_found_in_any_order(self, case: str) -> None:
        async with self.with_many() as store:
            for descending in (False, True):
                await self.compare(store, sort_by=case, descending=descending)

    @cases(**{name: name for name in SORTERS})
    async def test_tasks_are_found_page_by_page(self, case: str) -> None:
        async with self.with_many() as store:
            for limit, offset in PAGES:
                for descending in (False, True):
                    page = {"limit": limit, "offset": offset, "descending": descending}
                    await self.compare(store, sort_by=case, **page)

    async def test_tasks_that_are_passed_over_are_not_counted(self) -> None:
        async with self.with_many() as store:
            query = TaskQuery(executor="pool", limit=2)
            found = await store.find_tasks(query, frozenset({"t1", "t2", "t7"}))
            expected = query.select(
                info for info in await self.infos(store) if info.id not in {"t1", "t2", "t7"}
            )
            assert seen(found) == seen(expected)

    async def test_tasks_are_counted(self) -> None:
        async with self.with_many() as store:
            assert tuple(await store.count_tasks()) == (16, 4, 0, 0)

    async def compare(self, store: BaseStore, **wanted: Any) -> None:
        """What the store finds is what looking at each of its tasks finds."""
        query = TaskQuery(**wanted)
        expected = query.select(await self.infos(store))
        assert seen(await store.find_tasks(query)) == seen(expected), wanted

    async def infos(self, store: BaseStore) -> list[Any]:
        """All its tasks, as they are seen."""
        return [task.snapshot() for task in await store.get_all_tasks()]

    def with_many(self) -> Any:
        """A store with the twenty tasks."""
        return self.running_with(many_tasks())
