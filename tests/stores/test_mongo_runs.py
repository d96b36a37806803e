"""Runs on MongoDB: lost answers, crashes between two steps, claims that come too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from asyncz.enums import Delivery, RunState
from asyncz.exceptions import StoreError
from asyncz.stores.cluster import Fired, Firing, RunEnd, RunOutcome, Unrun
from asyncz.stores.mongo_ending import MongoEnding
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.stores.mongo_nodes import MongoNodes
from asyncz.testing.store_suite_cluster import LATER, LEASE, Member, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task
from tests.services.cutting_proxy import CuttingProxy, cutting_proxy

from .mongo_databases import Place, mongo_place, mongodb_url, standalone, standalone_place
from .mongo_members import members, open_documents, virtual

__all__ = ["mongo_place", "mongodb_url", "standalone", "standalone_place"]

RUNNING, SUCCEEDED, FAILED = RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED
MISSED = Unrun(RunState.MISSED, after(-120), after(-60), 2, "too late")
AGAIN_OR_LAST = pytest.mark.parametrize("following", [after(60), None], ids=["again", "last"])


@pytest.fixture(params=["replica set", "standalone"])
def place(request: pytest.FixtureRequest, mongo_place: Place, standalone_place: Place) -> Place:
    return mongo_place if request.param == "replica set" else standalone_place


@pytest_asyncio.fixture
async def proxy(place: Place) -> AsyncIterator[CuttingProxy]:
    address = place.client.address
    assert address is not None
    async with cutting_proxy(address) as proxy:
        yield proxy


def through(proxy: CuttingProxy) -> dict[str, Any]:
    """The option of a store that goes through a proxy."""
    return {"uri": f"mongodb://{proxy.address}/?directConnection=true&retryWrites=false"}


def nine() -> list[Any]:
    return [make_task(f"t{number}") for number in range(9)]


async def due_firings(member: Member, following: datetime | None) -> list[Firing]:
    return [firing(task, following=following) for task in await member.store.get_due_tasks(NOON)]


async def fire_all(member: Member, following: datetime | None = LATER) -> None:
    fired = await member.fire(*await due_firings(member, following))
    assert set(fired) == {Fired.WON}


class Crash(Exception):
    """The process is killed here."""


def crash_in(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    async def crash(*args: Any) -> None:
        raise Crash

    monkeypatch.setattr(kind, name, crash)


# Answers that get lost.


@AGAIN_OR_LAST
async def test_one_lost_answer_to_a_claim_is_not_noticed(
    place: Place, proxy: CuttingProxy, following: datetime | None
) -> None:
    async with members(place, nine(), **through(proxy)) as (one, other):
        wanted = await due_firings(one, following)
        await other.store.update_task(make_task("t4", after(7)))
        proxy.lose_reply_to(b"claims")
        fired = await one.fire(*wanted)
        assert proxy.lost == 1
        assert fired == [Fired.LOST if each.task.id == "t4" else Fired.WON for each in wanted]
        assert len(await one.store.get_own_runs(one.id)) == 8


@AGAIN_OR_LAST
async def test_a_claim_without_an_answer_is_answered_when_asked_again(
    place: Place, proxy: CuttingProxy, following: datetime | None
) -> None:
    async with members(place, nine(), **through(proxy)) as (one, other):
        wanted = await due_firings(one, following)
        await other.store.update_task(make_task("t4", after(7)))
        proxy.lose_reply_to(b"claims", times=2)
        with pytest.raises(StoreError, match="'mongo'"):
            await one.fire(*wanted, claim="the same")
        assert proxy.lost == 2
        fired = await one.fire(*wanted, claim="the same")
        assert fired == [Fired.LOST if each.task.id == "t4" else Fired.WON for each in wanted]
        assert len(await one.runs()) == 8
        assert await one.finish(ref("t0")) == [True]


async def test_a_claim_asked_again_says_what_was_skipped_and_what_was_run_before(
    place: Place,
) -> None:
    async with members(place, [make_task(name) for name in "abc"]) as (one, other):
        await fire_all(other)
        await other.finish(ref("b"))
        task_a, task_b, task_c = [await one.store.lookup_task(name) for name in "abc"]
        task_b.next_run_time = NOON
        await one.store.update_task(task_b)
        await other.finish(ref("c"))
        wanted = [
            firing(task_a, following=after(120)),
            firing(task_b, NOON, unrun=[MISSED]),
            firing(task_c, following=None),
        ]
        first = await one.fire(*wanted, claim="the same")
        assert first == [Fired.SKIPPED, Fired.REPEATED, Fired.WON]
        count = len(await one.runs())
        assert await one.fire(*wanted, claim="the same") == first
        assert len(await one.runs()) == count
        # Who found it among what it owns has run it: not once more.
        await one.finish(ref("c", at=after(60)))
        again = await one.fire(*wanted, claim="the same")
        assert again == [Fired.SKIPPED, Fired.REPEATED, Fired.REPEATED]


@AGAIN_OR_LAST
@pytest.mark.parametrize("word", [b"finished", b"elemMatch"], ids=["rows", "taking out"])
@pytest.mark.parametrize("times", [1, 2])
async def test_outcomes_without_an_answer_are_recorded_once(
    place: Place, proxy: CuttingProxy, following: datetime | None, word: bytes, times: int
) -> None:
    async with members(place, nine(), **through(proxy)) as (one, other):
        await fire_all(one, following)
        refs = [ref(f"t{number}") for number in range(9)]
        proxy.lose_reply_to(word, times=times)
        if times == 2:
            with pytest.raises(StoreError):
                await one.finish(*refs)
        assert await one.finish(*refs) == [True] * 9
        assert proxy.lost == times
        assert list((await other.states()).values()) == [SUCCEEDED] * 9
        assert open_documents(place) == 0
        assert await one.finish(*refs, state=FAILED) == [False] * 9


async def test_a_take_over_without_an_answer_is_the_node_s_own(
    place: Place, proxy: CuttingProxy
) -> None:
    async with members(place, nine(), **through(proxy)) as (one, other):
        await fire_all(other)
        await other.store.leave_node(other.id)
        proxy.lose_reply_to(b"active.$.owner", times=2)
        with pytest.raises(StoreError):
            await one.reap()
        own = await one.store.get_own_runs(one.id)
        assert {run.ref.token for run in own} == {2}
        assert await one.finish(*(run.ref for run in own)) == [True] * 9


# Killed between two steps.


@AGAIN_OR_LAST
async def test_a_run_that_has_its_row_is_not_taken_over(
    place: Place, monkeypatch: pytest.MonkeyPatch, following: datetime | None
) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one, following)
        with monkeypatch.context() as patch:
            crash_in(patch, MongoEnding, "close")
            with pytest.raises(Crash):
                await one.finish(ref("a"))
        assert await other.states() == {"a": SUCCEEDED}
        await one.store.leave_node(one.id)
        reaped = await other.reap()
        assert (reaped.taken, reaped.ended) == ((), ())
        assert await other.states() == {"a": SUCCEEDED}
        assert open_documents(place) == 0
        assert (await other.store.look()).has_unowned is False


async def test_the_audit_takes_out_what_has_its_row(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with members(place, nine()) as (one, _):
        await fire_all(one)
        with monkeypatch.context() as patch:
            crash_in(patch, MongoEnding, "close")
            with pytest.raises(Crash):
                await one.finish(ref("t3"))
        assert len(await one.store.get_own_runs(one.id)) == 8
        assert await one.store.count_active(["t3"]) == {"t3": 0}


@AGAIN_OR_LAST
async def test_what_was_not_run_is_recorded_though_who_moved_the_task_on_was_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch, following: datetime | None
) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        moved = firing(task, following=following, unrun=[MISSED])._replace(run_times=())
        with monkeypatch.context() as patch:
            crash_in(patch, MongoLedger, "settle_notes")
            with pytest.raises(Crash):
                await one.fire(moved, claim="the same")
        assert open_documents(place) == 1
        await other.reap()
        (run,) = await other.runs()
        assert (run.state, run.occurrences, run.reason) == (RunState.MISSED, 2, "too late")
        assert open_documents(place) == 0
        assert await one.fire(moved, claim="the same") == [Fired.WON]
        assert place.database.tasks.count_documents({}) == (0 if following is None else 1)


# Too late.


async def test_a_claim_that_lands_after_its_node_was_buried_is_found(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = virtual()
    async with members(place, [make_task("a")], clock=clock) as (slow, other):
        (task,) = await slow.store.get_due_tasks(NOON)
        asked, may_go_on = asyncio.Event(), asyncio.Event()
        ask = MongoNodes.time_if_alive

        async def stop_there(nodes: MongoNodes, node_id: str) -> int | None:
            answer = await ask(nodes, node_id)
            if node_id == slow.id:
                asked.set()
                await may_go_on.wait()
            return answer

        monkeypatch.setattr(MongoNodes, "time_if_alive", stop_there)
        claiming = asyncio.ensure_future(slow.fire(firing(task)))
        await asked.wait()
        clock.jump(LEASE + 1)
        await other.store.renew_node(other.id, LEASE, 0)
        reaped = await other.reap()
        assert (reaped.dead, reaped.taken) == ((slow.id,), ())
        may_go_on.set()
        await claiming
        assert (await other.store.look()).has_unowned is True
        (taken,) = (await other.reap(bury=False)).taken
        assert taken.ref == ref("a", 2)
        assert await slow.finish(ref("a")) == [False]


async def test_the_word_of_the_old_owner_gives_way_to_that_of_the_new_one(place: Place) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one)
        await one.store.leave_node(one.id)
        (taken,) = (await other.reap()).taken
        # It has its claim in memory, and does not know.
        assert await one.finish(ref("a"), state=FAILED) == [False]
        assert await other.states() == {"a": RUNNING}
        assert await other.runs(states=frozenset({FAILED})) == []
        assert await other.store.count_active(["a"]) == {"a": 1}
        assert await other.finish(taken.ref) == [True]
        (run,) = await one.runs()
        assert (run.state, run.token, run.owner) == (SUCCEEDED, 2, other.id)
        assert await one.finish(ref("a"), state=FAILED) == [False]
        assert await other.states() == {"a": SUCCEEDED}


async def test_followers_that_were_lost_end_as_their_worker_says_after_all(place: Place) -> None:
    times = (after(-60), NOON)
    once = make_task("a", times[0], delivery=Delivery.AT_MOST_ONCE)
    async with members(place, [once]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task, *times))
        head = ref("a", at=times[0])
        await one.store.start_runs(one.id, [head])
        await one.store.leave_node(one.id)
        await other.reap()
        assert {run.state for run in await other.runs()} == {RunState.LOST}
        end = RunEnd(head, (RunOutcome(times[0], FAILED, "E"), RunOutcome(NOON, SUCCEEDED)))
        assert await one.store.finish_runs(one.id, [end]) == [True]
        assert [run.state for run in await other.runs()] == [SUCCEEDED, FAILED]


# An instant is run once.


async def test_tasks_that_come_out_of_a_backup_do_not_run_again(place: Place) -> None:
    clock = virtual()
    async with members(place, [make_task("a")], clock=clock) as (one, _):
        backup = place.database.tasks.find_one({})
        assert backup is not None
        await fire_all(one)
        await one.finish(ref("a"))
        place.database.tasks.replace_one({}, backup)
        clock.jump(60)
        assert await one.fire(*await due_firings(one, after(60))) == [Fired.REPEATED]
        assert len(await one.runs()) == 1


async def test_a_schedule_that_is_moved_back_runs_what_was_not_run(place: Place) -> None:
    async with members(place, [make_task("a")]) as (one, _):
        await fire_all(one)
        await one.finish(ref("a"))
        task = await one.store.lookup_task("a")
        task.next_run_time = after(-5)
        await one.store.update_task(task)
        assert await one.fire(firing(task, following=NOON)) == [Fired.WON]
        assert await one.finish(ref("a", at=after(-5))) == [True]
        task = await one.store.lookup_task("a")
        assert await one.fire(firing(task)) == [Fired.REPEATED]


async def test_many_that_are_busy_are_skipped_by_one_look(place: Place) -> None:
    async with members(place, nine()) as (one, other):
        await fire_all(one)
        tasks = await other.store.get_all_tasks()
        fired = await other.fire(*(firing(task, following=after(120)) for task in tasks))
        assert fired == [Fired.SKIPPED] * 9
        skipped = await one.runs(states=frozenset({RunState.SKIPPED}))
        assert len(skipped) == 9
        assert skipped[0].reason == "1 run(s) went on, as many as max_instances allows"
        assert open_documents(place) == 9
