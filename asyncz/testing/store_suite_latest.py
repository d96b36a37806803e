"""The latest run of each of many tasks, asked for at once."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from typing import Any

from asyncz.enums import RunKind, RunState
from asyncz.runs.base import RunQuery
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, Unrun
from asyncz.testing.store_suite_basics import STRANGE_IDS
from asyncz.testing.store_suite_cluster import LATER, ClusterBase, Member, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task

__all__ = ["FindingLatest"]

SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING
MANY = 250


class FindingLatest(ClusterBase):
    """`get_last_runs`, and `get_runs` of those in which something went wrong."""

    async def test_of_what_went_wrong_the_latest_is_found_among_what_went_well(self) -> None:
        ends = (FAILED, SUCCEEDED, RunState.CANCELLED, SUCCEEDED, FAILED, SUCCEEDED)
        missed = Unrun(RunState.MISSED, after(-9), after(-7), 2, "too late")
        async with self.cluster(make_task("a"), make_task("b")) as (clock, (one, other)):
            for number, state in enumerate(ends):
                for task in await one.store.get_due_tasks(after(number)):
                    late = (missed,) if number == 0 and task.id == "b" else ()
                    await one.fire(firing(task, following=after(number + 1), unrun=late))
                    end = RunOutcome(after(number), state)
                    await one.store.finish_runs(
                        one.id, [RunEnd(ref(str(task.id), at=after(number)), (end,))]
                    )
                clock.jump(1)

            async def found(*states: RunState, **wanted: Any) -> list[tuple[str, Any]]:
                query = RunQuery(states=frozenset(states), **wanted)
                runs = await other.store.get_runs(query)
                return [(run.task_id, run.scheduled_time) for run in runs]

            four = [("b", after(4)), ("a", after(4)), ("b", NOON), ("a", NOON)]
            assert await found(FAILED) == four
            assert await found(FAILED, limit=2) == four[:2]
            assert await found(FAILED, task_id="a") == [("a", after(4)), ("a", NOON)]
            assert await found(FAILED, until=after(3)) == four[2:]
            several = (FAILED, RunState.CANCELLED, RunState.MISSED, RunState.LOST)
            two = [("b", after(2)), ("a", after(2))]
            assert await found(*several) == [*four[:2], *two, *four[2:], ("b", after(-9))]
            assert await found(*several, since=after(1), limit=4) == [*four[:2], *two]
            assert await found(*several, task_id="b", until=after(3)) == [
                ("b", after(2)), ("b", NOON), ("b", after(-9)),
            ]  # fmt: skip
            assert await found(SUCCEEDED, task_id="a", limit=1) == [("a", after(5))]
            assert await found(RunState.LOST, task_id="a") == await found(RunState.LOST) == []

    async def test_of_several_runs_the_latest_is_given(self) -> None:
        async with self.cluster(make_task("a"), make_task("b", after(-5))) as (clock, (one, other)):
            for number in range(1, 4):
                task = await one.store.lookup_task("a")
                await one.fire(firing(task, following=after(60 * number)))
                await one.finish(ref("a", at=after(60 * (number - 1))))
                clock.jump(60)
            await other.fire(firing(await other.store.lookup_task("b")))
            found = await other.store.get_last_runs(["a", "b"])
            assert (found["a"].scheduled_time, found["a"].state) == (after(120), SUCCEEDED)
            assert (found["b"].scheduled_time, found["b"].state) == (after(-5), RUNNING)
            for name, run in found.items():
                assert run == (await other.store.get_runs(RunQuery(name, limit=1)))[0]

    async def test_what_is_known_of_a_run_is_given_with_it(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            clock.jump(3)
            said = RunOutcome(NOON, FAILED, "ValueError: ö\n'x'", "Traceback …", "why")
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (said,))])
            run = (await other.store.get_last_runs(["a"]))["a"]
            assert (run.error, run.traceback, run.reason) == (said.error, said.traceback, "why")
            assert (run.owner, run.attempt, run.finished_at) == (one.id, 1, after(3))

    async def test_a_run_that_is_open_may_be_the_latest_or_not(self) -> None:
        tasks = make_task("a", max_instances=2), make_task("b", max_instances=2)
        async with self.cluster(*tasks) as (clock, (one, other)):
            for task in await one.store.get_due_tasks(NOON):
                await one.fire(firing(task))
            await one.finish(ref("a"))
            clock.jump(60)
            for task in await one.store.get_due_tasks(LATER):
                await one.fire(firing(task, following=after(120)))
            await one.finish(ref("b", at=LATER))
            found = await other.store.get_last_runs(["b", "a"])
            assert {name: run.state for name, run in found.items()} == {
                "a": RUNNING,
                "b": SUCCEEDED,
            }
            assert {run.scheduled_time for run in found.values()} == {LATER}

    async def test_the_last_of_those_that_wait_behind_a_run_is_the_latest(self) -> None:
        times = (after(-120), after(-60), NOON)
        async with self.cluster(make_task("a", times[0])) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, *times))
            run = (await other.store.get_last_runs(["a"]))["a"]
            assert (run.scheduled_time, run.state) == (NOON, RunState.QUEUED)
            assert (run.owner, run.attempt, run.token) == (one.id, 1, 1)

    async def test_what_was_not_run_may_be_the_latest(self) -> None:
        missed = Unrun(RunState.MISSED, NOON, after(30), 2, "too late")
        async with self.cluster(make_task("a")) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            late = Firing(task, NOON, LATER, False, RunKind.SCHEDULED, (), (missed,))
            assert await one.fire(late) == [Fired.WON]
            run = (await other.store.get_last_runs(["a"]))["a"]
            assert (run.state, run.occurrences) == (RunState.MISSED, 2)
            assert (run.last_scheduled_time, run.reason) == (after(30), "too late")

    async def test_of_two_of_one_instant_one_is_given(self) -> None:
        async with self.cluster(make_task("a", max_instances=2)) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            await one.fire(firing(task, NOON, kind=RunKind.MANUAL))
            await one.fire(firing(task))
            assert (await other.store.get_last_runs(["a"]))["a"].scheduled_time == NOON

    async def test_tasks_without_runs_are_left_out_and_so_are_unknown_ones(self) -> None:
        async with self.cluster(make_task("a"), make_task("b", after(60))) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            asked = ["b", "a", "nobody", "", "a" * 300, "\ud800", "a\0", "A", "a ", "a"]
            assert [*await other.store.get_last_runs(asked)] == ["a"]
            assert await other.store.get_last_runs(["nobody"]) == {}
            assert await other.store.get_last_runs([]) == {}

    async def test_any_text_is_an_id_whose_latest_run_is_found(self) -> None:
        names = [*STRANGE_IDS.values(), "a", "a ", "á", "A", "sha256:1", "x" * 300, "x" * 299 + "y"]
        async with self.cluster(*map(make_task, names)) as (_, (one, other)):
            for number, name in enumerate(names):
                task = await one.store.lookup_task(name)
                by_hand = firing(task, after(number), kind=RunKind.MANUAL)
                assert await one.fire(by_hand) == [Fired.WON]
            found = await other.store.get_last_runs(names)
            assert {name: run.scheduled_time for name, run in found.items()} == {
                name: after(number) for number, name in enumerate(names)
            }
            assert all(run.task_id == name for name, run in found.items())

    async def test_the_latest_run_of_an_id_is_that_of_the_task_that_has_or_had_it(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (clock, (one, other)):
            await self.run(one, "a")
            await self.run(one, "b")
            for name in ("a", "b"):
                await other.store.delete_task(name)
            clock.jump(1)
            found = await other.store.get_last_runs(["a", "b"])
            assert {name: run.scheduled_time for name, run in found.items()} == {
                "a": NOON, "b": NOON,
            }  # fmt: skip
            await other.store.add_task(make_task("a", after(1)))
            await self.run(one, "a", after(1))
            found = await other.store.get_last_runs(["a", "b"])
            assert {name: run.scheduled_time for name, run in found.items()} == {
                "a": after(1), "b": NOON,
            }  # fmt: skip

    async def test_a_new_task_of_an_id_and_instant_has_a_latest_run(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await self.run(one, "a")
            await other.store.delete_task("a")
            clock.jump(1)
            await other.store.add_task(make_task("a"))
            await self.run(one, "a")
            run = (await other.store.get_last_runs(["a"]))["a"]
            assert (run.scheduled_time, run.state) == (NOON, SUCCEEDED)

    async def test_the_latest_runs_of_many_tasks_are_asked_for_at_once(self) -> None:
        tasks = [make_task(f"t{number}", after(-number)) for number in range(MANY)]
        async with self.cluster(*tasks) as (_, (one, other)):
            due = await one.store.get_due_tasks(NOON)
            await one.fire(*map(firing, due))
            await one.finish(
                *(ref(f"t{number}", at=after(-number)) for number in range(0, MANY, 2))
            )
            found = await other.store.get_last_runs([str(task.id) for task in tasks])
            assert {name: (run.scheduled_time, run.state) for name, run in found.items()} == {
                f"t{number}": (after(-number), RUNNING if number % 2 else SUCCEEDED)
                for number in range(MANY)
            }

    async def run(self, member: Member, name: str, at: Any = NOON) -> None:
        """Fire a task and say that it went well."""
        task = await member.store.lookup_task(name)
        assert await member.fire(firing(task)) == [Fired.WON]
        assert await member.finish(ref(name, at=at)) == [True]
