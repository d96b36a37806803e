"""What is run once and recorded once: schedules set back, ids used again, late and wrong words."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import asyncio

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, RunRef, Unrun
from asyncz.testing.store_suite_cluster import LATER, LEASE, ClusterBase, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, cases, make_task

__all__ = ["RunningOnce"]

SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING
TIMES = (after(-120), after(-60), NOON)


class RunningOnce(ClusterBase):
    """`fire` on what was fired before, `finish_runs` by who has not the run any more."""

    # Runs by hand of tasks that are due.

    async def test_a_run_by_hand_of_a_task_that_is_due_moves_its_schedule_on(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            by_hand = Firing(task, NOON, LATER, False, RunKind.MANUAL, (NOON,))
            by_schedule = firing(task)
            assert await one.fire(by_hand) == [Fired.WON]
            assert (await other.store.lookup_task("a")).next_run_time == LATER
            assert await other.fire(by_schedule) == [Fired.LOST]

    async def test_a_task_that_is_run_by_hand_for_the_last_time_may_be_paused(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            by_hand = Firing(task, NOON, None, False, RunKind.MANUAL, (after(1),))
            assert await one.fire(by_hand) == [Fired.WON]
            assert (await other.store.lookup_task("a")).next_run_time is None

    async def test_it_was_the_schedule_that_asked_for_what_a_run_by_hand_leaves_out(self) -> None:
        folded = Unrun(RunState.COALESCED, after(-120), after(-60), 2, "folded")
        async with self.cluster(make_task("a", after(-120))) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            by_hand = Firing(task, after(-120), LATER, False, RunKind.MANUAL, (NOON,), (folded,))
            assert await one.fire(by_hand) == [Fired.WON]
            assert [(run.kind, run.state) for run in await other.runs()] == [
                (RunKind.MANUAL, RUNNING),
                (RunKind.SCHEDULED, RunState.COALESCED),
            ]

    async def test_one_too_many_by_hand_of_a_task_that_was_changed_is_a_lost_race(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (_, (one, other)):
            due = await one.store.get_due_tasks(NOON)
            by_hand = [firing(task, after(1), kind=RunKind.MANUAL) for task in due]
            await one.fire(*map(firing, due))
            await one.store.delete_task("b")
            assert await other.fire(*by_hand) == [Fired.LOST, Fired.LOST]

    # Schedules that were set back.

    async def test_what_waited_behind_a_run_is_not_run_again(self) -> None:
        async with self.cluster(make_task("a", TIMES[0], max_instances=2)) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), *TIMES))
            await one.store.update_task(make_task("a", TIMES[1], max_instances=2))
            again = firing(await one.store.lookup_task("a"))
            assert await other.fire(again) == [Fired.REPEATED]
            outcomes = tuple(RunOutcome(moment, SUCCEEDED) for moment in TIMES)
            end = RunEnd(ref("a", at=TIMES[0]), outcomes)
            assert await one.store.finish_runs(one.id, [end]) == [True]
            await one.store.update_task(make_task("a", TIMES[2], max_instances=2))
            again = firing(await one.store.lookup_task("a"))
            assert await other.fire(again) == [Fired.REPEATED]
            assert [run.state for run in await one.runs()] == [SUCCEEDED] * 3

    async def test_what_was_missed_has_its_record(self) -> None:
        missed = Unrun(RunState.MISSED, NOON, NOON, 1, "too late")
        async with self.cluster(make_task("a")) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            await one.fire(Firing(task, NOON, LATER, False, RunKind.SCHEDULED, (), (missed,)))
            await one.store.update_task(make_task("a"))
            again = firing(await one.store.lookup_task("a"))
            assert await other.fire(again) == [Fired.REPEATED]
            assert [run.state for run in await one.runs()] == [RunState.MISSED]

    # Ids that are used again.

    async def test_a_new_task_does_not_carry_out_what_the_old_one_of_its_id_left(self) -> None:
        async with self.cluster(make_task("a", name="old")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await other.store.delete_task("a")
            clock.jump(1)
            await other.store.add_task(make_task("a", LATER, name="new"))
            (own,) = await one.store.get_own_runs(one.id)
            assert own.task is None
            await one.store.leave_node(one.id)
            reaped = await other.reap()
            assert reaped.taken == ()
            assert [state for _, state in reaped.ended] == [RunState.CANCELLED]

    async def test_nor_when_the_new_one_has_come_to_its_end(self) -> None:
        async with self.cluster(make_task("a", name="old", max_instances=2)) as (clock, members):
            one, other = members
            await one.fire(firing(await one.store.lookup_task("a")))
            await other.store.delete_task("a")
            clock.jump(1)
            await other.store.add_task(make_task("a", after(1), name="new", max_instances=2))
            await one.fire(firing(await one.store.lookup_task("a"), following=None))
            old, new = await one.store.get_own_runs(one.id)
            assert (old.task, new.task.name) == (None, "new")
            await one.store.leave_node(one.id)
            reaped = await other.reap()
            assert [run.task.name for run in reaped.taken] == ["new"]
            assert [state for _, state in reaped.ended] == [RunState.CANCELLED]

    @cases(one_at_once=1, two_at_once=2)
    async def test_no_two_runs_of_one_name_go_on(self, case: int) -> None:
        async with self.cluster(make_task("a", max_instances=case)) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await other.store.delete_task("a")
            clock.jump(1)
            await other.store.add_task(make_task("a", max_instances=case))
            task = await other.store.lookup_task("a")
            # How they end could not be told apart.
            assert await other.fire(firing(task)) == [Fired.REPEATED]
            assert (await one.store.lookup_task("a")).next_run_time == LATER
            assert [run.state for run in await one.runs()] == [RUNNING]
            assert await one.finish(ref("a")) == [True]

    # Words of who has the run, all at once.

    async def test_a_run_may_end_while_others_change_what_is_kept_of_it(self) -> None:
        tasks = [make_task(f"t{number:03}") for number in range(120)]
        async with self.cluster(*tasks) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            refs = [ref(str(task.id)) for task in tasks]

            async def end(some: list[RunRef], later: float) -> list[bool]:
                await asyncio.sleep(later)
                return await one.finish(*some)

            for number in range(20):
                some = refs[6 * number :][:6]
                ended, _, _ = await asyncio.gather(
                    end(some, number / 4_000),
                    one.store.note_runs(one.id, [(run, {"message": "m"}) for run in some]),
                    other.store.cancel_run(some[0].task_id, NOON, "ann"),
                )
                assert ended == [True] * len(some)
            assert set((await one.states()).values()) == {SUCCEEDED}

    async def test_a_run_that_is_given_back_and_ended_at_once_is_one_of_both(self) -> None:
        tasks = [make_task(f"t{number:03}") for number in range(120)]
        async with self.cluster(*tasks) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            refs = [ref(str(task.id)) for task in tasks]
            counted: list[bool] = []
            for number in range(20):
                some = refs[6 * number :][:6]
                ended, *_ = await asyncio.gather(
                    one.finish(*some),
                    *(one.store.release_runs(one.id, [run]) for run in some),
                    other.store.cancel_run(some[0].task_id, NOON, "ann"),
                    other.reap(),
                )
                counted += ended
            runs = {run.task_id: run for run in await other.runs(limit=1_000)}
            assert len(runs) == len(refs)
            for run, counts in zip(refs, counted, strict=True):
                assert (runs[run.task_id].state is SUCCEEDED) is counts
                assert counts or runs[run.task_id].owner != one.id

    # Words of who has not the run any more.

    async def test_a_word_with_another_token_changes_nothing_of_what_waits(self) -> None:
        async with self.cluster(make_task("a", TIMES[0])) as (_, (one, _)):
            await one.fire(firing(await one.store.lookup_task("a"), *TIMES))
            await one.store.release_runs(one.id, [ref("a", at=TIMES[0])])
            (taken,) = (await one.reap(bury=False)).taken
            assert await one.finish(ref("a", at=TIMES[0])) == [False]
            states = [run.state for run in await one.runs()]
            assert states == [RunState.QUEUED, RunState.QUEUED, RUNNING]
            assert await one.finish(taken.ref) == [True]

    async def test_what_nothing_is_said_of_stays_lost(self) -> None:
        once = make_task("a", TIMES[0], delivery=Delivery.AT_MOST_ONCE)
        async with self.cluster(once) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), *TIMES))
            head = ref("a", at=TIMES[0])
            await one.store.start_runs(one.id, [head])
            await one.store.leave_node(one.id)
            await other.reap()
            said = (RunOutcome(TIMES[0], FAILED), RunOutcome(TIMES[1], SUCCEEDED))
            assert await one.store.finish_runs(one.id, [RunEnd(head, said)]) == [True]
            states = [run.state for run in await other.runs()]
            assert states == [RunState.LOST, SUCCEEDED, FAILED]

    # Nodes.

    async def test_who_reaps_is_not_buried_whatever_its_lease_says(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            clock.jump(LEASE + 1)
            reaped = await other.reap()
            assert reaped.dead == (one.id,)
            assert len(reaped.taken) == 1
            assert await other.store.renew_node(other.id, LEASE, 0) is True

    async def test_a_node_that_was_buried_stays_so_when_it_leaves(self) -> None:
        async with self.cluster() as (clock, (one, other)):
            clock.jump(LEASE + 1)
            await other.reap()
            await one.store.leave_node(one.id)
            found = {each.node.id: each.state for each in await other.store.get_nodes()}
            assert found[one.id] is NodeState.DEAD
