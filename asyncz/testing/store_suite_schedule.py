"""When tasks are due: order, bounds, precision, and the steps of their schedules."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asyncz.exceptions import TaskLookupError
from asyncz.stores.base import BaseStore, TaskAdvance
from asyncz.tasks.base import Task
from asyncz.testing.store_suite_basics import SuiteBase
from asyncz.testing.store_suite_tools import BERLIN, NOON, after, cases, ids_of, make_task

__all__ = ["KeepingTime"]

FIRST_PASS = datetime(2031, 10, 26, 2, 30, tzinfo=BERLIN)
SECOND_PASS = FIRST_PASS.replace(fold=1)
"""The same wall-clock time of the hour that comes twice: an hour apart, equal in Python's eyes."""


class KeepingTime(SuiteBase):
    """Due tasks, next run times, listings, `advance_tasks`."""

    async def test_a_task_is_due_at_its_very_instant_and_after(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            assert ids_of(await store.get_due_tasks(NOON)) == ["a"]
            assert ids_of(await store.get_due_tasks(after(86_400))) == ["a"]

    async def test_a_task_is_not_due_a_microsecond_before(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            assert await store.get_due_tasks(after(microseconds=-1)) == []

    @cases(past=datetime(1970, 1, 1, tzinfo=UTC), before_the_epoch=datetime(1960, 1, 1, tzinfo=UTC))
    async def test_run_times_long_ago_are_due(self, case: datetime) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", case))
            assert await store.get_next_run_time() == case
            assert ids_of(await store.get_due_tasks(NOON)) == ["a"]

    @cases(one=1, odd=333_333, last=999_999)
    async def test_run_times_keep_their_microseconds(self, case: int) -> None:
        moment = NOON.replace(microsecond=case)
        async with self.running() as store:
            await store.add_task(make_task("a", moment))
            assert (await store.lookup_task("a")).next_run_time == moment
            assert await store.get_next_run_time() == moment

    async def test_run_times_far_ahead_are_kept(self) -> None:
        moment = datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        async with self.running() as store:
            await store.add_task(make_task("a", moment))
            assert await store.get_next_run_time() == moment
            assert await store.get_due_tasks(moment - timedelta(microseconds=1)) == []

    async def test_due_tasks_come_earliest_first(self) -> None:
        async with self.running() as store:
            for seconds in (3, 1, 2, 0):
                await store.add_task(make_task(f"t{seconds}", after(seconds)))
            assert ids_of(await store.get_due_tasks(after(2))) == ["t0", "t1", "t2"]

    async def test_a_microsecond_decides_the_order(self) -> None:
        async with self.running() as store:
            for offset in (2, 0, 1):
                await store.add_task(make_task(f"t{offset}", after(microseconds=offset)))
            assert ids_of(await store.get_due_tasks(after(1))) == ["t0", "t1", "t2"]

    async def test_a_task_added_later_but_due_earlier_comes_first(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("late", after(5)))
            assert await store.get_next_run_time() == after(5)
            await store.add_task(make_task("early", after(1)))
            assert await store.get_next_run_time() == after(1)
            assert ids_of(await store.get_due_tasks(after(9))) == ["early", "late"]

    async def test_equal_run_times_keep_the_order_of_insertion(self) -> None:
        names = ["m", "z", "a", "k", "b"]
        async with self.running() as store:
            for name in names:
                await store.add_task(make_task(name))
            assert ids_of(await store.get_due_tasks(NOON)) == names
            assert ids_of(await store.get_all_tasks()) == names

    async def test_an_update_does_not_change_the_order_of_insertion(self) -> None:
        async with self.running() as store:
            for name in "zam":
                await store.add_task(make_task(name))
            await store.update_task(make_task("z", after(5)))
            await store.update_task(make_task("z", name="again"))
            assert ids_of(await store.get_due_tasks(NOON)) == ["z", "a", "m"]

    async def test_a_step_does_not_change_the_order_of_insertion(self) -> None:
        async with self.running() as store:
            for name in "zam":
                await store.add_task(make_task(name))
            for task in reversed(await store.get_due_tasks(NOON)):
                assert await store.advance_tasks([TaskAdvance(task, NOON, after(60))]) == [True]
            assert ids_of(await store.get_due_tasks(after(60))) == ["z", "a", "m"]

    @cases(none=0, one=1, some=3, more_than_there_are=99)
    async def test_a_limit_gives_the_first_ones(self, case: int) -> None:
        async with self.running() as store:
            for number in range(5):
                await store.add_task(make_task(f"t{number}", after(number)))
            due = await store.get_due_tasks(after(9), limit=case)
        assert ids_of(due) == [f"t{number}" for number in range(min(case, 5))]

    async def test_excluded_tasks_do_not_count_to_the_limit(self) -> None:
        async with self.running() as store:
            for number in range(5):
                await store.add_task(make_task(f"t{number}", after(number)))
            due = await store.get_due_tasks(after(9), limit=2, exclude=frozenset({"t0", "t2"}))
            assert ids_of(due) == ["t1", "t3"]
            due = await store.get_due_tasks(after(9), exclude=frozenset({"t1", "missing"}))
            assert ids_of(due) == ["t0", "t2", "t3", "t4"]

    async def test_asking_for_due_tasks_takes_nothing_away(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            assert ids_of(await store.get_due_tasks(NOON)) == ids_of(
                await store.get_due_tasks(NOON)
            )

    async def test_an_empty_store_has_no_next_run_time(self) -> None:
        async with self.running() as store:
            assert await store.get_next_run_time() is None
            assert await store.get_next_run_time(after=NOON) is None
            assert await store.get_due_tasks(NOON) == []

    async def test_the_next_run_time_is_the_earliest(self) -> None:
        async with self.running() as store:
            for seconds in (7, 3, 5):
                await store.add_task(make_task(f"t{seconds}", after(seconds)))
            assert await store.get_next_run_time() == after(3)

    async def test_the_next_run_time_after_an_instant_is_later_than_it(self) -> None:
        async with self.running() as store:
            for seconds in (1, 2, 3):
                await store.add_task(make_task(f"t{seconds}", after(seconds)))
            assert await store.get_next_run_time(after=after(0)) == after(1)
            assert await store.get_next_run_time(after=after(1)) == after(2)
            assert await store.get_next_run_time(after=after(1, -1)) == after(1)
            assert await store.get_next_run_time(after=after(3)) is None

    async def test_a_paused_task_is_never_due(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", None))
            assert await store.get_due_tasks(after(86_400)) == []
            assert await store.get_next_run_time() is None
            assert (await store.lookup_task("a")).paused

    async def test_pausing_an_overdue_task_takes_its_run_time_away(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("overdue"))
            await store.add_task(make_task("later", after(60)))
            await store.update_task(make_task("overdue", None))
            assert await store.get_due_tasks(after(1)) == []
            assert await store.get_next_run_time() == after(60)
            await store.update_task(make_task("overdue", after(2)))
            assert await store.get_next_run_time() == after(2)

    async def test_paused_tasks_are_listed_last_in_order_of_insertion(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("p2", None))
            await store.add_task(make_task("late", after(5)))
            await store.add_task(make_task("p1", None))
            await store.add_task(make_task("early", after(1)))
            assert ids_of(await store.get_all_tasks()) == ["early", "late", "p2", "p1"]

    async def test_fixing_a_list_moves_the_paused_tasks_to_its_end(self) -> None:
        tasks = [make_task("p", None), make_task("b", after(2)), make_task("a", after(1))]
        async with self.running() as store:
            store.fix_paused_tasks(tasks)
        assert ids_of(tasks) == ["b", "a", "p"]

    async def test_run_times_of_different_zones_compare_by_instant(self) -> None:
        zones = ["Asia/Tokyo", "America/New_York", "UTC", "Asia/Kathmandu", "Europe/Berlin"]
        async with self.running() as store:
            for number, zone in enumerate(zones):
                moment = after(len(zones) - number).astimezone(ZoneInfo(zone))
                await store.add_task(make_task(zone, moment))
            now = after(3).astimezone(ZoneInfo("Pacific/Auckland"))
            assert ids_of(await store.get_due_tasks(now)) == zones[:1:-1]
            assert await store.get_next_run_time(after=now) == after(4)

    async def test_the_two_passes_of_a_repeated_hour_are_two_instants(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("second", SECOND_PASS))
            await store.add_task(make_task("first", FIRST_PASS))
            assert ids_of(await store.get_due_tasks(FIRST_PASS)) == ["first"]
            assert ids_of(await store.get_due_tasks(SECOND_PASS)) == ["first", "second"]
            following = await store.get_next_run_time(after=FIRST_PASS)
        assert following.astimezone(UTC) == SECOND_PASS.astimezone(UTC)

    async def test_a_step_moves_a_task_on(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a", args=(1, 2))
            assert await store.advance_tasks([TaskAdvance(task, NOON, after(60))]) == [True]
            found = await store.lookup_task("a")
            assert (found.next_run_time, found.args) == (after(60), (1, 2))
            assert await store.get_due_tasks(after(59)) == []
            assert ids_of(await store.get_due_tasks(after(60))) == ["a"]

    async def test_the_last_step_forgets_the_task(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            assert await store.advance_tasks([TaskAdvance(task, NOON, None)]) == [True]
            assert await store.get_all_tasks() == []
            assert await store.get_next_run_time() is None

    async def test_no_steps_are_nothing_to_do(self) -> None:
        async with self.running() as store:
            assert await store.advance_tasks([]) == []

    async def test_each_step_of_a_batch_has_its_own_answer(self) -> None:
        async with self.running() as store:
            for name in "abcd":
                await self.added(store, name)
            await store.delete_task("b")
            await store.update_task(make_task("c", after(7)))
            steps = [TaskAdvance(make_task(name), NOON, after(60)) for name in "abcd"]
            assert await store.advance_tasks(steps) == [True, False, False, True]
            assert await store.get_next_run_time() == after(7)
            assert ids_of(await store.get_all_tasks()) == ["c", "a", "d"]

    async def test_a_step_is_made_once(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            step = TaskAdvance(task, NOON, after(60))
            assert await store.advance_tasks([step, step]) == [True, False]
            assert await store.advance_tasks([step]) == [False]
            assert (await store.lookup_task("a")).next_run_time == after(60)

    @cases(earlier=-1, later=1)
    async def test_a_step_from_another_microsecond_is_a_lost_race(self, case: int) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            step = TaskAdvance(task, after(microseconds=case), after(60))
            assert await store.advance_tasks([step]) == [False]
            assert (await store.lookup_task("a")).next_run_time == NOON

    async def test_a_step_of_a_task_paused_meanwhile_is_a_lost_race(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            await store.update_task(make_task("a", None))
            for following in (after(60), None):
                assert await store.advance_tasks([TaskAdvance(task, NOON, following)]) == [False]
            assert (await store.lookup_task("a")).next_run_time is None

    async def test_a_lost_race_forgets_nothing(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            await store.update_task(make_task("a", after(5)))
            assert await store.advance_tasks([TaskAdvance(task, NOON, None)]) == [False]
            assert (await store.lookup_task("a")).next_run_time == after(5)

    async def test_a_step_keeps_what_was_updated_meanwhile(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a", args=("old",))
            await store.update_task(make_task("a", args=("new",)))
            assert await store.advance_tasks([TaskAdvance(task, NOON, after(60))]) == [True]
            assert (await store.lookup_task("a")).args == ("new",)

    async def test_the_expected_time_may_be_in_another_zone(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            expected = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
            assert await store.advance_tasks([TaskAdvance(task, expected, after(60))]) == [True]

    async def test_the_passes_of_a_repeated_hour_are_not_taken_for_each_other(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", SECOND_PASS))
            task = await store.lookup_task("a")
            lost = TaskAdvance(task, FIRST_PASS, after(60))
            won = TaskAdvance(task, SECOND_PASS.astimezone(UTC), after(60))
            assert await store.advance_tasks([lost, won]) == [False, True]

    async def test_one_of_many_at_once_makes_the_step(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            steps = (
                store.advance_tasks([TaskAdvance(task, NOON, after(n + 1))]) for n in range(20)
            )
            results = await asyncio.gather(*steps)
            assert sum(won for (won,) in results) == 1
            winner = results.index([True])
            assert (await store.lookup_task("a")).next_run_time == after(winner + 1)

    async def test_a_task_is_changed_only_if_its_schedule_has_not_moved_on(self) -> None:
        async with self.running() as store:
            task = await self.added(store, "a")
            await store.add_task(make_task("paused", None))
            changed = make_task("a", name="other")
            assert await store.update_task_if(changed, after(1)) is False
            assert await store.update_task_if(changed, None) is False
            assert (await store.lookup_task("a")).name == task.name
            assert await store.update_task_if(changed, NOON) is True
            found = await store.lookup_task("a")
            assert (found.name, found.next_run_time) == ("other", NOON)
            resumed = make_task("paused", after(1))
            assert await store.update_task_if(resumed, NOON) is False
            assert await store.update_task_if(resumed, None) is True
            assert (await store.lookup_task("paused")).next_run_time == after(1)
            with pytest.raises(TaskLookupError):
                await store.update_task_if(make_task("none"), NOON)

    async def added(self, store: BaseStore, task_id: str, **options: Any) -> Task:
        """A task that is due at noon, as the store hands it out."""
        await store.add_task(make_task(task_id, **options))
        found = await store.lookup_task(task_id)
        assert found is not None
        return found
