"""Whose run it is, how it ends, and what becomes of the runs of the dead."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio
from datetime import timedelta

from asyncz.enums import Delivery, NodeState, RunState
from asyncz.stores.cluster import Fired, OpenRun, RunEnd, RunOutcome
from asyncz.testing.store_suite_basics import ALIAS
from asyncz.testing.store_suite_cluster import LEASE, ClusterBase, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task

__all__ = ["TakingOver"]

SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING


class TakingOver(ClusterBase):
    """`finish_runs`, `reap`, `release_runs`, nodes, `look`, `get_runs`, `forget_runs`."""

    # How they end.

    async def test_only_the_owner_with_its_token_says_how_a_run_ended(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            assert await other.finish(ref("a")) == [False]
            assert await one.finish(ref("a", 2)) == [False]
            assert await one.finish(ref("b")) == [False]
            assert [run.state for run in await one.runs()] == [RUNNING]
            assert await one.finish(ref("a"), state=FAILED) == [True]
            assert await one.finish(ref("a"), state=FAILED) == [True]
            assert [run.state for run in await one.runs()] == [FAILED]

    async def test_many_are_finished_at_once(self) -> None:
        tasks = [make_task(f"t{number:03}") for number in range(300)]
        async with self.cluster(*tasks) as (_, (one, other)):
            due = await one.store.get_due_tasks(NOON)
            assert set(await one.fire(*map(firing, due))) == {Fired.WON}
            counted = await one.finish(*(ref(str(task.id)) for task in due))
            assert counted == [True] * len(due)
            assert set((await other.states()).values()) == {SUCCEEDED}
            assert await one.store.get_own_runs(one.id) == []

    async def test_several_run_times_are_one_run_with_an_outcome_for_each(self) -> None:
        times = (after(-120), after(-60), NOON)
        async with self.cluster(make_task("a", times[0])) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task, *times)) == [Fired.WON]
            assert await one.store.count_active(["a"]) == {"a": 1}
            (own,) = await one.store.get_own_runs(one.id)
            assert own.run_times == times
            states = [run.state for run in await other.runs()]
            assert states == [RunState.QUEUED, RunState.QUEUED, RUNNING]
            end = RunEnd(
                ref("a", at=times[0]), (RunOutcome(times[0], FAILED), RunOutcome(NOON, SUCCEEDED))
            )
            assert await one.store.finish_runs(one.id, [end]) == [True]
            states = [run.state for run in await other.runs()]
            assert states == [SUCCEEDED, RunState.CANCELLED, FAILED]

    # Take-over.

    async def test_runs_of_a_dead_node_are_taken_over(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            clock.jump(LEASE + 1)
            await other.store.renew_node(other.id, LEASE, 0)
            nothing = await other.reap(bury=False)
            assert (nothing.dead, nothing.taken, nothing.ended) == ((), (), ())
            reaped = await other.reap()
            assert (reaped.dead, reaped.ended) == ((one.id,), ())
            (taken,) = reaped.taken
            assert (taken.ref, taken.attempt, taken.state) == (ref("a", 2), 2, RUNNING)
            assert (taken.run_times, taken.delivery) == ((NOON,), Delivery.AT_LEAST_ONCE)
            assert (taken.task.id, taken.error) == ("a", None)
            assert await one.finish(ref("a")) == [False]
            assert await one.store.renew_node(one.id, LEASE, 0) is False
            assert (await other.reap()).taken == ()
            assert await other.finish(taken.ref) == [True]

    async def test_a_task_that_is_forgotten_is_taken_over_as_it_was(self) -> None:
        async with self.cluster(make_task("a", args=(1, "x"), store_alias=ALIAS)) as (
            _,
            (one, other),
        ):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, following=None))
            await one.store.leave_node(one.id)
            (taken,) = (await other.reap()).taken
            assert (taken.task.id, taken.task.args) == ("a", (1, "x"))
            assert taken.task.store_alias == ALIAS

    async def test_the_runs_before_the_last_one_are_taken_over_too(self) -> None:
        async with self.cluster(make_task("a", max_instances=2)) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, following=after(1)))
            clock.jump(1)
            (task,) = await one.store.get_due_tasks(after(1))
            await one.fire(firing(task, following=None))
            assert await one.store.get_all_tasks() == []
            await one.store.leave_node(one.id)
            taken = (await other.reap()).taken
            assert [run.ref.scheduled_time for run in taken] == [NOON, after(1)]
            assert [run.task and run.task.id for run in taken] == ["a", "a"]

    async def test_the_run_of_a_task_that_was_deleted_is_not_taken_over(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            await other.store.delete_task("a")
            await one.store.leave_node(one.id)
            reaped = await other.reap()
            assert reaped.taken == ()
            assert [state for _, state in reaped.ended] == [RunState.CANCELLED]
            (run,) = await other.runs()
            assert (run.state, run.reason) == (RunState.CANCELLED, "its task was deleted")

    async def test_followers_are_taken_over_with_their_head(self) -> None:
        times = (after(-60), NOON)
        async with self.cluster(make_task("a", times[0])) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, *times))
            await one.store.leave_node(one.id)
            (taken,) = (await other.reap()).taken
            assert taken.run_times == times
            end = RunEnd(taken.ref, tuple(RunOutcome(moment, SUCCEEDED) for moment in times))
            assert await other.store.finish_runs(other.id, [end]) == [True]
            assert {run.state for run in await other.runs()} == {SUCCEEDED}

    async def test_followers_are_lost_with_their_head(self) -> None:
        once = make_task("a", after(-60), delivery=Delivery.AT_MOST_ONCE)
        async with self.cluster(once) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, after(-60), NOON))
            await one.store.start_runs(one.id, [ref("a", at=after(-60))])
            await one.store.leave_node(one.id)
            await other.reap()
            assert {run.state for run in await other.runs()} == {RunState.LOST}

    async def test_a_run_that_kills_its_workers_is_abandoned(self) -> None:
        async with self.cluster(make_task("a"), count=4) as (_, members):
            (task,) = await members[0].store.get_due_tasks(NOON)
            await members[0].fire(firing(task))
            for number in range(1, 4):
                await members[number].store.leave_node(members[number - 1].id)
                reaped = await members[number].reap(max_attempts=3)
            assert reaped.taken == ()
            assert [(gone.task_id, state) for gone, state in reaped.ended] == [
                ("a", RunState.ABANDONED)
            ]
            (run,) = await members[0].runs()
            assert (run.state, run.attempt) == (RunState.ABANDONED, 3)
            assert await members[0].store.count_active(["a"]) == {"a": 0}

    async def test_what_was_lost_or_abandoned_names_its_worker_and_keeps_what_it_said(self) -> None:
        once = make_task("once", delivery=Delivery.AT_MOST_ONCE)
        async with self.cluster(make_task("a"), once) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            await one.store.start_runs(one.id, [ref("once")])
            notes = {"progress": 0.5, "message": "half", "log": ["a line"]}
            noted = [(ref("a"), notes), (ref("once"), notes)]
            assert await one.store.note_runs(one.id, noted) == [True, True]
            await one.store.leave_node(one.id)
            assert len((await other.reap(max_attempts=1)).ended) == 2
            runs = await other.runs()
            assert {run.state for run in runs} == {RunState.ABANDONED, RunState.LOST}
            for run in runs:
                assert (run.progress, run.message, run.log) == (0.5, "half", ("a line",))
                assert run.owner == one.id
                assert f"its worker {one.id} was killed, or not heard of" in (run.reason or "")

    async def test_a_lease_that_ran_out_may_be_renewed_until_somebody_buries_the_node(
        self,
    ) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            clock.jump(10 * LEASE)
            assert await one.store.renew_node(one.id, LEASE, 0) is True
            assert await other.store.renew_node(other.id, LEASE, 0) is True
            assert (await other.reap()).dead == ()
            (task,) = await one.store.get_due_tasks(NOON)
            assert await one.fire(firing(task)) == [Fired.WON]

    async def test_a_node_whose_lease_ran_out_after_the_last_look_is_not_buried(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            before = (await other.store.look()).now
            clock.jump(LEASE + 1)
            late = await other.store.reap(other.id, bury=before, max_attempts=3)
            assert late.dead == ()
            assert await one.store.renew_node(one.id, LEASE, 0) is True

    async def test_the_dead_neither_fire_nor_reap(self) -> None:
        async with self.cluster(make_task("a"), make_task("b"), count=3) as (clock, members):
            one, other, third = members
            first, second = await one.store.get_due_tasks(NOON)
            await third.fire(firing(first))
            clock.jump(LEASE + 1)
            await other.store.renew_node(other.id, LEASE, 0)
            await third.store.renew_node(third.id, LEASE, 0)
            assert (await other.reap()).dead == (one.id,)
            assert await one.fire(firing(second)) == [Fired.FENCED]
            await third.store.leave_node(third.id)
            assert (await one.reap()).taken == ()
            assert len((await other.reap()).taken) == 1

    async def test_runs_of_a_node_that_left_are_anybodys(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            assert (await other.store.look()).has_unowned is False
            await one.store.leave_node(one.id)
            assert (await other.store.look()).has_unowned is True
            (taken,) = (await other.reap(bury=False)).taken
            assert taken.ref == ref("a", 2)
            assert (await other.store.look()).has_unowned is False

    async def test_a_run_that_is_released_is_anybodys_and_does_not_count_as_an_attempt(
        self,
    ) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task))
            await other.store.release_runs(other.id, [ref("a")])
            assert (await other.store.look()).has_unowned is False
            await one.store.release_runs(one.id, [ref("a")])
            assert (await other.store.look()).has_unowned is True
            assert await other.store.count_active(["a"]) == {"a": 1}
            (taken,) = (await other.reap(bury=False, max_attempts=1)).taken
            assert (taken.ref.token, taken.attempt) == (2, 1)
            assert await one.finish(ref("a")) == [False]

    async def test_only_one_takes_a_run_over(self) -> None:
        tasks = [make_task(f"t{number}") for number in range(20)]
        async with self.cluster(*tasks, count=6) as (_, members):
            due = await members[0].store.get_due_tasks(NOON)
            await members[0].fire(*map(firing, due))
            await members[0].store.leave_node(members[0].id)
            reaped = await asyncio.gather(*(member.reap() for member in members[1:]))
            taken = [said.ref.task_id for each in reaped for said in each.taken]
            assert sorted(taken) == sorted(str(task.id) for task in tasks)

    async def test_a_node_is_told_what_it_owns(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (_, (one, other)):
            first, second = await one.store.get_due_tasks(NOON)
            await one.fire(firing(first))
            await other.fire(firing(second, following=None))
            (own,) = await other.store.get_own_runs(other.id)
            assert isinstance(own, OpenRun)
            assert (own.ref, own.attempt, own.state) == (ref("b"), 1, RUNNING)
            assert own.task is not None
            assert own.task.id == "b"

    # Nodes.

    async def test_nodes_are_listed_with_their_states(self) -> None:
        async with self.cluster(count=4) as (clock, members):
            one, other, third, fourth = members
            clock.jump(10)
            await one.store.renew_node(one.id, LEASE, 7)
            await fourth.store.leave_node(fourth.id)
            clock.jump(LEASE - 5)
            nodes = await other.store.get_nodes()
            assert [found.node.id for found in nodes] == [member.id for member in members]
            assert [found.state for found in nodes] == [
                NodeState.ALIVE,
                NodeState.STALE,
                NodeState.STALE,
                NodeState.LEFT,
            ]
            first = nodes[0]
            assert (first.node.identity, first.node.host) == ("worker 0", "host")
            assert (first.node.process_id, first.running) == (1000, 7)
            assert (first.joined_at, first.seen_at) == (NOON, after(10))
            assert first.lease_until == after(10 + LEASE)
            await one.reap()
            states = [found.state for found in await third.store.get_nodes()]
            assert states[1] is states[2] is NodeState.DEAD

    async def test_one_that_was_not_there_has_no_lease_to_renew(self) -> None:
        async with self.cluster() as (_, (one, _)):
            assert await one.store.renew_node("nobody", LEASE, 0) is False
            await one.store.leave_node("nobody")

    # Looking.

    async def test_a_look_says_what_time_it_is_and_what_comes_next(self) -> None:
        async with self.cluster(make_task("a", after(5)), make_task("b")) as (clock, (one, _)):
            looked = await one.store.look()
            assert (looked.now, looked.next_run_time) == (NOON, NOON)
            await one.store.delete_task("b")
            clock.jump(1)
            looked = await one.store.look()
            assert (looked.now, looked.next_run_time) == (after(1), after(5))
            await one.store.update_task(make_task("a", None))
            assert (await one.store.look()).next_run_time is None

    async def test_runs_are_found_by_task_state_and_time_the_latest_first(self) -> None:
        tasks = [make_task("a", after(-2)), make_task("b", after(-1)), make_task("c")]
        async with self.cluster(*tasks) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            await one.finish(ref("b", at=after(-1)), state=FAILED)
            assert [run.task_id for run in await other.runs()] == ["c", "b", "a"]
            assert [run.task_id for run in await other.runs(limit=1)] == ["c"]
            assert [run.task_id for run in await other.runs(task_id="b")] == ["b"]
            assert [run.task_id for run in await other.runs(since=after(-1))] == ["c", "b"]
            failed = frozenset({FAILED, RunState.LOST})
            assert [run.task_id for run in await other.runs(states=failed)] == ["b"]
            assert await other.runs(task_id="nobody") == []

    async def test_settled_runs_are_forgotten_in_time_and_no_others(self) -> None:
        tasks = [make_task(name) for name in ("a", "b", "c")]
        async with self.cluster(*tasks) as (clock, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            await one.finish(ref("a"))
            clock.jump(10)
            await one.finish(ref("b"))
            assert await other.store.forget_runs(NOON) == 0
            assert await other.store.forget_runs(NOON + timedelta(seconds=10)) == 1
            assert sorted(await other.states()) == ["b", "c"]
            assert await other.store.forget_runs(after(3_600)) == 1
            assert await other.states() == {"c": RUNNING}
