"""What a Redis store does about runs beyond the suite: parts, leftovers, secrets, earlier data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import RunQuery
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Node,
    RunEnd,
    RunOutcome,
    RunRef,
    Unrun,
)
from asyncz.stores.redis import RedisStore
from asyncz.stores.redis_runs import ROWS
from asyncz.tasks.base import Task
from asyncz.testing.clock import VirtualClock
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task, raises
from tests.services.redis import new_keys

from .redis_tools import keys_of

Options = dict[str, Any]
LEASE = 30.0
OWN_KEYS = {".run_times:of", ".tasks:meta"}
"""What a store without tasks, runs and nodes keeps."""
KEY = "a key for the tests, long enough for that"
MANY = 2 * ROWS + 90


@pytest.fixture
def options() -> Iterator[Options]:
    with new_keys() as made:
        yield made


@asynccontextmanager
async def shared(options: Options, *names: str, **more: Any) -> AsyncIterator[list[RedisStore]]:
    """Stores on the same keys; each is a node of that name."""
    host = SuiteHost(clock=VirtualClock(NOON))
    stores = [RedisStore(**options, **more) for _ in names]
    for store, name in zip(stores, names, strict=True):
        await store.start(host, "tasks")
        await store.join_node(Node(name, name, "here", 1), LEASE)
    try:
        yield stores
    finally:
        for store in stores:
            await store.shutdown()


def firing(task: Task, *times: datetime, following: datetime | None = None) -> Firing:
    """Run a task, now or at these times; it is forgotten unless it is due again."""
    due = task.next_run_time
    moments = times or (due or NOON,)
    return Firing(task, due, following, following is None, RunKind.SCHEDULED, moments)


def ref(task_id: str, token: int = 1, at: datetime = NOON) -> RunRef:
    return RunRef(task_id, RunKind.SCHEDULED, at, token)


def ended(*refs: RunRef, state: RunState = RunState.SUCCEEDED) -> list[RunEnd]:
    return [RunEnd(ref, (RunOutcome(ref.scheduled_time, state),)) for ref in refs]


async def fire_due(store: RedisStore, node: str, claim: str = "c") -> tuple[list[Task], set[Fired]]:
    due = await store.get_due_tasks(NOON)
    return due, set(await store.fire(node, claim, [firing(task) for task in due]))


async def states(store: RedisStore, **wanted: Any) -> dict[str, RunState]:
    return {run.task_id: run.state for run in await store.get_runs(RunQuery(**wanted))}


def clock_of(store: RedisStore) -> VirtualClock:
    assert isinstance(store.host.clock, VirtualClock)
    return store.host.clock


async def test_nothing_is_left_of_tasks_runs_and_nodes_that_are_gone(options: Options) -> None:
    once: dict[str, Any] = {"delivery": Delivery.AT_MOST_ONCE}
    async with shared(options, "one", "other", "third") as (one, other, third):
        await one.add_tasks([make_task(f"t{number}") for number in range(20)])
        await one.add_tasks([make_task("once", **once), make_task("many", after(-60), **once)])
        missed = Unrun(RunState.MISSED, after(-180), after(-120), 2, "late")
        firings = [firing(task) for task in await one.get_due_tasks(NOON) if task.id != "many"]
        (many,) = await one.get_due_tasks(after(-60))
        firings.append(firing(many, after(-60), NOON)._replace(unrun=(missed,)))
        assert set(await one.fire("one", "c", firings)) == {Fired.WON}
        await one.start_runs("one", [ref("once"), ref("many", at=after(-60))])
        assert all(await one.finish_runs("one", ended(*(ref(f"t{n}") for n in range(5)))))
        await one.release_runs("one", [ref("t5"), ref("t6")])
        await one.leave_node("one")
        reaped = await other.reap("other", bury=clock_of(one).now(), max_attempts=3)
        assert {state for _, state in reaped.ended} == {RunState.LOST}
        assert await one.finish_runs("one", ended(ref("many", at=after(-60)))) == [True]
        await other.release_runs("other", [run.ref for run in reaped.taken])
        ended_runs = await third.reap("third", bury=clock_of(one).now(), max_attempts=1)
        assert {state for _, state in ended_runs.ended} <= {RunState.ABANDONED, RunState.CANCELLED}
        await third.finish_runs("third", ended(*(run.ref for run in ended_runs.taken)))
        assert (await third.look()).has_unowned is False
        clock_of(one).jump(100)
        assert await other.reap("other", bury=clock_of(one).now(), max_attempts=3) == (
            ("third",),
            (),
            (),
        )
        await other.leave_node("other")
        await one.forget_runs(after(101))
        assert await one.get_runs(RunQuery()) == []
        assert await one.get_nodes() == []
    assert set(keys_of(options)) == OWN_KEYS


async def test_nothing_is_left_of_a_history_that_is_kept_short(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a"))
        missed = Unrun(RunState.MISSED, after(-180), after(-180), 1, "late")
        (task,) = await one.get_due_tasks(NOON)
        assert await one.fire("one", "c", [firing(task)._replace(unrun=(missed,))]) == [Fired.WON]
        assert await one.finish_runs("one", ended(ref("a"))) == [True]
        settled = frozenset({RunState.SUCCEEDED, RunState.MISSED})
        assert await one.prune_runs("a", settled, 0, NOON) == 2
        assert not [key for key in keys_of(options) if ":runs" in key]


async def test_many_are_claimed_and_finished_in_parts(options: Options) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_tasks([make_task(f"t{number:04}") for number in range(MANY)])
        due, fired = await fire_due(one, "one")
        assert (len(due), fired) == (MANY, {Fired.WON})
        assert set(await one.fire("one", "c", [firing(task) for task in due])) == {Fired.WON}
        assert set(await one.fire("one", "d", [firing(task) for task in due])) == {Fired.LOST}
        assert len(await one.get_own_runs("one")) == MANY
        counts = await other.count_active([str(task.id) for task in due])
        assert set(counts.values()) == {1}
        assert len(counts) == MANY
        found = await other.get_runs(RunQuery(limit=MANY))
        assert len({run.task_id for run in found}) == MANY
        refs = [ref(str(task.id)) for task in due]
        assert set(await one.finish_runs("one", ended(*refs))) == {True}
        assert set(await one.finish_runs("one", ended(*refs))) == {True}
        clock_of(one).jump(1)
        assert await other.forget_runs(after(1), limit=MANY - 10) == MANY - 10
        assert await other.forget_runs(after(1), limit=MANY) == 10


async def test_one_run_may_stand_for_more_times_than_fit_in_a_part(options: Options) -> None:
    times = [NOON + timedelta(seconds=second) for second in range(MANY)]
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a"))
        (task,) = await one.get_due_tasks(NOON)
        assert await one.fire("one", "c", [firing(task, *times)]) == [Fired.WON]
        await one.leave_node("one")
        (taken,) = (await other.reap("other", bury=None, max_attempts=3)).taken
        assert taken.run_times == tuple(times)
        outcomes = tuple(RunOutcome(time, RunState.SUCCEEDED) for time in times)
        assert await other.finish_runs("other", [RunEnd(taken.ref, outcomes)]) == [True]
        found = await other.get_runs(RunQuery(task_id="a", limit=2 * MANY))
        assert [run.scheduled_time for run in found] == times[::-1]
        assert {run.state for run in found} == {RunState.SUCCEEDED}


async def test_open_runs_are_found_among_many_settled_ones(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_tasks([make_task(f"t{number:04}") for number in range(MANY)])
        due, _ = await fire_due(one, "one")
        await one.finish_runs("one", ended(*(ref(str(task.id)) for task in due[3:])))
        is_open = frozenset({RunState.RUNNING, RunState.CLAIMED, RunState.QUEUED})
        assert sorted(await states(one, states=is_open)) == [str(task.id) for task in due[:3]]
        assert list(await states(one, states=is_open, task_id="t0001")) == ["t0001"]
        running = frozenset({RunState.RUNNING, RunState.FAILED})
        assert len(await states(one, states=running)) == 3


async def test_a_run_whose_task_is_forgotten_by_a_later_one_is_taken_over_as_it_was(
    options: Options,
) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a", args=("x",), max_instances=2))
        (task,) = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(60))])
        (task,) = await one.get_due_tasks(after(60))
        await one.fire("one", "d", [firing(task)])
        await one.leave_node("one")
        reaped = await other.reap("other", bury=None, max_attempts=3)
        assert [run.task and run.task.args for run in reaped.taken] == [("x",), ("x",)]
        assert [run.ref.scheduled_time for run in reaped.taken] == [NOON, after(60)]


async def test_the_run_of_an_earlier_task_of_the_id_is_neither_mixed_up_nor_lost(
    options: Options,
) -> None:
    async with shared(options, "one", "other") as (one, other):
        for args in (("first",), ("second",), ("third",)):
            clock_of(one).jump(1)
            await one.add_task(make_task("a", args=args))
            _, fired = await fire_due(one, "one", args[0])
            assert fired == {Fired.WON}
            if args != ("third",):
                state = RunState.FAILED if args == ("first",) else RunState.LOST
                assert await one.finish_runs("one", ended(ref("a"), state=state)) == [True]
        found = await one.get_runs(RunQuery(task_id="a"))
        assert sorted(run.state for run in found) == ["failed", "lost", "running"]
        assert {run.task_id for run in found} == {"a"}
        await one.leave_node("one")
        (taken,) = (await other.reap("other", bury=None, max_attempts=3)).taken
        assert taken.task is not None
        assert taken.task.args == ("third",)
        await other.finish_runs("other", ended(taken.ref))
        clock_of(one).jump(1)
        assert await other.forget_runs(after(60)) == 3
        assert await other.get_runs(RunQuery()) == []


async def test_the_run_of_a_deleted_task_is_not_carried_out_with_another_task_of_its_id(
    options: Options,
) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a"))
        (task,) = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(60))])
        await one.delete_task("a")
        clock_of(one).jump(1)
        await one.add_task(make_task("a", after(90)))
        await one.leave_node("one")
        reaped = await other.reap("other", bury=None, max_attempts=3)
        assert [state for _, state in reaped.ended] == [RunState.CANCELLED]
        (run,) = await other.get_runs(RunQuery())
        assert (run.state, run.reason) == (RunState.CANCELLED, "its task was deleted")


async def test_times_that_were_run_are_not_run_again_as_those_that_follow(
    options: Options,
) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a"))
        (task,) = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(task, following=after(60))])
        await one.finish_runs("one", ended(ref("a")))
        stored = await one.lookup_task("a")
        assert stored is not None
        again = firing(stored, after(-60), NOON, following=after(120))
        assert await one.fire("one", "d", [again]) == [Fired.REPEATED]
        found = {run.scheduled_time: run.state for run in await one.get_runs(RunQuery())}
        assert found == {NOON: RunState.SUCCEEDED, after(-60): RunState.SKIPPED}


async def test_what_cannot_be_read_here_is_left_to_others(options: Options) -> None:
    readable = JSONSerializer(allowed_callables=("asyncz.*",))
    async with shared(options, "one", serializer=readable) as (one,):
        await one.add_tasks([make_task(f"t{number}") for number in range(5)])
        await fire_due(one, "one")
        await one.leave_node("one")
        async with shared(options, "blind", allowed_callables=("elsewhere:*",)) as (blind,):
            reaped = await blind.reap("blind", bury=(await blind.look()).now, max_attempts=3)
            assert (reaped.taken, reaped.ended) == ((), ())
            assert (await blind.look()).has_unowned is True
        async with shared(options, "seeing", serializer=readable) as (seeing,):
            reaped = await seeing.reap(
                "seeing", bury=(await seeing.look()).now, max_attempts=3, limit=3
            )
            assert [run.ref.task_id for run in reaped.taken] == ["t0", "t1", "t2"]
            reaped = await seeing.reap(
                "seeing", bury=(await seeing.look()).now, max_attempts=3, limit=3
            )
            assert [run.ref.task_id for run in reaped.taken] == ["t3", "t4"]


async def test_what_is_said_of_runs_is_encrypted_with_the_records(options: Options) -> None:
    secret = "canary in a coal mine"  # noqa: S105
    said = RunOutcome(NOON, RunState.FAILED, secret, secret, secret)
    unrun = Unrun(RunState.MISSED, after(-60), after(-30), 2, secret)
    encrypted = {"serializer": EncryptedSerializer(KEY)}
    async with shared(options, "one", **encrypted) as (one,):
        await one.add_tasks([make_task("a", args=(secret,)), make_task("b")])
        a, b = await one.get_due_tasks(NOON)
        await one.fire("one", "c", [firing(a), firing(b)._replace(unrun=(unrun,))])
        await one.finish_runs("one", [RunEnd(ref("a"), (said,))])
        assert secret.encode() not in dump_of(options)
        (run,) = await one.get_runs(RunQuery(task_id="a"))
        assert (run.error, run.traceback, run.reason) == (secret, secret, secret)
        (_, run) = await one.get_runs(RunQuery(task_id="b"))
        assert (run.reason, run.occurrences, run.last_scheduled_time) == (secret, 2, after(-30))
        move_text(options, "a", "b")
        (run, _) = await one.get_runs(RunQuery(task_id="b"))
        assert run.error is None
    other_key = EncryptedSerializer("another key for the tests, as long as that")
    async with shared(options, "other", serializer=other_key) as (other,):
        (run,) = await other.get_runs(RunQuery(task_id="a"))
        assert (run.state, run.error) == (RunState.FAILED, None)


def dump_of(options: Options) -> bytes:
    """All that is on the server for these options."""
    name = options["tasks_key"].removesuffix(".tasks")
    with Redis.from_url(options["url"]) as client:
        keys = list(client.scan_iter(f"{name}*", count=1_000))
        hashes = [client.hgetall(key) for key in keys if client.type(key) == b"hash"]
        return b"".join(text for found in hashes for pair in found.items() for text in pair)


def move_text(options: Options, source: str, target: str) -> None:
    """Give the run of one task what is said of another's, as somebody with a mind to it might."""
    key = f"{options['tasks_key']}:runs"
    with Redis.from_url(options["url"]) as client:
        found = client.hgetall(key)
        by_task = {ident[19:-1]: ident for ident, value in found.items() if value[:1] in b"rf"}
        text = found[by_task[source.encode()]].split(b'{"x"')[1]
        ident = by_task[target.encode()]
        client.hset(key, ident, found[ident] + b'{"x"' + text)


async def test_a_store_that_an_older_release_has_filled_is_shared_as_it_is(
    options: Options,
) -> None:
    record = JSONSerializer().dumps(make_task("a"))
    place = b"%019d:%018d:" % (1_930_478_400_250_001, 1_700_000_000_000_000)
    with Redis.from_url(options["url"]) as client:
        tasks, times = options["tasks_key"], options["run_times_key"]
        client.hset(tasks, "a", record)
        client.hset(f"{tasks}:places", "a", place + b"a\nb\n\n\n\n\n\n")
        client.zadd(times, {place + b"a": 0})
        client.hset(f"{tasks}:meta", mapping={"version": 1, "run_times": times})
        client.set(f"{times}:of", tasks)
    async with shared(options, "one", "other") as (one, other):
        (task,) = await one.get_due_tasks(NOON)
        looked = await one.look()
        assert (looked.next_run_time, looked.has_unowned) == (task.next_run_time, False)
        assert await one.count_active(["a"]) == {"a": 0}
        assert await one.get_runs(RunQuery()) == []
        assert await one.fire("one", "c", [firing(task)]) == [Fired.WON]
        await one.leave_node("one")
        (taken,) = (await other.reap("other", bury=None, max_attempts=3)).taken
        assert await other.finish_runs("other", ended(taken.ref)) == [True]


@pytest.mark.parametrize("name", ["runs", "runs:time", "runs:owned", "runs:active"])
async def test_a_claim_changes_nothing_where_a_key_is_somebody_elses(
    options: Options, name: str
) -> None:
    async with shared(options, "one") as (one,):
        await one.add_task(make_task("a"))
        with Redis.from_url(options["url"]) as client:
            key = f"{options['tasks_key']}:{name}"
            client.set(key, "mine")
            with raises(StoreError, "'tasks'", "WRONGTYPE"):
                await fire_due(one, "one")
            client.delete(key)
        _, fired = await fire_due(one, "one", "d")
        assert fired == {Fired.WON}


async def test_a_record_that_is_known_not_to_be_readable_is_not_moved_on(options: Options) -> None:
    async with shared(options, "one") as (one,):
        await one.add_tasks([make_task("a"), make_task("b")])
        due = await one.get_due_tasks(NOON)
        with Redis.from_url(options["url"]) as client:
            client.hset(options["tasks_key"], "a", "{")
        assert await one.lookup_task("a") is None
        firings = [firing(task) for task in due]
        assert await one.fire("one", "c", firings) == [Fired.LOST, Fired.WON]


async def test_nodes_are_forgotten_once_they_own_nothing(options: Options) -> None:
    async with shared(options, "one", "other") as (one, other):
        await one.add_task(make_task("a"))
        await fire_due(one, "one")
        await one.leave_node("one")
        clock_of(one).jump(10)
        await other.renew_node("other", LEASE, 0)
        await other.forget_runs(after(5))
        assert [node.state for node in await other.get_nodes()] == [
            NodeState.LEFT,
            NodeState.ALIVE,
        ]
        await other.reap("other", bury=None, max_attempts=3)
        await other.forget_runs(after(5))
        assert [node.node.id for node in await other.get_nodes()] == ["other"]


async def test_the_servers_clock_is_asked_where_the_hosts_is_the_systems(options: Options) -> None:
    store = RedisStore(**options)
    await store.start(SuiteHost(), "tasks")
    try:
        await store.join_node(Node("one", "one", "here", 1), LEASE)
        looked = await store.look()
        (node,) = await store.get_nodes()
        assert node.joined_at <= looked.now
        assert looked.now - node.joined_at < timedelta(seconds=10)
        assert node.lease_until - node.joined_at == timedelta(seconds=LEASE)
    finally:
        await store.shutdown()
