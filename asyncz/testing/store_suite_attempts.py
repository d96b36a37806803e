"""What happens to a run between its claim and its end, and what is kept of it afterwards."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

from datetime import datetime
from typing import Any

from asyncz.enums import Delivery, RunKind, RunState
from asyncz.runs.base import Run
from asyncz.stores.cluster import Fired, RunEnd, RunOutcome
from asyncz.testing.store_suite_basics import ALIAS, STRANGE_IDS
from asyncz.testing.store_suite_cluster import LATER, LEASE, ClusterBase, Member, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task

__all__ = ["TryingAgain"]

SUCCEEDED, FAILED, RUNNING = RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED
NOTES: dict[str, Any] = {
    "progress": 0.5, "message": "page 3 of 7 ö", "log": ["first", "second\n$x."],
}  # fmt: skip
SETTLED = frozenset({SUCCEEDED, FAILED, CANCELLED})


def waits(at: datetime = NOON, until: datetime = LATER, **notes: Any) -> RunOutcome:
    """It has failed, and is tried again then."""
    return RunOutcome(at, RETRYING, "ValueError: x", "Traceback …", None, notes, until)


class TryingAgain(ClusterBase):
    """`retrying` outcomes, `attend`, `note_runs`, `cancel_run`, `prune_runs`."""

    async def _run_of(self, member: Member, task_id: str = "a", at: datetime = NOON) -> Run:
        (run,) = await member.runs(task_id=task_id, since=at, until=at)
        return run

    # Attempts.

    async def test_a_run_that_failed_waits_for_its_next_attempt(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            before = await other.store.look()
            assert before.attend_at is None
            said = RunEnd(ref("a"), (waits(message="m"),))
            assert await one.store.finish_runs(one.id, [said]) == [True]
            run = await self._run_of(other)
            assert (run.state, run.retry_at, run.attempt) == (RETRYING, LATER, 1)
            assert (run.error, run.traceback, run.message) == ("ValueError: x", "Traceback …", "m")
            assert run.finished_at is None
            assert await one.store.get_own_runs(one.id) == []
            assert await one.store.count_active(["a"]) == {"a": 0}
            looked = await other.store.look()
            assert (looked.attend_at, looked.has_unowned) == (LATER, False)
            assert await other.runs(states=frozenset({RETRYING})) == [run]
            last = await other.store.get_last_runs(["a"])
            assert last == {"a": run}
            clock.jump(59)
            assert await other.store.attend(other.id) == ((), (), ())
            clock.jump(1)
            (taken,), asked, ended = await other.store.attend(other.id)
            assert (asked, ended) == ((), ())
            assert (taken.ref, taken.attempt, taken.state) == (ref("a", 2), 2, RUNNING)
            assert (taken.run_times, taken.delivery) == ((NOON,), Delivery.AT_LEAST_ONCE)
            assert (taken.task.id, taken.error) == ("a", None)
            assert (await other.store.look()).attend_at is None
            run = await self._run_of(other)
            assert (run.state, run.owner, run.retry_at) == (RUNNING, other.id, None)
            assert (run.attempt, run.started_at) == (2, LATER)
            assert await one.store.attend(one.id) == ((), (), ())
            assert await one.finish(ref("a")) == [False]
            assert await other.finish(taken.ref) == [True]
            assert (await self._run_of(one)).state is SUCCEEDED

    async def test_it_may_fail_again_and_again(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            owner, current = one, ref("a")
            for attempt in range(1, 6):
                end = RunEnd(current, (waits(until=after(attempt)),))
                assert await owner.store.finish_runs(owner.id, [end]) == [True]
                clock.jump(1)
                owner = other if owner is one else one
                (taken,), _, _ = await owner.store.attend(owner.id)
                assert (taken.attempt, taken.ref.token) == (attempt + 1, attempt + 1)
                current = taken.ref
            assert await owner.finish(current, state=FAILED) == [True]
            run = await self._run_of(one)
            assert (run.state, run.attempt, run.finished_at) == (FAILED, 6, after(5))

    async def test_to_say_it_again_changes_nothing(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            end = RunEnd(ref("a"), (waits(),))
            await one.store.finish_runs(one.id, [end])
            await one.store.finish_runs(one.id, [end])
            assert (await self._run_of(other)).state is RETRYING
            clock.jump(60)
            await other.store.attend(other.id)
            assert await one.store.finish_runs(one.id, [end]) == [False]
            assert (await self._run_of(other)).state is RUNNING

    async def test_the_next_occurrence_is_not_held_up_and_holds_up_the_attempt(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(30)))
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (waits(),))])
            clock.jump(60)
            again = firing(await one.store.lookup_task("a"), after(30), following=after(3_600))
            assert await one.fire(again) == [Fired.WON]
            assert await other.store.attend(other.id) == ((), (), ())
            assert (await self._run_of(other)).state is RETRYING
            assert await one.finish(ref("a", at=after(30))) == [True]
            (taken,), _, _ = await other.store.attend(other.id)
            assert taken.ref == ref("a", 2)
            third = firing(await one.store.lookup_task("a"), following=after(7_200))
            assert await one.fire(third) == [Fired.SKIPPED]

    async def test_as_many_attempts_as_max_instances_allows_are_given(self) -> None:
        async with self.cluster(make_task("a", max_instances=2)) as (clock, (one, other)):
            for number in range(3):
                task = await one.store.lookup_task("a")
                await one.fire(firing(task, following=after(number + 1)))
                at = after(number)
                await one.store.finish_runs(one.id, [RunEnd(ref("a", at=at), (waits(at),))])
                clock.jump(1)
            clock.jump(60)
            taken, _, _ = await other.store.attend(other.id)
            assert [run.ref.scheduled_time for run in taken] == [NOON, after(1)]
            assert await one.store.count_active(["a"]) == {"a": 2}
            assert (await one.store.attend(one.id)).taken == ()
            await other.finish(taken[0].ref)
            assert len((await one.store.attend(one.id)).taken) == 1

    async def test_of_several_occurrences_each_waits_by_itself(self) -> None:
        times = (after(-120), after(-60), NOON)
        async with self.cluster(make_task("a", times[0], max_instances=3)) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, *times, following=after(3_600)))
            outcomes = (waits(times[0]), RunOutcome(times[1], SUCCEEDED), waits(NOON, after(90)))
            end = RunEnd(ref("a", at=times[0]), outcomes)
            assert await one.store.finish_runs(one.id, [end]) == [True]
            states = [run.state for run in await other.runs()]
            assert states == [RETRYING, SUCCEEDED, RETRYING]
            assert (await other.store.look()).attend_at == LATER
            clock.jump(60)
            (taken,), _, _ = await other.store.attend(other.id)
            assert taken.run_times == (times[0],)
            clock.jump(30)
            (last,), _, _ = await one.store.attend(one.id)
            assert (last.run_times, last.ref.scheduled_time) == ((NOON,), NOON)
            assert await one.finish(last.ref) == [True]
            assert await other.finish(taken.ref) == [True]
            assert {run.state for run in await other.runs()} == {SUCCEEDED}

    async def test_of_a_task_that_is_forgotten_every_attempt_has_it_as_it_was(self) -> None:
        times = (after(-60), NOON)
        task = make_task("a", times[0], args=(1, "x"), store_alias=ALIAS, max_instances=2)
        async with self.cluster(task) as (clock, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, *times, following=None))
            end = RunEnd(ref("a", at=times[0]), tuple(waits(moment) for moment in times))
            await one.store.finish_runs(one.id, [end])
            await one.store.leave_node(one.id)
            clock.jump(60)
            taken, _, ended = await other.store.attend(other.id)
            assert ended == ()
            assert [run.task and run.task.args for run in taken] == [(1, "x")] * 2
            for run in taken:
                again = RunOutcome(run.ref.scheduled_time, RETRYING, retry_at=after(61))
                await other.store.finish_runs(other.id, [RunEnd(run.ref, (again,))])
            clock.jump(1)
            assert len((await other.store.attend(other.id)).taken) == 2

    async def test_of_a_task_that_was_deleted_no_attempt_is_made(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (waits(),))])
            await one.store.delete_task("a")
            await one.store.add_task(make_task("a", after(3_600)))
            clock.jump(60)
            taken, _, ended = await other.store.attend(other.id)
            assert (taken, [gone.task_id for gone in ended]) == ((), ["a"])
            run = await self._run_of(other)
            assert (run.state, run.finished_at, run.token) == (CANCELLED, LATER, 1)
            assert (await other.store.look()).attend_at is None

    async def test_the_attempts_of_at_most_once_begin_as_claimed(self) -> None:
        async with self.cluster(make_task("a", delivery=Delivery.AT_MOST_ONCE)) as (
            clock,
            (one, other),
        ):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            assert await one.store.start_runs(one.id, [ref("a")]) == [True]
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (waits(),))])
            clock.jump(60)
            (taken,), _, _ = await other.store.attend(other.id)
            assert (taken.state, taken.delivery) == (RunState.CLAIMED, Delivery.AT_MOST_ONCE)
            assert await other.store.start_runs(other.id, [taken.ref]) == [True]
            assert (await self._run_of(one)).state is RUNNING

    async def test_attempts_are_not_taken_for_deaths(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            current = ref("a")
            for number in range(1, 6):
                end = RunEnd(current, (waits(until=after(number)),))
                await one.store.finish_runs(one.id, [end])
                clock.jump(1)
                (taken,), _, _ = await one.store.attend(one.id)
                current = taken.ref
            await one.store.leave_node(one.id)
            (taken,) = (await other.reap()).taken
            assert (taken.attempt, taken.ref.token) == (7, 7)
            assert (await other.reap()).ended == ()

    async def test_a_node_that_is_not_alive_is_given_no_attempt(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a"), following=after(3_600)))
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (waits(),))])
            clock.jump(LEASE + 31)
            await other.store.renew_node(other.id, LEASE, 0)
            assert (await other.reap()).dead == (one.id,)
            assert (await one.store.attend(one.id)).taken == ()
            assert (await other.reap()).taken == ()
            assert len((await other.store.attend(other.id)).taken) == 1

    async def test_runs_by_hand_are_tried_again_too(self) -> None:
        moment = after(-1)
        async with self.cluster(make_task("a", LATER)) as (_, (one, other)):
            task = await one.store.lookup_task("a")
            await one.fire(firing(task, moment, kind=RunKind.MANUAL))
            by_hand = ref("a", at=moment, kind=RunKind.MANUAL)
            await one.store.finish_runs(one.id, [RunEnd(by_hand, (waits(moment, NOON),))])
            (taken,), _, _ = await other.store.attend(other.id)
            assert taken.ref == by_hand._replace(token=2)

    async def test_many_attempts_are_given_a_few_at_a_time(self) -> None:
        tasks = [make_task(f"t{number:03}") for number in range(120)]
        async with self.cluster(*tasks) as (clock, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            ends = [RunEnd(ref(str(task.id)), (waits(),)) for task in tasks]
            assert await one.store.finish_runs(one.id, ends) == [True] * len(tasks)
            clock.jump(60)
            found = []
            while some := (await other.store.attend(other.id, limit=50)).taken:
                assert len(some) <= 50
                found += some
            assert sorted(run.ref.task_id for run in found) == [task.id for task in tasks]

    # What it says of itself.

    async def test_notes_are_kept_until_the_end(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            first = [(ref("a"), {"message": "begun"}), (ref("b", 2), NOTES)]
            assert await one.store.note_runs(one.id, first) == [True, False]
            assert (await self._run_of(other)).message == "begun"
            assert await one.store.note_runs(one.id, [(ref("a"), NOTES)]) == [True]
            run = await self._run_of(other)
            assert (run.progress, run.message) == (NOTES["progress"], NOTES["message"])
            assert (run.log, run.state) == (tuple(NOTES["log"]), RUNNING)
            assert (await self._run_of(other, "b")).message is None
            assert await other.store.note_runs(other.id, [(ref("a"), {"message": "no"})]) == [False]
            said = RunOutcome(NOON, SUCCEEDED, notes={"result": {"n": [1, None, "ö"]}})
            assert await one.store.finish_runs(one.id, [RunEnd(ref("a"), (said,))]) == [True]
            run = await self._run_of(other)
            assert (run.result, run.message, run.log) == ({"n": [1, None, "ö"]}, None, ())
            assert await one.store.note_runs(one.id, [(ref("a"), NOTES)]) == [False]

    async def test_notes_outlive_the_worker(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await one.store.note_runs(one.id, [(ref("a"), NOTES)])
            await one.store.leave_node(one.id)
            (taken,) = (await other.reap()).taken
            assert (await self._run_of(other)).message == NOTES["message"]
            assert await one.store.note_runs(one.id, [(ref("a"), {})]) == [False]
            assert await other.store.note_runs(other.id, [(taken.ref, {"progress": 1})]) == [True]
            run = await self._run_of(one)
            assert (run.progress, run.message) == (1, None)

    async def test_notes_of_tasks_with_any_id_are_kept(self) -> None:
        tasks = [make_task(task_id) for task_id in STRANGE_IDS.values()]
        async with self.cluster(*tasks) as (clock, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            notes = [(ref(str(task.id)), {"message": str(task.id)}) for task in tasks]
            assert await one.store.note_runs(one.id, notes) == [True] * len(tasks)
            for run in await other.runs():
                assert run.message == run.task_id
            ends = [RunEnd(ref(str(task.id)), (waits(),)) for task in tasks]
            assert await one.store.finish_runs(one.id, ends) == [True] * len(tasks)
            clock.jump(60)
            taken = (await other.store.attend(other.id)).taken
            assert sorted(run.ref.task_id for run in taken) == sorted(STRANGE_IDS.values())

    # Being cancelled.

    async def test_the_owner_of_a_run_hears_that_it_is_to_be_cancelled(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            assert await other.store.cancel_run("a", NOON, "ann") is RUNNING
            looked = await one.store.look()
            assert looked.attend_at is not None
            assert looked.attend_at <= looked.now
            assert await other.store.attend(other.id) == ((), (), ())
            assert await one.store.attend(one.id) == ((), ((ref("a"), "ann"),), ())
            assert await one.store.attend(one.id) == ((), ((ref("a"), "ann"),), ())
            assert (await self._run_of(other)).state is RUNNING
            assert await one.finish(ref("a"), state=CANCELLED) == [True]
            assert (await other.store.look()).attend_at is None
            assert await other.store.cancel_run("a", NOON, "ann") is CANCELLED
            assert (await one.store.attend(one.id)).asked == ()

    async def test_who_takes_a_run_over_hears_it_too(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await other.store.cancel_run("a", NOON, "ann")
            await one.store.leave_node(one.id)
            await other.reap()
            assert (await other.store.attend(other.id)).asked == ((ref("a", 2), "ann"),)

    async def test_a_run_that_waits_for_an_attempt_is_cancelled_at_once(self) -> None:
        async with self.cluster(make_task("a")) as (clock, (one, other)):
            await one.fire(firing(await one.store.lookup_task("a")))
            await one.store.finish_runs(one.id, [RunEnd(ref("a"), (waits(),))])
            assert await other.store.cancel_run("a", NOON, "ann") is CANCELLED
            run = await self._run_of(one)
            assert (run.state, run.finished_at, run.token) == (CANCELLED, NOON, 1)
            assert "ann" in (run.reason or "")
            assert (await other.store.look()).attend_at is None
            clock.jump(60)
            assert await other.store.attend(other.id) == ((), (), ())

    async def test_a_run_of_nobody_is_cancelled_at_once(self) -> None:
        times = (after(-60), NOON)
        async with self.cluster(make_task("a", times[0])) as (_, (one, other)):
            (task,) = await one.store.get_due_tasks(NOON)
            await one.fire(firing(task, *times))
            head = ref("a", at=times[0])
            await one.store.release_runs(one.id, [head])
            assert await other.store.cancel_run("a", NOON, "ann") is RunState.QUEUED
            assert await other.store.cancel_run("a", times[0], "ann") is CANCELLED
            assert [run.state for run in await other.runs()] == [CANCELLED, CANCELLED]
            assert (await other.reap()).taken == ()

    async def test_what_has_ended_or_never_was_is_not_cancelled(self) -> None:
        async with self.cluster(make_task("a")) as (_, (one, other)):
            assert await one.store.cancel_run("a", NOON, "ann") is None
            assert await one.store.cancel_run("nobody", NOON, "ann") is None
            await one.fire(firing(await one.store.lookup_task("a")))
            await one.finish(ref("a"), state=FAILED)
            assert await other.store.cancel_run("a", NOON, "ann") is FAILED
            assert (await self._run_of(one)).state is FAILED

    # History.

    async def test_the_latest_runs_of_a_task_are_kept(self) -> None:
        async with self.cluster(make_task("a"), make_task("b")) as (clock, (one, other)):
            await self._history(clock, one, FAILED, SUCCEEDED, SUCCEEDED, FAILED, SUCCEEDED)
            assert await other.store.prune_runs("a", SETTLED, 5, NOON) == 0
            assert await other.store.prune_runs("a", frozenset({SUCCEEDED}), 1, NOON) == 2
            states = [run.state for run in await other.runs(task_id="a")]
            assert states == [RUNNING, SUCCEEDED, FAILED, FAILED]
            assert await other.store.prune_runs("a", frozenset({FAILED}), 5, after(2)) == 1
            assert await other.store.prune_runs("a", SETTLED, 0, NOON, limit=1) == 1
            assert await other.store.prune_runs("a", SETTLED, 0, NOON) == 1
            states = [run.state for run in await other.runs(task_id="a")]
            assert states == [RUNNING]
            assert len(await other.runs(task_id="b")) == 1

    async def _history(self, clock: Any, member: Member, *states: RunState) -> None:
        """Runs of the task a, a second apart, that ended so, and one that goes on; and one of b."""
        for number, state in enumerate(states):
            task = await member.store.lookup_task("a")
            await member.fire(firing(task, following=after(number + 1)))
            await member.finish(ref("a", at=after(number)), state=state)
            clock.jump(1)
        task = await member.store.lookup_task("a")
        await member.fire(firing(task), firing(await member.store.lookup_task("b")))
        await member.finish(ref("b"))

    async def test_runs_until_an_instant_are_found(self) -> None:
        tasks = [make_task(name, after(-n)) for n, name in enumerate(("c", "b", "a"))]
        async with self.cluster(*tasks) as (_, (one, other)):
            await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
            assert [run.task_id for run in await other.runs(until=after(-1))] == ["b", "a"]
            found = await other.runs(since=after(-1), until=after(-1))
            assert [run.task_id for run in found] == ["b"]
            assert await other.runs(task_id="a", until=after(-3)) == []
