"""What outlives the process: restarts, argument types, and records that cannot be read."""

# ruff: noqa: S101  # these are tests

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from asyncz.exceptions import ConflictIdError, SerializationError, TransientTaskError
from asyncz.stores.base import BaseStore, TaskAdvance
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery
from asyncz.testing.store_suite_basics import SuiteBase
from asyncz.testing.store_suite_tools import NOON, after, cases, ids_of, make_task, raises

__all__ = ["Color", "OutlivingTheProcess", "Parcel", "ship"]


class Color(Enum):
    """An argument of the suite's tasks."""

    RED = "red"


class Parcel(BaseModel):
    """Another."""

    number: int
    color: Color = Color.RED


def ship(parcel: Parcel, color: Color = Color.RED, *more: Parcel) -> None:
    """A callable whose annotations say how to bring its arguments back."""


VALUES = {
    "integers": [0, -1, 2**63, -(2**200), 10**4000],
    "floats": [0.1, -0.0, 1e300, float("inf"), -float("inf")],
    "texts": ["", "\0", "🕐", "\ud800", "\ud83d" + "\ude00"],
    "naive datetime": datetime(2031, 1, 2, 3, 4, 5, 6),
    "datetime in a zone": datetime(2031, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "datetime at an offset": datetime(2031, 1, 2, tzinfo=timezone(timedelta(hours=-3))),
    "datetime in UTC": datetime(2031, 1, 2, tzinfo=UTC),
    "date and time": [date(2031, 1, 2), time(3, 4, 5, 6), time(1, tzinfo=UTC)],
    "timedelta": [timedelta(-1, 2, 3), timedelta.max],
    "uuid": UUID("12345678123456781234567812345678"),
    "decimal": [Decimal("1.10"), Decimal("-0"), Decimal("1E+100")],
    "bytes": [b"", bytes(range(256))],
    "tuples": ((), (1, (2, [3, (4,)]))),
    "sets": [set(), {1, 2}, frozenset({(1, "a"), (2, "b")})],
    "dictionaries": {"a": {1: "x", None: "y", (1, 2): "z"}, "": {}},
    "what looks like a tag": {"$": "datetime", "v": "2031-01-01"},
}

ONE_ARGUMENT = "asyncz.testing.store_suite_persistence:take_one"


def take_one(value: Any) -> None:
    """A callable with one argument."""


def dumps_of(tasks: list[Task]) -> list[dict[str, Any]]:
    """All that can be seen of tasks."""
    return [task.model_dump(exclude={"scheduler"}) for task in tasks]


def changed(record: dict[str, Any], **values: Any) -> bytes:
    """The bytes of a record with some other values."""
    return json.dumps({**record, **values}).encode()


SPOILT: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda record: b"",
    "garbage": lambda record: b"\x80\x04\x95garbage\xff",
    "cut off": lambda record: json.dumps(record).encode()[:-20],
    "not an object": lambda record: b"[1, 2]",
    "nested too deeply": lambda record: b"[" * 100_000,
    "another version": lambda record: changed(record, v=99),
    "a missing module": lambda record: changed(record, fn="no_such_mod:f"),
    "a missing function": lambda record: changed(record, fn="asyncz:no_such"),
    "a forbidden function": lambda record: changed(record, fn="os:getcwd"),
    "an unknown trigger": lambda record: changed(record, trigger={"type": "x"}),
    "a bad trigger": lambda record: changed(record, trigger={"type": "interval", "days": "x"}),
    "wrong types": lambda record: changed(record, args=5, next_run_time="x"),
    "a run time out of range": lambda record: changed(record, next_run_time=10**30),
    "arguments that do not fit": lambda record: changed(record, fn=ONE_ARGUMENT, args=[1, 2]),
    "an unknown tag": lambda record: changed(record, args=[{"$": "os.system", "v": "x"}]),
    "a wrong option": lambda record: changed(record, max_instances=0),
}


class OutlivingTheProcess(SuiteBase):
    """For persistent stores."""

    async def reopen(self, store: BaseStore) -> BaseStore:
        """Another store object on the same tasks, not started; `store` was shut down."""
        raise NotImplementedError(f"{type(self).__name__} must write `reopen(self, store)`.")

    async def read_record(self, store: BaseStore, task_id: str) -> bytes:
        """The bytes that are stored for a task, decrypted."""
        raise NotImplementedError(f"{type(self).__name__} must write `read_record`.")

    async def write_record(self, store: BaseStore, task_id: str, data: bytes) -> None:
        """Put other bytes in their place, behind the store's back."""
        raise NotImplementedError(f"{type(self).__name__} must write `write_record`.")

    async def test_tasks_survive_a_restart(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("z", name="first", args=(1,), kwargs={"b": "c"}))
            await store.add_task(make_task("paused", None))
            await store.add_task(make_task("a", max_instances=2))
            before = [
                task.model_dump(exclude={"scheduler"}) for task in await store.get_all_tasks()
            ]
        async with self.running(await self.reopen(store)) as store:
            found = await store.get_all_tasks()
            assert dumps_of(found) == before
            assert ids_of(found) == ["z", "a", "paused"]
            assert await store.get_next_run_time() == NOON

    async def test_steps_and_deletions_survive_a_restart(self) -> None:
        async with self.running() as store:
            for name in "abc":
                await store.add_task(make_task(name))
            done, moved, _ = await store.get_due_tasks(NOON)
            steps = [TaskAdvance(done, NOON, None), TaskAdvance(moved, NOON, after(1, 1))]
            assert await store.advance_tasks(steps) == [True, True]
            await store.delete_task("c")
        async with self.running(await self.reopen(store)) as store:
            assert ids_of(await store.get_all_tasks()) == ["b"]
            assert await store.get_next_run_time() == after(1, 1)

    async def test_tasks_added_after_a_restart_come_after_those_before(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("z"))
        async with self.running(await self.reopen(store)) as store:
            await store.add_task(make_task("a"))
            assert ids_of(await store.get_due_tasks(NOON)) == ["z", "a"]

    async def test_tasks_belong_to_the_scheduler_that_started_the_store(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a"))
            found = await store.lookup_task("a")
        assert found.scheduler is self.host
        assert found.store_alias == store.alias
        assert (found.pending, found.submitted) == (False, True)

    async def test_changing_what_was_handed_out_changes_nothing_here(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=([1],)))
            for found in (await store.lookup_task("a"), *await store.get_due_tasks(NOON)):
                found.args[0].append(2)
                found.next_run_time = None
            (found,) = await store.get_all_tasks()
        assert (found.args, found.next_run_time) == (([1],), NOON)

    @cases(**VALUES)
    async def test_an_argument_comes_back_as_it_was(self, case: Any) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=(case,), kwargs={"value": case}))
            found = await store.lookup_task("a")
        assert found.args == (case,)
        assert repr((found.args[0], found.kwargs)) == repr((case, {"value": case}))

    async def test_models_come_back_by_the_annotations_of_the_callable(self) -> None:
        args = (Parcel(number=1), Color.RED, Parcel(number=2))
        async with self.running() as store:
            await store.add_task(make_task("a", fn=ship, args=args))
            assert (await store.lookup_task("a")).args == args

    @cases(positional=((1, object()), {}, "args[1]"), named=((), {"conn": object()}, "'conn'"))
    async def test_an_argument_that_cannot_be_kept_is_refused_by_its_name(self, case: Any) -> None:
        args, kwargs, place = case
        async with self.running() as store:
            with raises(SerializationError, "'a'", place):
                await store.add_task(make_task("a", args=args, kwargs=kwargs))
            assert await store.get_all_tasks() == []

    async def test_a_callable_without_a_name_is_refused(self) -> None:
        async with self.running() as store:
            with raises(TransientTaskError, "'a'"):
                await store.add_task(make_task("a", fn=lambda: None))
            assert await store.get_all_tasks() == []

    @cases(builtin=print, module_function=json.dumps)
    async def test_a_callable_of_the_standard_library_is_refused(self, case: Any) -> None:
        async with self.running() as store:
            with raises(SerializationError, "allowed_callables"):
                await store.add_task(make_task("a", fn=case, args=("x",)))

    async def test_a_refused_update_leaves_the_task(self) -> None:
        async with self.running() as store:
            await store.add_task(make_task("a", args=(1,)))
            with raises(SerializationError):
                await store.update_task(make_task("a", args=(object(),)))
            assert (await store.lookup_task("a")).args == (1,)

    @cases(half_a_pair="\ud800")
    async def test_an_id_that_is_no_text_is_refused(self, case: str) -> None:
        async with self.running() as store:
            with raises(ValueError, "task id"):
                store.check_task_id(case)
            assert await store.lookup_task(case) is None

    @cases(**SPOILT)
    async def test_a_record_that_cannot_be_read_is_quarantined(self, case: Any) -> None:
        async with self.running() as store:
            good = await self.spoil(store, case)
            assert ids_of(await store.get_all_tasks()) == ["other"]
            assert ids_of(await store.get_due_tasks(after(9))) == ["other"]
            assert await store.get_next_run_time() == after(1)
            assert await store.lookup_task("a") is None
            (kept,) = await store.get_quarantined_tasks()
            assert (kept.task_id, bool(kept.error)) == ("a", True)
            assert await self.read_record(store, "a") != good

    @cases(**SPOILT)
    async def test_a_quarantined_record_keeps_its_id_and_is_never_stepped(self, case: Any) -> None:
        async with self.running() as store:
            await self.spoil(store, case)
            spoilt = await self.read_record(store, "a")
            with raises(ConflictIdError, "'a'"):
                await store.add_task(make_task("a"))
            assert await store.advance_tasks([TaskAdvance(make_task("a"), NOON, None)]) == [False]
            assert await self.read_record(store, "a") == spoilt

    async def test_what_cannot_be_read_is_found_and_counted(self) -> None:
        async with self.running() as store:
            await self.spoil(store, SPOILT["a missing function"])
            everything = await store.find_tasks(TaskQuery(limit=5))
            unreadable = await store.find_tasks(TaskQuery("quarantined", limit=5))
            assert {str(info.id) for info in everything.infos} == {"a", "other"}
            assert [info.id for info in unreadable.infos] == ["a"]
            assert "no_such" in unreadable.infos[0].error
            assert (everything.total, unreadable.total) == (2, 1)
            assert tuple(await store.count_tasks()) == (1, 0, 0, 1)

    @cases(**SPOILT)
    async def test_a_record_counts_again_once_it_can_be_read(self, case: Any) -> None:
        async with self.running() as store:
            good = await self.spoil(store, case)
            await self.write_record(store, "a", good)
            assert ids_of(await store.get_all_tasks()) == ["a", "other"]
            assert await store.get_quarantined_tasks() == []
            assert ids_of(await store.get_due_tasks(NOON)) == ["a"]

    @cases(**SPOILT)
    async def test_an_unreadable_record_survives_removal_and_restart(self, case: Any) -> None:
        async with self.running() as store:
            good = await self.spoil(store, case)
            spoilt = await self.read_record(store, "a")
            await store.remove_all_tasks()
        async with self.running(await self.reopen(store)) as store:
            assert await store.get_all_tasks() == []
            assert len(await store.get_quarantined_tasks()) == 1
            assert await self.read_record(store, "a") == spoilt
            await self.write_record(store, "a", good)
            assert ids_of(await store.get_all_tasks()) == ["a"]

    @cases(**SPOILT)
    async def test_declaring_a_quarantined_task_again_replaces_it(self, case: Any) -> None:
        async with self.running() as store:
            await self.spoil(store, case)
            await store.update_task(make_task("a", args=("again",)))
            assert (await store.lookup_task("a")).args == ("again",)
            assert await store.get_quarantined_tasks() == []

    async def spoil(self, store: BaseStore, spoiling: Callable[[dict[str, Any]], bytes]) -> bytes:
        """Add the tasks `a` and `other`, make the record of `a` unreadable; what it was before."""
        await store.add_task(make_task("a"))
        await store.add_task(make_task("other", after(1)))
        assert len(await store.get_all_tasks()) == 2
        good = await self.read_record(store, "a")
        await self.write_record(store, "a", spoiling(json.loads(good)))
        # What people change behind the store's back it sees within a second, or when asked.
        await store.get_quarantined_tasks()
        return good
