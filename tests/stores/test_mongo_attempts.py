"""Attempts on MongoDB: lost answers, crashes between two steps, what was there before, indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from asyncz.enums import Delivery, RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import RunQuery
from asyncz.serializers import EncryptedSerializer
from asyncz.stores.cluster import Fired, RunEnd, RunOutcome, RunRef, Unrun
from asyncz.stores.mongo_ending import MongoEnding
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.testing.store_suite_cluster import LATER, Member, firing, ref
from asyncz.testing.store_suite_tools import NOON, after, make_task
from tests.services.cutting_proxy import CuttingProxy, cutting_proxy

from .mongo_databases import Place, mongo_place, mongodb_url
from .mongo_members import members, virtual

__all__ = ["mongo_place", "mongodb_url"]

HOUR = after(3_600)
KEY = "a key for the tests, long enough for that"
RUNNING, SUCCEEDED, FAILED = RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED
SETTLED = frozenset(state for state in RunState if not state.is_open)
AGAIN_OR_LAST = pytest.mark.parametrize("following", [HOUR, None], ids=["again", "last"])


@pytest.fixture
def place(mongo_place: Place) -> Place:
    return mongo_place


@pytest_asyncio.fixture
async def proxy(place: Place) -> AsyncIterator[CuttingProxy]:
    address = place.client.address
    assert address is not None
    async with cutting_proxy(address) as proxy:
        yield proxy


def through(proxy: CuttingProxy) -> dict[str, Any]:
    """The option of a store that goes through a proxy."""
    return {"uri": f"mongodb://{proxy.address}/?directConnection=true&retryWrites=false"}


class Crash(Exception):
    """The process is killed here."""


def crash_in(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    async def crash(*args: Any) -> None:
        raise Crash

    monkeypatch.setattr(kind, name, crash)


def waits(run: RunRef, until: datetime = LATER) -> RunEnd:
    """It has failed, and is tried again then."""
    at, notes = run.scheduled_time, {"message": "hush, page 3"}
    said = RunOutcome(at, RETRYING, "ValueError: hush", "trace of hush", None, notes, until)
    return RunEnd(run, (said,))


async def fire_all(member: Member, following: datetime | None = HOUR) -> None:
    due = await member.store.get_due_tasks(NOON)
    fired = await member.fire(*(firing(task, following=following) for task in due))
    assert set(fired) == {Fired.WON}


async def put_off(member: Member, *names: str, until: datetime = LATER) -> None:
    ends = [waits(ref(name), until) for name in names]
    assert await member.store.finish_runs(member.id, ends) == [True] * len(names)


def names(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def left(place: Place) -> int:
    """How many tasks' documents have anything open, or yet to be recorded."""
    parts = [{f"{name}.0": {"$exists": True}} for name in ("active", "waiting", "ledger")]
    return place.database.tasks.count_documents({"$or": parts})


# Answers that get lost.


@AGAIN_OR_LAST
@pytest.mark.parametrize("word", [b"waiting", b"retrying"], ids=["putting off", "the row"])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_attempt_without_an_answer_waits_once(
    place: Place, proxy: CuttingProxy, following: datetime | None, word: bytes, times: int
) -> None:
    clock = virtual()
    tasks = [*map(make_task, names(9))]
    async with members(place, tasks, clock=clock, **through(proxy)) as (one, other):
        await fire_all(one, following)
        ends = [waits(ref(name)) for name in names(9)]
        proxy.lose_reply_to(word, times=times)
        if times == 2:
            with pytest.raises(StoreError):
                await one.store.finish_runs(one.id, ends)
        assert await one.store.finish_runs(one.id, ends) == [True] * 9
        assert proxy.lost == times
        clock.jump(60)
        taken = (await other.store.attend(other.id)).taken
        assert [run.attempt for run in taken] == [2] * 9
        assert [run.message for run in await other.runs()] == ["hush, page 3"] * 9
        assert await other.finish(*(run.ref for run in taken)) == [True] * 9
        assert left(place) == 0


async def test_attempts_that_were_given_without_an_answer_are_the_node_s_own(
    place: Place, proxy: CuttingProxy
) -> None:
    tasks = [*map(make_task, names(9))]
    async with members(place, tasks, **through(proxy)) as (one, other):
        await fire_all(other)
        await put_off(other, *names(9), until=NOON)
        proxy.lose_reply_to(b"tried", times=2)
        with pytest.raises(StoreError):
            await one.store.attend(one.id)
        assert proxy.lost == 2
        assert (await one.store.attend(one.id)).taken == ()
        own = await one.store.get_own_runs(one.id)
        assert {(run.ref.token, run.attempt) for run in own} == {(2, 2)}
        assert await one.finish(*(run.ref for run in own)) == [True] * 9


async def test_one_lost_answer_to_attending_is_not_noticed(
    place: Place, proxy: CuttingProxy
) -> None:
    tasks = [*map(make_task, names(9))]
    async with members(place, tasks, **through(proxy)) as (one, other):
        await fire_all(other)
        await put_off(other, *names(9), until=NOON)
        await other.store.delete_task("t3")
        proxy.lose_reply_to(b"tried")
        taken, _, ended = await one.store.attend(one.id)
        assert proxy.lost == 1
        assert (len(taken), [run.task_id for run in ended]) == (8, ["t3"])


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_without_an_answer_is_done_once(
    place: Place, proxy: CuttingProxy, times: int
) -> None:
    tasks = [*map(make_task, names(2))]
    async with members(place, tasks, **through(proxy)) as (one, other):
        await fire_all(other)
        await put_off(other, "t0")
        for name, state in (("t0", CANCELLED), ("t1", RUNNING)):
            proxy.lose_reply_to(b"$push", times=times)
            if times == 2:
                with pytest.raises(StoreError):
                    await one.store.cancel_run(name, NOON, "ann")
            assert await one.store.cancel_run(name, NOON, "ann") is state
        assert proxy.lost == 2 * times
        found = place.database.tasks.find_one({"_id": "t1"}, {"waiting.mark": 1})
        assert found == {"_id": "t1", "waiting": [{"mark": True}]}


# Killed between two steps.


@AGAIN_OR_LAST
async def test_who_was_killed_before_the_row_of_an_attempt_has_put_it_off(
    place: Place, monkeypatch: pytest.MonkeyPatch, following: datetime | None
) -> None:
    clock = virtual()
    async with members(place, [make_task("a")], clock=clock) as (one, other):
        await fire_all(one, following)
        with monkeypatch.context() as patch:
            crash_in(patch, MongoLedger, "settle_notes")
            with pytest.raises(Crash):
                await one.store.finish_runs(one.id, [waits(ref("a"))])
        await one.store.leave_node(one.id)
        assert (await other.reap()).taken == ()
        (run,) = await other.runs()
        assert (run.state, run.error, run.retry_at) == (RETRYING, "ValueError: hush", LATER)
        clock.jump(60)
        (taken,) = (await other.store.attend(other.id)).taken
        assert await other.finish(taken.ref) == [True]
        assert left(place) == 0
        assert place.database.tasks.count_documents({}) == (0 if following is None else 1)


async def test_a_row_that_comes_late_says_nothing_over_what_followed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one)
        with monkeypatch.context() as patch:
            crash_in(patch, MongoLedger, "settle_notes")
            with pytest.raises(Crash):
                await one.store.finish_runs(one.id, [waits(ref("a"), NOON)])
        (taken,) = (await other.store.attend(other.id)).taken
        assert await other.finish(taken.ref) == [True]
        await other.reap()
        (run,) = await other.runs()
        assert (run.state, run.error, run.token) == (SUCCEEDED, None, 2)
        assert left(place) == 0


async def test_what_was_cancelled_is_recorded_though_who_did_was_killed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one, None)
        await put_off(one, "a")
        with monkeypatch.context() as patch:
            crash_in(patch, MongoLedger, "settle_notes")
            with pytest.raises(Crash):
                await one.store.cancel_run("a", NOON, "ann")
        assert await other.store.cancel_run("a", NOON, "bob") is CANCELLED
        (run,) = await other.runs()
        assert (run.state, run.reason) == (CANCELLED, "cancelled by ann")
        assert place.database.tasks.count_documents({}) == 0


async def test_the_end_of_a_second_attempt_is_found_in_its_row(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one)
        await put_off(one, "a", until=NOON)
        (taken,) = (await one.store.attend(one.id)).taken
        with monkeypatch.context() as patch:
            crash_in(patch, MongoEnding, "close")
            with pytest.raises(Crash):
                await one.finish(taken.ref)
        # What has its row is not open, but is not forgotten either while it seems to be.
        assert await other.store.cancel_run("a", NOON, "ann") is SUCCEEDED
        assert await other.store.prune_runs("a", SETTLED, 0, after(9)) == 0
        assert await other.store.forget_runs(after(9)) == 0
        await one.store.leave_node(one.id)
        assert (await other.reap()).taken == ()
        assert await other.states() == {"a": SUCCEEDED}
        assert await other.store.prune_runs("a", SETTLED, 0, after(9)) == 1


# Several who do something at once.


async def test_of_several_who_attend_one_gets_each(place: Place) -> None:
    tasks = [make_task(name, max_instances=2) for name in names(40)]
    async with members(place, tasks, count=4) as all_of_them:
        one = all_of_them[0]
        await fire_all(one)
        await put_off(one, *names(40), until=NOON)
        attended = await asyncio.gather(*(each.store.attend(each.id) for each in all_of_them))
        taken = [run.ref.task_id for each in attended for run in each.taken]
        while more := (await one.store.attend(one.id)).taken:
            taken += [run.ref.task_id for run in more]
        assert sorted(taken) == sorted(names(40))


async def test_a_run_that_was_put_off_when_it_was_to_be_cancelled_ends(place: Place) -> None:
    async with members(place, [make_task("a")]) as (one, other):
        await fire_all(one)
        assert await other.store.cancel_run("a", NOON, "ann") is RUNNING
        await put_off(one, "a")
        taken, asked, ended = await other.store.attend(other.id)
        assert (taken, asked, [run.task_id for run in ended]) == ((), (), ["a"])
        (run,) = await one.runs()
        assert (run.state, run.reason) == (CANCELLED, "cancelled by ann")
        assert (await one.store.look()).attend_at is None


async def test_what_is_put_off_too_late_has_failed(place: Place) -> None:
    once = make_task("a", delivery=Delivery.AT_MOST_ONCE)
    async with members(place, [once]) as (one, other):
        await fire_all(one)
        await one.store.start_runs(one.id, [ref("a")])
        await one.store.leave_node(one.id)
        await other.reap()
        assert await other.states() == {"a": RunState.LOST}
        assert await one.store.finish_runs(one.id, [waits(ref("a"))]) == [True]
        (run,) = await other.runs()
        assert (run.state, run.error) == (FAILED, "ValueError: hush")
        assert left(place) == 0


# A new task in the place of an old one.


@pytest.mark.parametrize("count", [1, 9])
async def test_the_attempts_of_a_task_that_has_ended_go_on_beside_a_new_one(
    place: Place, count: int
) -> None:
    clock = virtual()
    tasks = [make_task(name, args=("old",), max_instances=2) for name in names(count)]
    async with members(place, tasks, clock=clock) as (one, other):
        await fire_all(one, None)
        new = [make_task(name, args=("new",), max_instances=2) for name in names(count)]
        await other.store.add_tasks(new[: count // 2])
        await put_off(one, *names(count))
        await other.store.add_tasks(new[count // 2 :])
        clock.jump(60)
        taken = (await other.store.attend(other.id)).taken
        assert [run.task.args for run in taken if run.task] == [("old",)] * count
        await put_off_again(other, [run.ref for run in taken])
        # The same instant of the new one could not be told from that which waits.
        due = await one.store.get_due_tasks(NOON)
        fired = await one.fire(*(firing(task, following=None) for task in due))
        assert fired == [Fired.REPEATED] * count
        clock.jump(60)
        taken = (await one.store.attend(one.id)).taken
        assert [run.task.args for run in taken if run.task] == [("old",)] * count
        assert await one.finish(*(run.ref for run in taken)) == [True] * count
        assert place.database.tasks.count_documents({"ended": {"$exists": False}}) == 0


async def put_off_again(member: Member, refs: list[RunRef]) -> None:
    ends = [waits(run, after(120)) for run in refs]
    assert await member.store.finish_runs(member.id, ends) == [True] * len(refs)


async def test_the_server_does_not_remove_an_ended_task_whose_attempt_waits(place: Place) -> None:
    clock = virtual()
    async with members(place, [make_task("a")], clock=clock) as (one, other):
        await fire_all(one, LATER)
        await put_off(one, "a", until=after(90))
        last = firing(await one.store.lookup_task("a"), following=None)._replace(run_times=())
        assert await one.fire(last) == [Fired.WON]
        await other.store._sweep()
        assert place.database.tasks.count_documents({"ended": {"$exists": True}}) == 0
        clock.jump(90)
        (taken,) = (await other.store.attend(other.id)).taken
        assert await other.finish(taken.ref) == [True]
        assert place.database.tasks.count_documents({}) == 0


# What was there before, and what the server may read.


async def test_runs_of_the_release_before_go_on(place: Place) -> None:
    async with members(place, [make_task("a"), make_task("b")]) as (one, _):
        await fire_all(one)
        await one.finish(ref("b"))
        await one.store.leave_node(one.id)
    place.database["tasks.meta"].update_one({"_id": "schema"}, {"$set": {"version": 2}})
    place.database.tasks.drop_index("asyncz_waiting")
    place.database.tasks.update_many({}, {"$unset": {"waiting": ""}})
    async with members(place) as (one, other):
        assert (await other.store.look()).attend_at is None
        (taken,) = (await one.reap()).taken
        assert (taken.ref, taken.attempt) == (ref("a", 2), 2)
        end = waits(taken.ref, NOON)
        assert await one.store.finish_runs(one.id, [end]) == [True]
        (again,) = (await other.store.attend(other.id)).taken
        assert (again.attempt, again.run_times) == (3, (NOON,))
        assert await other.finish(again.ref) == [True]
        assert await other.states() == {"a": SUCCEEDED, "b": SUCCEEDED}
    found = place.database["tasks.meta"].find_one({"_id": "schema"})
    assert found == {"_id": "schema", "version": 3}
    assert "asyncz_waiting" in place.database.tasks.index_information()


async def test_what_runs_say_and_who_cancels_them_is_encrypted(place: Place) -> None:
    secret: dict[str, Any] = {"serializer": EncryptedSerializer(KEY)}
    async with members(place, [*map(make_task, names(3))], count=1, **secret) as (one,):
        await fire_all(one)
        await one.store.note_runs(one.id, [(ref("t0"), {"message": "hush, page 2"})])
        await put_off(one, "t1")
        await one.store.cancel_run("t0", NOON, "hush, ann")
        notes = {"result": "hush"}
        said = RunOutcome(NOON, SUCCEEDED, notes=notes)
        await one.store.finish_runs(one.id, [RunEnd(ref("t2"), (said,))])
        assert (await one.store.attend(one.id)).asked == ((ref("t0"), "hush, ann"),)
        kept = [*place.database.tasks.find(), *place.database["tasks.runs"].find()]
        assert "hush" not in repr(kept)
        runs = {run.task_id: run for run in await one.runs()}
        assert [runs[name].message for name in names(2)] == ["hush, page 2", "hush, page 3"]
        assert runs["t2"].result == "hush"
    async with members(place, count=1) as (plain,):
        assert {run.message for run in await plain.runs()} == {None}


async def test_notes_that_somebody_has_spoiled_are_left_out(place: Place) -> None:
    async with members(place, [make_task("a")], count=1) as (one,):
        await fire_all(one)
        for spoiled in ("{", "[" * 100_000, '{"progress": "half", "message": "m"}', "7"):
            place.database.tasks.update_one({}, {"$set": {"active.0.noted": {"notes": spoiled}}})
            (run,) = await one.runs()
            assert (run.progress, run.message) == (None, "m" if "m" in spoiled else None)


# Indexes.


async def test_a_look_reads_no_document_of_what_waits(place: Place) -> None:
    async with members(place, [*map(make_task, names(50))]) as (one, other):
        await fire_all(one)
        await put_off(one, *names(50))
        with_profile(place, 2)
        assert (await other.store.look()).attend_at == LATER
        with_profile(place, 0)
    asked = [*place.database["system.profile"].find({"ns": f"{place.name}.tasks"})]
    assert len(asked) == 3
    of_attempts = [each for each in asked if each["command"].get("returnKey")]
    assert [(each["keysExamined"], each["docsExamined"]) for each in of_attempts] == [(1, 0)]


async def test_attending_reads_what_is_due_only(place: Place) -> None:
    async with members(place, [*map(make_task, names(50))]) as (one, other):
        await fire_all(one)
        await put_off(one, *names(40))
        await put_off(one, *names(50)[40:], until=NOON)
        with_profile(place, 2)
        assert len((await other.store.attend(other.id, limit=4)).taken) == 4
        with_profile(place, 0)
    asked = [*place.database["system.profile"].find({"ns": f"{place.name}.tasks", "op": "query"})]
    assert sum(each["docsExamined"] for each in asked) <= 5


async def test_one_run_among_many_is_found_by_an_index(place: Place) -> None:
    async with members(place, count=1) as (one,):
        moments = [after(number) for number in range(200)]
        place.database["tasks.runs"].insert_many(settled_rows("a", moments))
        with_profile(place, 2)
        moment = moments[77]
        (run,) = await one.store.get_runs(RunQuery("a", since=moment, until=moment))
        (other,) = await one.store.get_runs(RunQuery(since=moment, until=moment))
        assert await one.store.prune_runs("a", SETTLED, 197, NOON) == 3
        with_profile(place, 0)
    assert run == other
    assert run.scheduled_time == moment
    where = {"ns": f"{place.name}.tasks.runs", "op": "query"}
    asked = [*place.database["system.profile"].find(where)]
    assert sorted(each["docsExamined"] for each in asked) == [0, 1, 1, 200]


def settled_rows(task: str, moments: list[datetime]) -> list[dict[str, Any]]:
    """Rows as the store writes them."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    rows = []
    for moment in moments:
        at = (moment - epoch) // timedelta(microseconds=1)
        times = dict.fromkeys(("claimed", "started", "finished", "at"), at)
        who = {"owner": "o", "attempt": 1, "token": 1, "claim": "c", "state": SUCCEEDED.value}
        place = {"task": task, "at": at, "kind": "scheduled", "order": 1}
        rows.append({"_id": place, **times, **who})
    return rows


def with_profile(place: Place, level: int) -> None:
    """Let the server note down what it is asked: 2 all, 0 nothing."""
    place.database.command("profile", level)


async def test_followers_that_were_not_run_are_recorded_with_an_attempt(place: Place) -> None:
    late = Unrun(RunState.MISSED, after(-120), after(-60), 2, "too late")
    async with members(place, [make_task("a")]) as (one, other):
        (task,) = await one.store.get_due_tasks(NOON)
        await one.fire(firing(task, unrun=[late]))
        await put_off(one, "a", until=NOON)
        await other.store.attend(other.id)
        assert [run.state for run in await other.runs()] == [RUNNING, RunState.MISSED]
