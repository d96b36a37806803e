"""What is remembered of records that were read before changes nothing of what the next ones are."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any, ClassVar

import pytest

from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers import JSONSerializer
from asyncz.serializers.building import REMEMBERED
from asyncz.tasks import Task
from asyncz.testing.store_suite_tools import NOON, SuiteHost, after, make_task
from asyncz.triggers import AndTrigger, BaseTrigger, CronTrigger, DateTrigger, IntervalTrigger

from . import jobs
from .test_json import BROKEN, HOST, record_of


@pytest.fixture
def warm() -> JSONSerializer:
    """A serializer that has read a record with these options."""
    serializer = JSONSerializer()
    read(serializer, record_of())
    return serializer


def read(serializer: JSONSerializer, record: Any, host: SuiteHost = HOST) -> Task:
    return serializer.loads(json.dumps(record).encode(), host, "files")


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_record_is_seen_all_the_same(case: str, warm: JSONSerializer) -> None:
    changes, message = BROKEN[case]
    with pytest.raises(UnreadableRecordError, match=message):
        read(warm, record_of() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"name": ""},
        {"name": 1},
        {"max_instances": True},
        {"max_instances": 1.0},
        {"coalesce": 1},
        {"mistrigger_grace_time": "60.0"},
        {"trigger": {"type": "interval", "seconds": True}},
    ],
)
def test_one_and_true_and_text_are_not_taken_for_each_other(
    changes: dict[str, Any], warm: JSONSerializer
) -> None:
    read(warm, record_of() | {"trigger": {"type": "interval", "seconds": 1}})
    with pytest.raises(UnreadableRecordError):
        read(warm, record_of() | changes)


def test_tasks_are_the_same_as_those_that_were_read_first(warm: JSONSerializer) -> None:
    record = record_of(args=[1], kwargs={"x": [2]}, max_instances=3, coalesce=False)
    first, second = read(warm, record), read(warm, record)

    assert first.field_values() == second.field_values()
    assert first.model_fields_set == second.model_fields_set
    assert [*first.__dict__] == [*second.__dict__]
    assert first.kwargs is not second.kwargs
    assert first.kwargs["x"] is not second.kwargs["x"]
    assert second.model_copy(update={"id": "b"}).id == "b"


def test_what_is_each_task_s_own_is_not_remembered(warm: JSONSerializer) -> None:
    record = record_of(args=["one"], trigger=IntervalTrigger(seconds=5, start_at=NOON))
    other = record_of(args=["two"], trigger=CronTrigger(hour=3), due=after(9))
    other |= {"id": "b", "name": "other", "fn": f"{jobs.__name__}:cached"}
    host = SuiteHost()

    read(warm, record)
    task = read(warm, other, host)

    assert (task.id, task.name, task.args, task.fn) == ("b", "other", ("two",), jobs.cached)
    assert task.trigger == CronTrigger(hour=3)
    assert task.next_run_time == after(9)
    assert task.scheduler is host


def test_a_missing_option_is_not_none(warm: JSONSerializer) -> None:
    record = record_of(mistrigger_grace_time=None)
    assert read(warm, record).mistrigger_grace_time is None
    del record["mistrigger_grace_time"]
    assert read(warm, record).mistrigger_grace_time == 60
    record["mistrigger_grace_time"] = None
    assert read(warm, record).mistrigger_grace_time is None


def test_equal_schedules_share_a_trigger_that_nobody_can_change(warm: JSONSerializer) -> None:
    record = record_of(trigger=CronTrigger(hour=4))
    assert read(warm, record).trigger is read(warm, record).trigger
    both = record_of(trigger=AndTrigger([CronTrigger(hour=4), CronTrigger(minute=1)]))
    assert read(warm, both).trigger is not read(warm, both).trigger


class Every(BaseTrigger):
    alias: ClassVar[str] = "interval"
    seconds: float = 1

    def get_next_trigger_time(self, timezone: Any, previous_time: Any, now: Any = None) -> None:
        return None


def test_a_trigger_of_the_user_s_own_is_never_shared(warm: JSONSerializer) -> None:
    record = record_of() | {"trigger": {"type": "interval", "seconds": 1}}
    host = SuiteHost(trigger_types={"interval": Every})

    assert type(read(warm, record).trigger) is IntervalTrigger
    mine = read(warm, record, host).trigger
    assert type(mine) is Every
    assert read(warm, record, host).trigger is not mine
    assert type(read(warm, record).trigger) is IntervalTrigger


def test_neither_a_scheduler_nor_arguments_are_kept_alive() -> None:
    serializer, host = JSONSerializer(), SuiteHost()
    gone = weakref.ref(host)
    read(serializer, record_of(args=["x" * 1000]), host)

    del host
    gc.collect()

    assert gone() is None


def test_what_is_remembered_is_bounded(warm: JSONSerializer) -> None:
    for number in range(2 * REMEMBERED + 10):
        task = make_task("a", fn=jobs.anything, max_instances=number + 1)
        task.adopt({"trigger": warm_trigger(number)})
        read(warm, warm.to_record(task))
    builder = warm._builder
    assert 0 < len(builder._options) <= REMEMBERED
    assert 0 < len(builder._triggers) <= REMEMBERED
    read(warm, record_of(executor="x" * 5_000))
    assert all(len(text) < 5_000 for text in builder._options)


def warm_trigger(number: int) -> BaseTrigger:
    return DateTrigger(after(number))
