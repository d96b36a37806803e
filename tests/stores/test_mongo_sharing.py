"""What outlives what on MongoDB: runs and their tasks, older documents, nodes and heartbeats."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from asyncz.clock import SystemClock
from asyncz.enums import NodeState, RunKind, RunState
from asyncz.exceptions import ConflictIdError
from asyncz.serializers import EncryptedSerializer
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, Unrun
from asyncz.testing.store_suite_cluster import LEASE, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task

from .mongo_databases import Place, mongo_place, mongodb_url
from .mongo_members import members, open_documents, virtual

__all__ = ["mongo_place", "mongodb_url"]

KEY = "a key for the tests, long enough for that"
DAY = 86_400


@pytest.fixture
def place(mongo_place: Place) -> Place:
    return mongo_place


# A new task in the place of an old one whose last run goes on.


@pytest.mark.parametrize("count", [1, 9])
async def test_a_task_can_be_added_while_the_last_run_of_the_old_one_goes_on(
    place: Place, count: int
) -> None:
    names = [f"t{number}" for number in range(count)]
    tasks = [make_task(name, args=("old",), max_instances=2) for name in names]
    async with members(place, tasks) as (one, other):
        due = await one.store.get_due_tasks(NOON)
        await one.fire(*(firing(task, following=None) for task in due))
        new = [make_task(name, after(1), args=("new",), max_instances=2) for name in names]
        await other.store.add_tasks(new)
        due = await one.store.get_due_tasks(after(1))
        assert [task.args for task in due] == [("new",)] * count
        fired = await one.fire(*(firing(task, following=None) for task in due))
        assert fired == [Fired.WON] * count
        assert await other.store.count_active(["t0"]) == {"t0": 2}
        await one.store.leave_node(one.id)
        taken = (await other.reap()).taken
        assert sorted((run.ref.scheduled_time, run.task.args) for run in taken if run.task) == [
            *[(NOON, ("old",))] * count,
            *[(after(1), ("new",))] * count,
        ]
        assert await other.finish(*(run.ref for run in taken)) == [True] * 2 * count
        assert place.database.tasks.count_documents({}) == 0
        assert len(await other.runs()) == 2 * count


async def test_the_old_ones_run_counts_and_ends_like_any(place: Place) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task, following=None))
        await other.store.add_task(make_task("a", after(1)))
        task = await one.store.lookup_task("a")
        assert await one.fire(firing(task, following=after(2))) == [Fired.SKIPPED]
        assert await one.finish(ref("a")) == [True]
        task = await one.store.lookup_task("a")
        assert await one.fire(firing(task, following=after(3))) == [Fired.WON]


async def test_adding_that_fails_leaves_the_runs_of_the_old_ones(place: Place) -> None:
    async with members(place, [make_task("a"), make_task("b", after(60))]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task, following=None))
        with pytest.raises(ConflictIdError):
            await other.store.add_tasks([make_task("a"), make_task("b")])
        assert await other.store.lookup_task("a") is None
        await one.store.leave_node(one.id)
        (taken,) = (await other.reap()).taken
        assert taken.task is not None
        assert await other.finish(taken.ref) == [True]


# A task that is deleted while it runs.


async def test_a_run_whose_task_was_deleted_ends_as_it_ends(place: Place) -> None:
    async with members(place, [make_task("a"), make_task("b")]) as (one, other):
        for task in await one.store.get_due_tasks(NOON):
            await one.fire(firing(task))
        await other.store.delete_task("a")
        await other.store.remove_all_tasks()
        assert await other.store.get_all_tasks() == []
        own = await one.store.get_own_runs(one.id)
        assert [(run.task, run.error) for run in own] == [(None, "its task was deleted")] * 2
        assert await one.finish(ref("a"), ref("b")) == [True, True]
        await other.store.add_task(make_task("a", after(9), args=("new",)))
        assert (await other.store.lookup_task("a")).args == ("new",)
        await other.store._sweep()
        assert place.database.tasks.count_documents({}) == 1


async def test_the_run_of_an_unreadable_record_is_left_to_others(place: Place) -> None:
    tasks = [make_task("a"), make_task("b")]
    async with members(place, tasks, count=3) as (one, other, third):
        await one.fire(*(firing(task) for task in await one.store.get_due_tasks(NOON)))
        record = place.record("a")
        place.write("a", b"?")
        await one.store.leave_node(one.id)
        assert [run.ref.task_id for run in (await other.reap()).taken] == ["b"]
        place.write("a", record)
        assert [run.ref.task_id for run in (await third.reap()).taken] == ["a"]


async def test_an_unreadable_record_that_is_set_aside_leaves_its_runs(place: Place) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task))
        place.write("a", b"?")
        await other.store.update_task(make_task("a", after(60)))
        assert place.database["tasks.unreadable"].count_documents({}) == 1
        assert await one.finish(ref("a")) == [True]
        assert (await one.store.lookup_task("a")).next_run_time == after(60)


# What was there before.


async def test_documents_of_a_release_without_runs_are_fired(place: Place) -> None:
    async with members(place, [make_task("a"), make_task("b")]):
        pass
    place.database["tasks.meta"].update_one({"_id": "schema"}, {"$set": {"version": 1}})
    for name in ("tasks.runs", "tasks.nodes"):
        place.database.drop_collection(name)
    place.database.tasks.drop_indexes()
    async with members(place) as (one, other):
        due = await one.store.get_due_tasks(NOON)
        assert await one.fire(*map(firing, due)) == [Fired.WON] * 2
        assert await one.finish(ref("a")) == [True]
        assert await other.states() == {"a": RunState.SUCCEEDED, "b": RunState.RUNNING}
    found = place.database["tasks.meta"].find_one({"_id": "schema"})
    assert found == {"_id": "schema", "version": 3}
    assert "asyncz_owners" in place.database.tasks.index_information()


async def test_texts_of_an_encrypted_store_are_encrypted(place: Place) -> None:
    secret: dict[str, Any] = {"serializer": EncryptedSerializer(KEY)}
    async with members(place, [make_task("a")], count=1, **secret) as (one,):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task))
        said = RunOutcome(NOON, RunState.FAILED, "ValueError: hush", "trace of hush", "hush why")
        await one.store.finish_runs(one.id, [RunEnd(ref("a"), (said,))])
        (run,) = await one.runs()
        assert (run.error, run.traceback, run.reason) == said[2:5]
    assert b"hush" not in repr(list(place.database["tasks.runs"].find())).encode()
    async with members(place, count=1) as (plain,):
        (run,) = await plain.runs()
        assert (run.error, run.reason) == (
            None,
            "What is known of it is encrypted, and cannot be read here.",
        )


async def test_an_error_with_half_a_character_is_recorded(place: Place) -> None:
    async with members(place, [make_task("a")], count=1) as (one,):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task))
        said = RunOutcome(NOON, RunState.FAILED, "OSError: \udc80\0", "at \ud800")
        assert await one.store.finish_runs(one.id, [RunEnd(ref("a"), (said,))]) == [True]
        (run,) = await one.runs()
        assert (run.error, run.traceback) == ("OSError: \\udc80\0", "at \\ud800")


# Looking.


async def test_a_look_reads_no_document_of_what_is_settled(place: Place) -> None:
    tasks = [make_task(f"t{number}") for number in range(50)]
    async with members(place, tasks) as (one, _):
        await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
        await one.finish(*(ref(f"t{number}") for number in range(50)))
    asked = {"distinct": "tasks", "key": "active.owner"}
    stats = place.database.command("explain", asked, verbosity="executionStats")["executionStats"]
    assert (stats["totalKeysExamined"], stats["totalDocsExamined"]) == (0, 0)


async def test_the_latest_runs_are_asked_for_at_once_and_found_by_the_key(place: Place) -> None:
    clock, names = virtual(), [f"t{number}" for number in range(20)]
    async with members(place, [*map(make_task, names)], clock=clock) as (one, other):
        for number in range(10):
            due = await one.store.get_due_tasks(after(number))
            await one.fire(*(firing(task, following=after(number + 1)) for task in due))
            await one.finish(*(ref(name, at=after(number)) for name in names))
        profile(place, 2)
        found = await other.store.get_last_runs([*names, "nobody"])
        profile(place, 0)
    assert {run.scheduled_time for run in found.values()} == {after(9)}
    asked = [*place.database["system.profile"].find({"ns": f"{place.name}.tasks.runs"})]
    assert [each["op"] for each in asked] == ["command"]
    assert asked[0]["docsExamined"] == len(names)


def profile(place: Place, level: int) -> None:
    """Let the server note down what it is asked: 2 all, 0 nothing."""
    place.database.command("profile", level)


async def test_a_claim_that_is_repeated_is_known_though_the_task_was_added_anew(
    place: Place,
) -> None:
    late = Unrun(RunState.MISSED, NOON, NOON, 1, "too late")
    clock = virtual()
    async with members(place, [make_task("a")], clock=clock) as (one, other):
        await one.store.get_due_tasks(NOON)
        await other.store.delete_task("a")
        clock.jump(1)
        await other.store.add_task(make_task("a"))
        task = await one.store.lookup_task("a")
        last = Firing(task, NOON, None, True, RunKind.SCHEDULED, (), (late,))
        assert await one.fire(last, claim="the same") == [Fired.WON]
        assert await one.fire(last, claim="the same") == [Fired.WON]
        assert [run.state for run in await one.runs()] == [RunState.MISSED]


# Nodes and their heartbeats.


async def test_nodes_that_have_been_gone_for_a_week_are_forgotten(place: Place) -> None:
    clock = virtual()
    tasks = [make_task("a")]
    async with members(place, tasks, count=3, clock=clock) as (one, other, third):
        await one.fire(*map(firing, await one.store.get_due_tasks(NOON)))
        await one.store.leave_node(one.id)
        await third.store.leave_node(third.id)
        clock.jump(8 * DAY)
        await other.store.forget_runs(NOON)
        nodes = await other.store.get_nodes()
        # Somebody still has to take over what the first one has.
        assert [found.node.id for found in nodes] == [one.id, other.id]
        assert [found.state for found in nodes] == [NodeState.LEFT, NodeState.STALE]


def in_a_thread(beat: Callable[[], Any]) -> Any:
    """What a coroutine comes to on a loop of its own, while this loop is blocked."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(beat())))
    thread.start()
    thread.join(20)
    assert answers, "it needs the loop that is blocked"
    return answers[0]


@pytest.mark.parametrize("kind", ["uri", "motor", "pymongo"])
async def test_a_lease_is_renewed_from_another_thread_while_this_loop_is_blocked(
    place: Place, kind: str
) -> None:
    motor: AsyncIOMotorClient[Any] = AsyncIOMotorClient(place.url)
    async with AsyncMongoClient[Any](place.url) as native:
        clients: dict[str, Any] = {"motor": motor, "pymongo": native}
        options = {"uri": None, "client": clients[kind]} if kind in clients else {}
        async with members(place, count=1, clock=SystemClock(), **options) as (one,):
            (before,) = await one.store.get_nodes()
            pulse = one.store.pulse(one.id)

            async def beat() -> list[bool]:
                await pulse.open()
                try:
                    return [await pulse.beat(LEASE, 3), await pulse.beat(2 * LEASE, 4)]
                finally:
                    await pulse.close()

            time.sleep(0.01)
            assert in_a_thread(beat) == [True, True]
            assert (await one.store.look()).next_run_time is None
            (found,) = await one.store.get_nodes()
            assert (found.running, found.state) == (4, NodeState.ALIVE)
            assert found.seen_at > before.seen_at == found.joined_at
            assert (found.lease_until - found.seen_at).total_seconds() == 2 * LEASE
            await one.store.leave_node(one.id)
            assert in_a_thread(beat) == [False, False]
    motor.close()


async def test_a_pulse_can_be_closed_that_could_not_be_opened(place: Place) -> None:
    async with members(place, count=1, clock=SystemClock()) as (one,):
        pulse = one.store.pulse(one.id)
        await pulse.close()
        with pytest.raises(RuntimeError, match="not open"):
            await pulse.beat(LEASE, 0)


async def test_a_clock_that_is_set_needs_no_pulse(place: Place) -> None:
    async with members(place, count=1) as (one,):
        assert one.store.pulse(one.id) is None


async def test_by_the_servers_clock_a_run_has_its_times(place: Place) -> None:
    async with members(place, [make_task("a")], clock=SystemClock()) as (one, other):
        before = (await other.store.look()).now
        task = await one.store.lookup_task("a")
        await one.fire(firing(task))
        await one.finish(ref("a"))
        (run,) = await other.runs()
        assert run.claimed_at == run.started_at
        assert run.claimed_at is not None
        assert run.finished_at is not None
        assert before <= run.claimed_at <= run.finished_at
        assert open_documents(place) == 0
