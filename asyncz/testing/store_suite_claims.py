"""Claiming what is due: who was first, how much at once, and what is recorded of it."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, Unrun
from asyncz.testing.store_suite_basics import ALIAS, STRANGE_IDS
from asyncz.testing.store_suite_cluster import LATER, LEASE, ClusterBase, Member, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, cases, ids_of, make_task

__all__ = ["ClaimingRuns"]

SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING


class ClaimingRuns(ClusterBase):
    """`fire`, `start_runs`, `count_active`."""

    # Who was first.

    async def test_a_task_is_fired_once(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            wanted = firing(task)
            assert await one.fire(wanted) == [Fired.WON]
            assert await other.fire(wanted) == [Fired.LOST]
            assert (await other.store.lookup_task("a")).next_run_time == LATER
            assert [run.state for run in await other.runs()] == [RUNNING]

    async def test_eight_who_fire_the_same_at_once_share_them(self) -> None:
        tasks = [make_task(f"t{number}") for number in range(40)]
        async with self.cluster(*tasks, count=8) as (_, members):

            async def claim(member: Member) -> list[str]:
                due = await member.store.get_due_tasks(NOON)
                fired = await member.fire(*(firing(task) for task in due))
                pairs = zip(due, fired, strict=True)
                return [str(task.id) for task, what in pairs if what is Fired.WON]

            won = await asyncio.gather(*(claim(member) for member in members))
            assert sorted(name for names in won for name in names) == sorted(
                str(task.id) for task in tasks
            )
            assert len(await members[0].runs(limit=1_000)) == len(tasks)

    @cases(one=1, some=3, all_but_one=8, all_of_them=9, more=20)
    async def test_who_begins_behind_others_gets_what_follows_in_order(self, case: int) -> None:
        tasks = [make_task(f"t{number}", after(number // 3)) for number in range(9)]
        not_due = make_task("not due", after(60))
        async with self.cluster(not_due, *tasks) as (_, (one, _)):
            now, left_out = after(9), frozenset({"t4", "t8"})
            due = await one.store.get_due_tasks(now)
            expected = ids_of(due[case : case + 5])
            found = ids_of(await one.store.get_due_tasks_behind(now, case, 5))
            assert found in (expected, [])  # a store need not be able to
            some = await one.store.get_due_tasks_behind(now, case, 5, left_out)
            assert ids_of(some) == [name for name in found if name not in left_out]

    async def test_a_task_that_was_changed_meanwhile_is_not_fired(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await other.store.update_task(make_task("a", after(5)))
            assert await one.fire(firing(task)) == [Fired.LOST]
            assert await one.runs() == []

    async def test_a_task_that_was_deleted_meanwhile_is_not_fired(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await other.store.delete_task("a")
            assert await one.fire(firing(task)) == [Fired.LOST]
            assert await one.runs() == []

    async def test_a_claim_that_is_repeated_gets_the_same_answer(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (_, (one, other)):
            due = await one.store.get_due_tasks(NOON)
            firings = [firing(task) for task in due]
            await other.fire(firings[1])
            first = await one.fire(*firings, claim="the same")
            assert first == [Fired.WON, Fired.LOST]
            assert await one.fire(*firings, claim="the same") == first
            assert len(await one.runs()) == 2

    async def test_an_instant_that_was_run_is_not_run_again(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, _)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            await one.finish(ref("a"))
            stored = await one.store.lookup_task("a")
            stored.next_run_time = NOON
            await one.store.update_task(stored)
            assert await one.fire(firing(stored)) == [Fired.REPEATED]
            assert [run.state for run in await one.runs()] == [SUCCEEDED]
            assert (await one.store.lookup_task("a")).next_run_time == LATER

    async def test_a_new_task_of_the_same_id_and_instant_is_run(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, _)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, following=None))
            await one.finish(ref("a"))
            clock.jump(1)
            await one.store.add_task(make_task("a"))
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task, following=None)) == [Fired.WON]
            assert sorted(run.state for run in await one.runs()) == [RUNNING, SUCCEEDED]

    async def test_a_node_that_did_not_join_fires_nothing(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, _)):
            (task,) = await one.store.get_due_tasks(NOON)
            assert await Member("nobody", one.store).fire(firing(task)) == [Fired.FENCED]
            assert ids_of(await one.store.get_due_tasks(NOON)) == ["a"]
            assert await one.runs() == []

    # Runs and their tasks.

    async def test_a_run_is_recorded_with_what_is_known_of_it(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            clock.jump(2)
            await one.fire(firing(task))
            (run,) = await other.runs()
            assert (run.task_id, run.store_alias, run.kind) == ("a", ALIAS, RunKind.SCHEDULED)
            assert (run.scheduled_time, run.state) == (NOON, RUNNING)
            assert (run.owner, run.attempt, run.token) == (one.id, 1, 1)
            assert run.claimed_at == run.started_at == after(2)
            assert (run.finished_at, run.error, run.occurrences) == (None, None, 1)

    async def test_an_error_is_recorded(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            clock.jump(3)
            said = RunOutcome(NOON, FAILED, "ValueError: ö\n'x'", "Traceback …", "why")
            assert await one.store.finish_runs(one.id, [RunEnd(ref("a"), (said,))]) == [True]
            (run,) = await other.runs()
            assert (run.state, run.error, run.traceback) == (FAILED, said.error, said.traceback)
            assert (run.finished_at, run.reason) == (after(3), "why")

    async def test_a_task_without_more_run_times_is_forgotten(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task, following=None)) == [Fired.WON]
            assert await other.store.lookup_task("a") is None
            assert await other.store.get_all_tasks() == []
            assert [run.state for run in await other.runs()] == [RUNNING]

    async def test_a_paused_task_can_be_run_by_hand(self) -> None:
        async with self.cluster(make_task("a", None)) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            by_hand = firing(task, NOON, kind=RunKind.MANUAL)
            assert await one.fire(by_hand) == [Fired.WON]
            assert (await other.store.lookup_task("a")).next_run_time is None
            (run,) = await other.runs()
            assert (run.kind, run.state) == (RunKind.MANUAL, RUNNING)

    async def test_runs_by_hand_and_by_schedule_of_one_instant_are_two(self) -> None:
        async with self.cluster(make_task("a", max_instances=2)) as (_, (one, _)):
            task = await one.store.lookup_task("a")
            assert await one.fire(firing(task, NOON, kind=RunKind.MANUAL)) == [Fired.WON]
            assert await one.fire(firing(task)) == [Fired.WON]
            assert len(await one.runs()) == 2

    async def test_what_is_not_run_is_recorded(self) -> None:
        missed = Unrun(RunState.MISSED, after(-180), after(-60), 3, "too late")
        async with self.cluster(make_task("a", after(-180))) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task, NOON, unrun=[missed])) == [Fired.WON]
            latest, earlier = await other.runs()
            assert (latest.scheduled_time, latest.state) == (NOON, RUNNING)
            assert (earlier.state, earlier.occurrences) == (RunState.MISSED, 3)
            assert (earlier.scheduled_time, earlier.last_scheduled_time) == (
                after(-180),
                after(-60),
            )
            assert earlier.reason == "too late"

    async def test_a_task_may_move_on_without_a_run(self) -> None:
        missed = Unrun(RunState.MISSED, NOON, NOON, 1, "too late")
        async with self.cluster(make_task("a")) as (_, (one, _)):
            (task,) = await one.store.get_due_tasks(NOON)
            moved = Firing(task, NOON, LATER, False, RunKind.SCHEDULED, (), (missed,))
            assert await one.fire(moved) == [Fired.WON]
            assert [run.state for run in await one.runs()] == [RunState.MISSED]
            assert (await one.store.lookup_task("a")).next_run_time == LATER
            assert await one.store.get_own_runs(one.id) == []

    @cases(**STRANGE_IDS)
    async def test_runs_of_tasks_with_strange_ids(self, case: str) -> None:
        async with self.cluster(make_task(case)) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task, following=None)) == [Fired.WON]
            (run,) = await other.runs(task_id=case)
            assert run.task_id == case
            await other.store.leave_node(one.id)
            (taken,) = (await other.reap()).taken
            assert (taken.ref.task_id, taken.task.id) == (case, case)
            assert await other.finish(taken.ref) == [True]

    # As many as max_instances allows.

    async def test_more_than_max_instances_are_not_run_whoever_asks(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            task = await other.store.lookup_task("a")
            assert await other.fire(firing(task, following=after(120))) == [Fired.SKIPPED]
            assert (await one.store.lookup_task("a")).next_run_time == after(120)
            skipped, running = await one.runs()
            assert (skipped.scheduled_time, skipped.state) == (LATER, RunState.SKIPPED)
            assert running.state is RUNNING
            await one.finish(ref("a"))
            task = await other.store.lookup_task("a")
            assert await other.fire(firing(task, following=after(180))) == [Fired.WON]

    async def test_two_instances_may_run_on_two_nodes(self) -> None:
        async with self.cluster(make_task("a", max_instances=2), count=3) as (_, members):
            said = []
            for number, member in enumerate(members):
                task = await member.store.lookup_task("a")
                said += await member.fire(firing(task, following=after(60 * (number + 1))))
            assert said == [Fired.WON, Fired.WON, Fired.SKIPPED]
            assert await members[0].store.count_active(["a"]) == {"a": 2}

    async def test_a_run_by_hand_that_is_one_too_many_changes_nothing(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            await one.fire(firing(task, NOON, kind=RunKind.MANUAL))
            by_hand = firing(task, after(1), kind=RunKind.MANUAL)
            assert await other.fire(by_hand) == [Fired.SKIPPED]
            assert len(await one.runs()) == 1
            assert (await one.store.lookup_task("a")).next_run_time == NOON

    async def test_nobody_runs_too_many_by_hand_at_once(self) -> None:
        async with self.cluster(make_task("a", max_instances=3), count=8) as (_, members):
            task = await members[0].store.lookup_task("a")

            async def run(number: int, member: Member) -> Fired:
                by_hand = firing(task, after(number), kind=RunKind.MANUAL)
                return (await member.fire(by_hand))[0]

            said = await asyncio.gather(*(run(*pair) for pair in enumerate(members)))
            assert said.count(Fired.WON) == 3
            assert await members[0].store.count_active(["a"]) == {"a": 3}

    async def test_counts_name_only_what_is_asked_for(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (_, (one, other)):
            for task in await one.store.get_due_tasks(NOON):
                await one.fire(firing(task))
            assert await other.store.count_active(["b", "c"]) == {"b": 1, "c": 0}

    # At most once.

    async def test_at_most_once_is_claimed_before_it_is_started(self) -> None:
        once = make_task("a", delivery=Delivery.AT_MOST_ONCE)
        async with self.cluster(once) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            (run,) = await one.runs()
            assert (run.state, run.started_at) == (RunState.CLAIMED, None)
            assert await other.store.start_runs(other.id, [ref("a")]) == [False]
            assert await one.store.start_runs(one.id, [ref("a", 2)]) == [False]
            clock.jump(1)
            assert await one.store.start_runs(one.id, [ref("a")]) == [True]
            assert await one.store.start_runs(one.id, [ref("a")]) == [True]
            (run,) = await one.runs()
            assert (run.state, run.started_at) == (RUNNING, after(1))
            assert await one.finish(ref("a")) == [True]

    async def test_at_most_once_is_lost_once_it_may_have_been_started(self) -> None:
        once = [make_task(name, delivery=Delivery.AT_MOST_ONCE) for name in ("a", "b")]
        async with self.cluster(*once) as (clock, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            await one.store.start_runs(one.id, [ref("a")])
            clock.jump(LEASE + 1)
            await other.store.renew_node(other.id, LEASE, 0)
            reaped = await other.reap()
            assert [said.ref for said in reaped.taken] == [ref("b", 2)]
            assert [(gone.task_id, state) for gone, state in reaped.ended] == [("a", RunState.LOST)]
            assert await other.states() == {"a": RunState.LOST, "b": RunState.CLAIMED}
            # It was not killed after all, and says how it ended.
            assert await one.finish(ref("a")) == [True]
            assert (await other.states())["a"] is SUCCEEDED
