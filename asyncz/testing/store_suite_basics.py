"""Keeping tasks: what a store takes in it gives back, under any id, and nothing else."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asyncz.exceptions import (
    AsynczException,
    ConflictIdError,
    StoreFullError,
    StoreInUseError,
    TaskLookupError,
)
from asyncz.stores.base import BaseStore
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_tools import (
    NOON,
    SuiteHost,
    after,
    cases,
    ids_of,
    job,
    make_task,
    raises,
)
from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger

__all__ = ["KeepingTasks", "SuiteBase"]

ALIAS = "suite"
MANY = 5_000

STRANGE_IDS = {
    "slash": "a/b",
    "parent directory": "../../etc/passwd",
    "absolute path": "/etc/passwd",
    "backslash": "..\\..\\windows",
    "drive": "C:task",
    "device": "CON",
    "dot": ".",
    "two dots": "..",
    "hidden": ".hidden",
    "single quote": "it's",
    "double quote": 'say "x"',
    "sql": "x'; DROP TABLE tasks; --",
    "percent": "100% %s %(x)s",
    "braces": "{tag}:{0}",
    "dollar": "$where",
    "wildcards": "*?[a]_%",
    "nul": "a\0b",
    "only nul": "\0",
    "newline": "a\r\nb",
    "escape": "\x1b[31mred",
    "space": " ",
    "unicode": "täglich-日次-🕐",
    "right to left": "\u202eabc",
    "noncharacter": "\uffff",
    "1,000 characters": "x" * 1_000,
    "1,000 wide characters": "🕐" * 1_000,
    "reference": "package.module:function",
    "json": '{"$gt": ""}',
}

TRIGGERS = {
    "none": None,
    "date": DateTrigger(run_at=NOON),
    "interval": IntervalTrigger(minutes=5, start_at=NOON),
    "cron": CronTrigger(hour=9, minute="*/7", timezone="Europe/Berlin"),
}


class SuiteBase:
    """How the cases get their stores."""

    host = SuiteHost()

    async def make_store(self) -> BaseStore:
        """A new store without tasks, not started."""
        raise NotImplementedError(f"{type(self).__name__} must write `async def make_store(self)`.")

    @asynccontextmanager
    async def running(self, store: BaseStore | None = None) -> AsyncIterator[Any]:
        """A store that is started, a new one or the one given; shut down in the end."""
        if store is None:
            store = await self.make_store()
        await store.start(self.host, ALIAS)
        try:
            yield store
        finally:
            await store.shutdown()

    @asynccontextmanager
    async def running_with(self, tasks: list[Task]) -> AsyncIterator[Any]:
        """The same, with these tasks in it."""
        async with self.running() as store:
            await store.add_tasks(tasks)
            yield store

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Hand the cases of a test to pytest."""
        named = getattr(metafunc.function, "suite_cases", None)
        if named:
            metafunc.parametrize("case", list(named.values()), ids=list(named))


class KeepingTasks(SuiteBase):
    """Adding, looking up, updating, deleting."""

    async def test_a_task_is_found_as_it_was_added(self) -> None:
        options: dict[str, Any] = {
            "name": "Nightly report",
            "args": (1, "two", [3.5, None, True]),
            "kwargs": {"limit": 10, "nested": {"a": [1, 2]}},
            "executor": "pool",
            "coalesce": False,
            "max_instances": 3,
            "mistrigger_grace_time": 12.5,
        }
        async with self.running() as store:
            await store.add_task(make_task("a", **options))
            found = await store.lookup_task("a")
        assert {name: getattr(found, name) for name in options} == options
        assert (found.id, found.fn, found.next_run_time) == ("a", job, NOON)

    @cases(**{name: name for name in TRIGGERS})
    async def test_a_trigger_is_kept(self, case: str) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", trigger=TRIGGERS[case]))
            assert (await store.lookup_task("a")).trigger == TRIGGERS[case]

    async def test_any_lateness_is_kept(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", mistrigger_grace_time=None))
            assert (await store.lookup_task("a")).mistrigger_grace_time is None

    async def test_a_stored_task_is_not_pending(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            found = await store.lookup_task("a")
        assert (found.pending, found.submitted) == (False, True)

    async def test_get_task_is_lookup_task(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            assert (await store.get_task("a")).id == "a"
            assert await store.get_task("b") is None

    async def test_an_unknown_id_gives_none(self) -> None:
        async with self.running() as store:
            assert await store.lookup_task("missing") is None

    async def test_a_taken_id_is_refused_and_the_first_task_stays(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=("first",)))
            with raises(ConflictIdError, "'a'"):
                await store.add_task(make_task("a", args=("second",)))
            assert (await store.lookup_task("a")).args == ("first",)
            assert len(await store.get_all_tasks()) == 1

    async def test_an_update_replaces_the_task(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=(1,), name="old"))
            await store.update_task(make_task("a", after(5), args=(2,), name="new"))
            found = await store.lookup_task("a")
        assert (found.name, found.args, found.next_run_time) == ("new", (2,), after(5))

    async def test_an_update_of_a_missing_task_is_refused_and_adds_nothing(self) -> None:
        async with self.running() as store:
            with raises(TaskLookupError, "'a'"):
                await store.update_task(make_task("a"))
            assert await store.get_all_tasks() == []

    async def test_a_deletion_of_a_missing_task_is_refused(self) -> None:
        async with self.running() as store:
            with raises(TaskLookupError, "'a'"):
                await store.delete_task("a")

    async def test_a_deleted_task_is_gone_everywhere(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            await store.delete_task("a")
            assert await store.lookup_task("a") is None
            assert await store.get_all_tasks() == []
            assert await store.get_due_tasks(after(9)) == []
            assert await store.get_next_run_time() is None
            with raises(TaskLookupError):
                await store.delete_task("a")

    async def test_the_id_of_a_deleted_task_is_free(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=(1,)))
            await store.delete_task("a")
            await store.add_task(make_task("a", args=(2,)))
            assert (await store.lookup_task("a")).args == (2,)

    async def test_a_deletion_leaves_the_others(self) -> None:
        async with self.running() as store:
            for task_id in "abc":
                await store.add_task(make_task(task_id))
            await store.delete_task("b")
            assert ids_of(await store.get_all_tasks()) == ["a", "c"]

    async def test_all_tasks_can_be_removed_and_new_ones_added(self) -> None:
        async with self.running() as store:
            for task_id in "abc":
                await store.add_task(make_task(task_id))
            await store.remove_all_tasks()
            assert await store.get_all_tasks() == []
            assert await store.get_next_run_time() is None
            await store.add_task(make_task("a"))
            assert ids_of(await store.get_all_tasks()) == ["a"]

    async def test_an_empty_store_has_nothing_to_remove(self) -> None:
        async with self.running() as store:
            await store.remove_all_tasks()
            assert await store.get_all_tasks() == []

    @cases(**STRANGE_IDS)
    async def test_any_text_is_an_id(self, case: str) -> None:
        async with self.running() as store:
            await store.add_task(make_task(case, args=(1,)))
            await store.add_task(make_task("other"))
            assert (await store.lookup_task(case)).id == case
            with raises(ConflictIdError):
                await store.add_task(make_task(case))
            await store.update_task(make_task(case, args=(2,)))
            assert (await store.lookup_task(case)).args == (2,)
            assert ids_of(await store.get_due_tasks(NOON)) == [case, "other"]
            await store.delete_task(case)
            assert ids_of(await store.get_all_tasks()) == ["other"]

    @cases(
        case=("Job", "job"),
        composition=("\u00e9", "e\u0301"),
        trailing_space=("a", "a "),
        trailing_dot=("a", "a."),
        nul=("a", "a\0"),
        accent=("a", "á"),
        width=("a", "\uff41"),
    )
    async def test_ids_that_look_alike_are_two(self, case: tuple[str, str]) -> None:
        async with self.running() as store:
            for task_id in case:
                await store.add_task(make_task(task_id))
            await store.delete_task(case[0])
            assert ids_of(await store.get_all_tasks()) == [case[1]]

    @cases(none=None, empty="", number=5)
    async def test_an_id_that_is_none_is_refused(self, case: Any) -> None:
        async with self.running() as store:
            with raises(ValueError, "task id"):
                store.check_task_id(case)

    async def test_many_tasks(self) -> None:
        async with self.running() as store:
            for start in range(0, MANY, 100):
                numbers = range(start, min(start + 100, MANY))
                await store.add_tasks([make_task(f"t{n}", after(n % 100)) for n in numbers])
            assert len(await store.get_all_tasks()) == MANY
            assert len(await store.get_due_tasks(after(9))) == MANY // 10
            expected = [f"t{number}" for number in range(0, 300, 100)]
            assert ids_of(await store.get_due_tasks(after(9), limit=3)) == expected
            assert await store.get_next_run_time() == NOON

    async def test_one_of_many_adders_of_an_id_wins(self) -> None:
        async with self.running() as store:
            adding = (store.add_task(make_task("a", args=(n,))) for n in range(20))
            results = await asyncio.gather(*adding, return_exceptions=True)
            assert sum(result is None for result in results) == 1
            assert sum(isinstance(result, ConflictIdError) for result in results) == 19
            assert len(await store.get_all_tasks()) == 1

    async def test_operations_at_once_do_not_disturb_each_other(self) -> None:
        async def live(number: int) -> None:
            await store.add_task(make_task(f"t{number}", args=(0,)))
            await store.update_task(make_task(f"t{number}", after(number), args=(number,)))
            assert (await store.lookup_task(f"t{number}")).args == (number,)
            await store.get_due_tasks(after(number))
            if number % 2:
                await store.delete_task(f"t{number}")

        async with self.running() as store:
            await asyncio.gather(*(live(number) for number in range(40)))
            left = await store.get_all_tasks()
        assert ids_of(left) == [f"t{number}" for number in range(0, 40, 2)]

    async def test_one_of_many_deletions_wins(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            deleting = (store.delete_task("a") for _ in range(10))
            results = await asyncio.gather(*deleting, return_exceptions=True)
        assert sum(isinstance(result, TaskLookupError) for result in results) == 9

    async def test_a_started_store_knows_its_alias(self) -> None:
        async with self.running() as store:
            assert store.alias == ALIAS

    @cases(same_alias=ALIAS, other_alias="other")
    async def test_a_store_cannot_be_started_twice(self, case: str) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            with raises(StoreInUseError, ALIAS):
                await store.start(SuiteHost(), case)
            assert (await store.lookup_task("a")).id == "a"

    async def test_a_store_can_be_started_again_after_its_shutdown(self) -> None:
        store = await self.make_store()
        for _ in range(3):
            async with self.running(store):
                await store.remove_all_tasks()
                await store.add_task(make_task("a"))

    async def test_a_shutdown_more_does_no_harm(self) -> None:
        store = await self.make_store()
        await store.shutdown()
        async with self.running(store):
            await store.shutdown()
            await store.shutdown()

    async def test_nothing_good_is_quarantined(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            assert await store.get_quarantined_tasks() == []

    async def test_a_store_takes_no_more_than_it_may(self) -> None:
        store = await self.make_store()
        store.max_tasks = 3
        async with self.running(store):
            await store.add_tasks([make_task("a"), make_task("b")])
            with raises(StoreFullError, "max_tasks=3", f"{ALIAS!r}"):
                await store.add_tasks([make_task("c"), make_task("d")])
            await store.add_task(make_task("c"))
            for _ in range(3):
                with raises(StoreFullError):
                    await store.add_task(make_task("d"))
            await store.update_task(make_task("b", after(1)))
            assert len(await store.get_all_tasks()) == 3
            await store.delete_task("a")
            await store.add_task(make_task("d"))
            assert ids_of(await store.get_all_tasks()) == ["c", "d", "b"]

    async def test_what_is_encrypted_can_be_decrypted(self) -> None:
        async with self.running() as store:
            assert store.conditional_decrypt(store.conditional_encrypt(b"\0record")) == b"\0record"

    async def test_its_lock_can_be_taken_twice_by_a_thread(self) -> None:
        async with self.running() as store:
            lock = store.create_lock()
            with lock, lock:
                pass

    async def test_errors_are_of_the_family(self) -> None:
        async with self.running() as store:
            with raises(AsynczException):
                await store.delete_task("missing")
