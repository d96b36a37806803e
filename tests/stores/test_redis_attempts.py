"""Runs that are tried again, noted on and cancelled on Redis: what the suite cannot know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.stores.cluster import Fired, Node, RunEnd, RunOutcome
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_attempts import LOOKED_AT, PAGE
from asyncz.testing.store_suite_tools import NOON, after, make_task, raises
from tests.services.redis import RedisServer, new_keys

from .redis_tools import keys_of
from .test_redis_runs import (
    KEY,
    LEASE,
    OWN_KEYS,
    clock_of,
    dump_of,
    ended,
    fire_due,
    firing,
    ref,
    shared,
)

Options = dict[str, Any]
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED
SETTLED = frozenset(state for state in RunState if not state.is_open)
SECRET = "canary in a coal mine"  # noqa: S105


NEW = ("waits", "waiting", "asked")


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One that nobody else makes commands on, which are counted."""
    started = RedisServer().start()
    yield started
    started.close()


@pytest.fixture
def own_options(server: RedisServer) -> Iterator[Options]:
    with new_keys(server.url) as made:
        yield made


def waits(*names: str, until: float = 60, token: int = 1, **notes: Any) -> list[RunEnd]:
    """These have failed, and are tried again then."""
    said = RunOutcome(NOON, RETRYING, "ValueError", None, None, notes, after(until))
    return [RunEnd(ref(name, token), (said,)) for name in names]


async def run_of(store: RedisStore, task_id: str) -> Run:
    (run,) = await store.get_runs(RunQuery(task_id, since=NOON, until=NOON))
    return run


def ask(options: Options, *words: Any) -> Any:
    with Redis.from_url(options["url"]) as client:
        return client.execute_command(*words)


async def test_nothing_is_left_of_attempts_marks_and_notes(options: Options) -> None:
    async with shared(options, "one", "other") as (one, other):
        names = ["again", "deleted", "cancelled", "marked", "given back", "pruned"]
        await one.add_tasks([make_task(name) for name in names])
        due = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(90)) for task in due])
        await one.note_runs("one", [(ref(name), {"message": name}) for name in names])
        await one.finish_runs("one", waits("again", "deleted", "cancelled", "pruned"))
        await one.delete_task("deleted")
        assert await one.cancel_run("cancelled", NOON, "ann") is CANCELLED
        for name in ("marked", "given back"):
            assert await one.cancel_run(name, NOON, "ann") is RunState.RUNNING
        await one.release_runs("one", [ref("given back")])
        await one.finish_runs("one", waits("marked"))
        clock_of(one).jump(60)
        taken, asked, gone = await other.attend("other")
        assert sorted(run.ref.task_id for run in taken) == ["again", "marked", "pruned"]
        assert ([at.task_id for at, _ in asked], [at.task_id for at in gone]) == (
            ["marked"],
            ["deleted"],
        )
        assert (await other.reap("other", bury=None, max_attempts=3)).taken != ()
        assert [at.task_id for at, _ in (await other.attend("other")).asked] == [
            "given back",
            "marked",
        ]
        refs = [ref(name, 2) for name in ("again", "marked", "pruned", "given back")]
        assert set(await other.finish_runs("other", ended(*refs))) == {True}
        assert (await one.look()).attend_at is None
        clock_of(one).jump(1)
        assert await one.prune_runs("pruned", SETTLED, 0, NOON) == 1
        for name in set(names) - {"deleted"}:
            await one.delete_task(name)
        for store, name in ((one, "one"), (other, "other")):
            await store.leave_node(name)
        clock_of(one).jump(1)
        assert await one.forget_runs(after(62)) == len(names) - 1
        assert await one.get_runs(RunQuery()) == []
    assert set(keys_of(options)) == OWN_KEYS


async def test_many_that_wait_behind_a_busy_task_are_not_in_the_way_of_others(
    own_options: Options,
) -> None:
    many = 2 * PAGE
    async with shared(own_options, "one") as (one,):
        await one.add_task(make_task("busy", max_instances=many + 1))
        for number in range(many):
            task = await one.lookup_task("busy")
            assert task is not None
            moment = after(number)
            await one.fire("one", f"c{number}", [firing(task, moment, following=after(number + 1))])
        refs = [ref("busy", at=after(number)) for number in range(1, many)]
        again = [
            RunEnd(one_ref, (RunOutcome(one_ref.scheduled_time, RETRYING, retry_at=NOON),))
            for one_ref in refs
        ]
        assert all(await one.finish_runs("one", again))
        task = await one.lookup_task("busy")
        assert task is not None
        task.max_instances = 1
        await one.update_task(task)
        await one.add_task(make_task("free"))
        await one.fire("one", "free", [firing(make_task("free"), following=after(90))])
        await one.finish_runs("one", waits("free", until=1))
        clock_of(one).jump(1)
        commands = calls_of(own_options)
        taken = (await one.attend("one")).taken
        assert [run.ref.task_id for run in taken] == ["free"]
        assert calls_of(own_options) - commands < 50
        assert await one.count_active(["busy", "free"]) == {"busy": 1, "free": 1}
        assert len(await one.get_runs(RunQuery(states=frozenset({RETRYING}), limit=many))) == (
            many - 1
        )


def calls_of(options: Options) -> int:
    """How many commands the server has made, those of scripts included."""
    with Redis.from_url(options["url"]) as client:
        stats = client.info("commandstats")
        return sum(found["calls"] for found in stats.values())


async def test_what_one_look_passes_over_the_next_one_goes_on_behind(options: Options) -> None:
    number = LOOKED_AT + 50
    readable = JSONSerializer(allowed_callables=("asyncz.*",))
    async with shared(options, "seeing", serializer=readable) as (seeing,):
        names = [f"t{index:04}" for index in range(number)]
        await seeing.add_tasks([make_task(name) for name in names])
        due = await seeing.get_due_tasks(NOON)
        await seeing.fire("seeing", "c", [firing(task, following=after(90)) for task in due])
        await seeing.finish_runs("seeing", waits(*names, until=0))
        key = options["tasks_key"]
        broken = dict.fromkeys(names[:-10], "{")
        with Redis.from_url(options["url"]) as client:
            client.hset(key, mapping=broken)
        first = (await seeing.attend("seeing")).taken
        second = (await seeing.attend("seeing")).taken
        assert [run.ref.task_id for run in (*first, *second)] == names[-10:]
        assert (await seeing.attend("seeing")) == ((), (), ())
        with Redis.from_url(options["url"]) as client:
            client.hset(key, names[0], readable.dumps(make_task(names[0])))
        found = [*(await seeing.attend("seeing")).taken, *(await seeing.attend("seeing")).taken]
        assert [run.ref.task_id for run in found] == names[:1]


async def test_a_task_that_ends_while_a_run_of_it_waits_leaves_it_its_record(
    options: Options,
) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a", args=("x",)))
        (task,) = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(30))])
        await one.finish_runs("one", waits("a"))
        (task,) = await one.get_due_tasks(after(30))
        await one.fire("one", "d", [firing(task)])
        await one.finish_runs("one", ended(ref("a", at=after(30))))
        assert await one.get_all_tasks() == []
        clock_of(one).jump(60)
        (taken,) = (await other.attend("other")).taken
        assert taken.task is not None
        assert taken.task.args == ("x",)
        await other.finish_runs("other", ended(taken.ref))
    assert not any(name.endswith(":kept") for name in keys_of(options))


async def test_a_new_task_of_the_id_does_not_touch_the_run_that_waits(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a", args=("old",)))
        await fire_due(one, "one")
        await one.finish_runs("one", waits("a"))
        clock_of(one).jump(1)
        await one.add_task(make_task("a", args=("new",)))
        _, fired = await fire_due(one, "one", "d")
        assert fired == {Fired.REPEATED}
        assert (await run_of(one, "a")).state is RETRYING
        clock_of(one).jump(60)
        (taken,) = (await one.attend("one")).taken
        assert taken.task is not None
        assert taken.task.args == ("old",)


async def test_no_history_that_is_shortened_loses_a_run_that_waits(options: Options) -> None:
    async with shared(options, "one") as (one,):
        once: dict[str, Any] = {"delivery": "at_most_once"}
        await one.add_tasks([make_task("a"), make_task("late", **once)])
        await fire_due(one, "one")
        await one.finish_runs("one", waits("a"))
        # Lost, as somebody has it; tried again, as its owner says: at the very time it was lost.
        await one.finish_runs("one", ended(ref("late"), state=RunState.LOST))
        assert await one.finish_runs("one", waits("late", until=0)) == [True]
        every = frozenset(RunState)
        for name in ("a", "late"):
            assert await one.prune_runs(name, every, 0, after(9_999)) == 0
        clock_of(one).jump(9_999)
        assert await one.forget_runs(after(9_999)) == 0
        assert {run.state for run in await one.get_runs(RunQuery())} == {RETRYING}


async def test_a_history_is_shortened_in_parts(options: Options) -> None:
    many = 600
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a", max_instances=many))
        task = await one.lookup_task("a")
        assert task is not None
        times = [after(number) for number in range(many)]
        await one.fire("one", "c", [firing(task, *times, following=after(9_999))])
        outcomes = tuple(
            RunOutcome(at, RunState.FAILED if number % 2 else RunState.SUCCEEDED)
            for number, at in enumerate(times)
        )
        await one.finish_runs("one", [RunEnd(ref("a"), outcomes)])
        failed = frozenset({RunState.FAILED})
        assert await one.prune_runs("a", failed, 10, NOON, limit=280) == 280
        assert await one.prune_runs("a", failed, 10, NOON) == 10
        found = await one.get_runs(RunQuery("a", limit=many))
        assert sum(run.state is RunState.FAILED for run in found) == 10
        assert len(found) == many // 2 + 10
        assert found[0].scheduled_time == times[-1]


async def test_what_is_noted_of_runs_is_encrypted_with_the_records(options: Options) -> None:
    notes: dict[str, Any] = {"message": SECRET, "log": [SECRET], "result": {SECRET: SECRET}}
    async with shared(options, "one", serializer=EncryptedSerializer(KEY)) as (one,):
        await one.add_tasks([make_task(name) for name in ("a", "b", "c")])
        await fire_due(one, "one")
        await one.note_runs("one", [(ref(name), notes) for name in ("a", "b")])
        await one.finish_runs("one", waits("b", "c", **notes))
        await one.cancel_run("a", NOON, SECRET)
        assert await one.cancel_run("c", NOON, SECRET) is CANCELLED
        assert SECRET.encode() not in dump_of(options)
        assert b"it was cancelled by" not in dump_of(options)
        for name in ("a", "b"):
            run = await run_of(one, name)
            assert (run.message, run.log, run.result) == (SECRET, (SECRET,), {SECRET: SECRET})
        assert (await one.attend("one")).asked == ((ref("a"), SECRET),)
        assert SECRET in str((await run_of(one, "c")).reason)
    other_key = EncryptedSerializer(KEY + " of somebody else's")
    async with shared(options, "blind", serializer=other_key) as (blind,):
        assert (await run_of(blind, "a")).message is None
    async with shared(options, "one", serializer=EncryptedSerializer(KEY)) as (one,):
        await one.finish_runs("one", ended(ref("a")))
        run = await run_of(one, "a")
        assert (run.message, run.state) == (None, RunState.SUCCEEDED)


async def test_what_follows_does_not_say_what_its_head_notes(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a", after(-60)))
        (task,) = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, after(-60), NOON)])
        await one.note_runs("one", [(ref("a", at=after(-60)), {"message": "begun"})])
        for wanted in (RunQuery(), RunQuery(states=frozenset({RunState.QUEUED, RunState.RUNNING}))):
            assert [run.message for run in await one.get_runs(wanted)] == [None, "begun"]
        last = await one.get_last_runs(["a"])
        assert (last["a"].message, last["a"].state) == (None, RunState.QUEUED)


async def test_notes_and_the_error_before_them_are_shown_together(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a"))
        await fire_due(one, "one")
        await one.finish_runs("one", waits("a", until=0, message="first"))
        (taken,) = (await one.attend("one")).taken
        run = await run_of(one, "a")
        assert (run.error, run.message) == ("ValueError", "first")
        await one.note_runs("one", [(taken.ref, {"progress": 0.5})])
        run = await run_of(one, "a")
        assert (run.error, run.message, run.progress) == ("ValueError", None, 0.5)


async def test_a_run_that_is_given_back_is_not_abandoned_for_its_attempts(
    options: Options,
) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a"))
        await fire_due(one, "one")
        token = 1
        for _ in range(12):
            await one.finish_runs("one", waits("a", until=0, token=token))
            (taken,) = (await one.attend("one")).taken
            token = taken.ref.token
        assert taken.attempt == 13
        await one.release_runs("one", [taken.ref])
        (taken,) = (await other.reap("other", bury=None, max_attempts=2)).taken
        assert taken.attempt == 13
        await other.leave_node("other")
        assert len((await one.reap("one", bury=None, max_attempts=2)).taken) == 1
        await one.leave_node("one")
        await one.join_node(Node("third", "third", "here", 1), LEASE)
        _, _, ((_, state),) = await one.reap("third", bury=None, max_attempts=2)
        assert state is RunState.ABANDONED
        run = await run_of(one, "a")
        assert (run.attempt, run.state) == (14, RunState.ABANDONED)


# The layout before.


async def test_runs_of_the_layout_before_go_on_and_are_tried_again(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_tasks([make_task("a"), make_task("b")])
        due = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(90)) for task in due])
        await one.finish_runs("one", ended(ref("b"), state=RunState.FAILED))
        # Values without anything more are those of layout 1, which had no other keys.
        assert ask(options, "EXISTS", *(f"{options['tasks_key']}:runs:{k}" for k in NEW)) == 0
        ask(options, "HSET", f"{options['tasks_key']}:meta", "version", "1")
    async with shared(options, "other") as (other,):
        version = ask(options, "HGET", f"{options['tasks_key']}:meta", "version")
        assert version == b"2"
        assert (await other.look()).attend_at is None
        assert (await run_of(other, "b")).state is RunState.FAILED
        assert await other.note_runs("one", [(ref("a"), {"message": "m"})]) == [True]
        assert await other.finish_runs("one", waits("a", until=0)) == [True]
        (taken,) = (await other.attend("other")).taken
        assert taken.ref == ref("a", 2)


async def test_failures_that_an_older_release_has_written_are_found(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_tasks([make_task("a"), make_task("b")])
        await fire_due(one, "one")
        await one.finish_runs("one", ended(ref("b"), state=RunState.FAILED))
        # As it would be on a server whose first release knew of no such set.
        ask(options, "HDEL", f"{options['tasks_key']}:meta", "unlucky")
        ask(options, "DEL", f"{options['tasks_key']}:runs:unlucky")
        for task_id in (None, "b"):
            failed = frozenset({RunState.FAILED, RunState.LOST})
            (run,) = await one.get_runs(RunQuery(task_id, failed))
            assert (run.task_id, run.state) == ("b", RunState.FAILED)


async def test_what_an_older_release_that_still_runs_has_ended_is_read(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_tasks([make_task("a"), make_task("b")])
        await fire_due(one, "one")
        await one.note_runs("one", [(ref("a"), {"message": "m"})])
        await one.cancel_run("b", NOON, "ann")
        key = f"{options['tasks_key']}:runs"
        with Redis.from_url(options["url"]) as client:
            for ident, value in client.hgetall(key).items():
                # It keeps the letter of the delivery, and puts its text where there is more.
                text = b'{"e":"by hand"}' if b"a" in ident[19:] else b""
                head = b"s" + value[1:56] + value[18:37] + value[75:105]
                client.hset(key, ident, head + text)
                client.zrem(f"{key}:owned", b"00000003one" + ident)
        assert (await run_of(one, "a")).error == "by hand"
        assert (await run_of(one, "b")).state is RunState.SUCCEEDED
        # The mark it knows nothing of is taken away by whoever comes across it.
        assert (await one.look()).attend_at is not None
        assert (await one.attend("one")).asked == ()
        assert (await one.look()).attend_at is None


@pytest.mark.parametrize("name", NEW)
async def test_nothing_is_changed_where_a_key_is_somebody_elses(
    options: Options, name: str
) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a"))
        await fire_due(one, "one")
        key = f"{options['tasks_key']}:runs:{name}"
        ask(options, "SET", key, "mine")
        with raises(StoreError, "'tasks'", "WRONGTYPE"):
            await one.finish_runs("one", waits("a"))
        ask(options, "DEL", key)
        assert await one.count_active(["a"]) == {"a": 1}
        assert await one.finish_runs("one", waits("a")) == [True]
        assert await one.count_active(["a"]) == {"a": 0}


# Indexes.


async def test_one_run_among_many_is_found_by_few_commands(own_options: Options) -> None:
    many = 1_500
    async with shared(own_options, "one") as (one,):
        task = make_task("a")
        await one.add_task(task)
        times = [after(number) for number in range(many)]
        await one.fire("one", "a", [firing(task, *times, following=after(9_999))])
        outcomes = tuple(RunOutcome(at, RunState.SUCCEEDED) for at in times)
        await one.finish_runs("one", [RunEnd(ref("a"), outcomes)])
        for wanted, number in (
            (RunQuery("a", since=after(7), until=after(7)), 1),
            (RunQuery(since=after(7), until=after(7)), 1),
            (RunQuery("a", limit=50), 50),
            (RunQuery(limit=50), 50),
        ):
            before = calls_of(own_options)
            assert len(await one.get_runs(wanted)) == number
            assert calls_of(own_options) - before <= 6
