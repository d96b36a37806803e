"""Tasks as JSON records, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from asyncz.exceptions import SerializationError, TransientTaskError, UnreadableRecordError
from asyncz.serializers import JSONSerializer, Serializer
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.tasks import Task
from asyncz.testing.store_suite_tools import NOON, SuiteHost, make_task
from asyncz.triggers import BaseTrigger, DateTrigger, IntervalTrigger

from . import jobs
from .test_values import VALUES, is_same

HOST = SuiteHost(timezone=ZoneInfo("Asia/Tokyo"))


def through(task: Task, serializer: Serializer | None = None, host: SuiteHost = HOST) -> Task:
    serializer = serializer or JSONSerializer()
    return serializer.loads(serializer.dumps(task), host, "files")


def record_of(**options: Any) -> dict[str, Any]:
    return JSONSerializer().to_record(make_task("a", fn=jobs.anything, **options))


def read(record: Any) -> Task:
    return JSONSerializer().loads(json.dumps(record).encode(), HOST, "files")


def test_it_is_a_serializer() -> None:
    assert isinstance(JSONSerializer(), Serializer)


def test_a_record_can_be_read_by_people() -> None:
    task = make_task(
        "a",
        fn=jobs.anything,
        args=(1,),
        kwargs={"who": "me"},
        executor="pool",
        trigger=DateTrigger(run_at=NOON, jitter=5),
    )
    assert json.loads(JSONSerializer().dumps(task, {"order": 7})) == {
        "v": 1,
        "id": "a",
        "name": "anything",
        "fn": f"{jobs.__name__}:anything",
        "args": [1],
        "kwargs": {"who": "me"},
        "trigger": json.loads(DateTrigger(run_at=NOON, jitter=5).model_dump_json()),
        "executor": "pool",
        "coalesce": True,
        "max_instances": 1,
        "delivery": "at_least_once",
        "mistrigger_grace_time": 60.0,
        "next_run_time": 1930478400250001,
        "store": {"order": 7},
    }


def test_a_task_comes_back_settled_and_in_the_hands_of_its_host() -> None:
    task = through(make_task("a", fn=jobs.anything))
    assert (task.pending, task.submitted, task.scheduler) == (False, True, HOST)
    assert task.store_alias == "files"
    assert task.model_fields_set == set(Task.model_fields)
    assert task.fn_reference == f"{jobs.__name__}:anything"
    assert str(task.next_run_time) == "2031-03-05 21:00:00.250001+09:00"


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(min_size=1), VALUES, max_size=3))
def test_arguments_come_back_as_they_were(args: list[Any], kwargs: dict[str, Any]) -> None:
    task = through(make_task("a", fn=jobs.anything, args=args, kwargs=kwargs))
    assert is_same(task.args, tuple(args))
    assert is_same(task.kwargs, kwargs)


@settings(max_examples=200, deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
def test_instants_are_exact(moment: datetime) -> None:
    assert from_microseconds(to_microseconds(moment)) == moment


def test_typed_arguments_come_back_by_their_annotations() -> None:
    args = (jobs.Order(number=1, points=[jobs.Point(2)]), jobs.Color.RED, jobs.Point(1, 2.5))
    kwargs = {"level": jobs.Level.LOW, "words": {"a": [jobs.Word.YES]}}
    task = through(make_task("a", fn=jobs.typed, args=args, kwargs=kwargs))
    assert (task.args, task.kwargs) == (args, kwargs)
    assert type(task.kwargs["level"]) is jobs.Level


POINTS = st.builds(jobs.Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False))
ORDERS = st.builds(jobs.Order, number=st.integers(), points=st.lists(POINTS, max_size=3))
WORDS = st.dictionaries(st.text(max_size=5), st.lists(st.sampled_from(jobs.Word), max_size=3))


@settings(max_examples=100, deadline=None)
@given(
    ORDERS,
    st.none() | st.sampled_from(jobs.Color),
    st.lists(POINTS, max_size=3),
    st.fixed_dictionaries(
        {}, optional={"level": st.sampled_from(jobs.Level), "words": st.none() | WORDS}
    ),
)
def test_models_dataclasses_and_enums_come_back_as_they_were(
    order: jobs.Order, color: jobs.Color | None, points: list[jobs.Point], kwargs: dict[str, Any]
) -> None:
    task = through(make_task("a", fn=jobs.typed, args=(order, color, *points), kwargs=kwargs))
    assert (task.args, task.kwargs) == ((order, color, *points), kwargs)
    assert [type(value) for value in task.args] == [type(v) for v in (order, color, *points)]


@pytest.mark.parametrize("reference", ["service", "Service.build", "Service.static"])
def test_typed_arguments_of_other_callables(reference: str) -> None:
    order = jobs.Order(number=1)
    task = through(make_task("a", fn=f"{jobs.__name__}:{reference}", args=(order,)))
    assert task.args == (order,)


REFUSED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = {
    "no annotation": (jobs.bare, (1, jobs.Point(1)), {}, r"args\[1\].*annotat"),
    "an annotation that says nothing": (jobs.loose, (1, jobs.Plain()), {}, r"args\[1\].*annotat"),
    "a class that Pydantic does not know": (
        jobs.loose,
        (),
        {"order": jobs.Order(number=1), "plain": jobs.Plain()},
        r"kwargs\['plain'\].*Pydantic cannot",
    ),
    "a secret": (
        jobs.typed,
        (jobs.Order(number=1),),
        {"login": jobs.Login(password=SecretStr("hunter2"))},
        r"kwargs\['login'\].*come back equal",
    ),
    "a subclass": (jobs.loose, (jobs.SpecialOrder(number=1),), {}, r"args\[0\]"),
    "another type": (jobs.typed, (jobs.Plain(),), {}, r"args\[0\].*Pass an id"),
    "a value that contains itself": (jobs.anything, (), {"loop": []}, r"kwargs\['loop'\].*nested"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_argument_that_would_not_come_back_is_refused(case: str) -> None:
    fn, args, kwargs, text = REFUSED[case]
    if "loop" in kwargs:
        kwargs["loop"].append(kwargs["loop"])
    task = make_task("the task", fn=fn, args=args, kwargs=kwargs)
    with pytest.raises(SerializationError, match=text) as caught:
        JSONSerializer().dumps(task)
    assert "'the task'" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_typed_arguments_are_validated_again() -> None:
    task = make_task("a", fn=jobs.loose, args=(jobs.Order(number=1),))
    record = JSONSerializer().to_record(task)
    record["args"][0]["v"]["number"] = "hunter2"
    with pytest.raises(UnreadableRecordError, match=r"args\[0\].*number: int_parsing") as caught:
        read(record)
    assert "hunter2" not in str(caught.value)


def test_a_typed_argument_without_its_annotation_is_unreadable() -> None:
    record = record_of(args=(1,))
    record["args"][0] = {"$": "typed", "v": "os.system"}
    with pytest.raises(UnreadableRecordError, match=r"args\[0\]"):
        read(record)


@pytest.mark.parametrize(
    "fn", [lambda: None, jobs.prepared, jobs.service.method], ids=["lambda", "partial", "method"]
)
def test_a_callable_without_a_reference_is_transient(fn: Callable[..., Any]) -> None:
    with pytest.raises(TransientTaskError, match=r"'a'.*MemoryStore"):
        JSONSerializer().dumps(make_task("a", fn=fn))


def test_a_partial_with_a_reference_is_not() -> None:
    task = make_task("a", fn=f"{jobs.__name__}:prepared")
    assert through(task).fn is jobs.prepared


def test_a_task_without_a_callable_is_refused() -> None:
    with pytest.raises(SerializationError, match="no callable"):
        JSONSerializer().dumps(Task(id="a"))


def test_a_record_that_is_too_large_is_refused_both_ways() -> None:
    small = JSONSerializer(max_payload=2_000)
    task = make_task("a", fn=jobs.anything, args=("x" * 3_000,))
    with pytest.raises(SerializationError, match=r"'a'.*max_payload=2,000"):
        small.dumps(task)
    with pytest.raises(UnreadableRecordError, match="max_payload=2,000"):
        small.loads(JSONSerializer().dumps(task), HOST, None)


def test_options_that_are_no_text_are_refused() -> None:
    record = record_of()
    record["name"] = "\ud800"
    with pytest.raises(SerializationError, match="'a'"):
        JSONSerializer().pack(record)


class Every(BaseTrigger):
    alias: ClassVar[str] = "every"
    word: str = "day"

    def get_next_trigger_time(self, timezone: Any, previous_time: Any, now: Any = None) -> None:
        return None


class Hidden(Every):
    held: Any = None


def test_a_custom_trigger_is_found_among_the_hosts_types() -> None:
    task = make_task("a", fn=jobs.anything, trigger=Every(word="week"))
    host = SuiteHost(trigger_types={"every": Every})
    assert through(task, host=host).trigger == Every(word="week")
    with pytest.raises(UnreadableRecordError, match="unknown trigger type 'every'"):
        through(task)


def test_a_trigger_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(SerializationError, match=r"'a'.*trigger Hidden"):
        JSONSerializer().dumps(make_task("a", fn=jobs.anything, trigger=Hidden(held=object())))


def test_no_trigger_stays_none() -> None:
    assert through(make_task("a", None, fn=jobs.anything, trigger=None)).trigger is None


def test_fields_of_a_newer_release_are_passed_over() -> None:
    assert read({**record_of(), "new_field": 1}).id == "a"


def test_options_that_are_missing_are_the_defaults() -> None:
    record = record_of(max_instances=5)
    del record["max_instances"]
    assert read(record).max_instances == 1


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"v": 2}, "version 2"),
    "version as text": ({"v": "1"}, "version"),
    "version true": ({"v": True}, "version"),
    "id": ({"id": None}, "'id'"),
    "empty id": ({"id": ""}, "'id'"),
    "id that is no text": ({"id": "\ud800"}, "'id'"),
    "fn": ({"fn": 5}, "'fn'"),
    "fn without a colon": ({"fn": "os.system"}, "not a reference"),
    "fn that is no callable": ({"fn": f"{jobs.__name__}:settings"}, "not a callable"),
    "args": ({"args": {}}, "'args'"),
    "kwargs": ({"kwargs": []}, "'kwargs'"),
    "arguments that do not fit": ({"fn": f"{jobs.__name__}:cached", "args": []}, "do not fit"),
    "next run time": ({"next_run_time": "tomorrow"}, "'next_run_time'"),
    "next run time out of range": ({"next_run_time": 10**18}, "out of range"),
    "next run time true": ({"next_run_time": True}, "'next_run_time'"),
    "trigger": ({"trigger": 5}, "trigger"),
    "option": ({"max_instances": "many"}, "max_instances"),
    "name": ({"name": ["x"]}, "name"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unreadable_record_says_what_is_wrong_with_it(case: str) -> None:
    change, text = BROKEN[case]
    with pytest.raises(UnreadableRecordError, match=text):
        read({**record_of(), **change})


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"{", b"[]", b"5", b"null", b'{"v":NaN}', b"[" * 100_000, b"9" * 10_000],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_json_object_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableRecordError, match="not"):
        JSONSerializer().unpack(data)


def test_deep_arguments_are_unreadable_and_nothing_worse() -> None:
    record = record_of()
    for _ in range(5_000):
        record["args"] = [record["args"]]
    with pytest.raises(UnreadableRecordError):
        JSONSerializer().from_record(record, HOST, None)


def test_a_flipped_bit_is_an_unreadable_record_or_another_task() -> None:
    data = JSONSerializer().dumps(make_task("a", fn=jobs.anything, args=(NOON, b"x", {1})))
    serializer = JSONSerializer(allowed_callables=(f"{jobs.__name__}:anything",))
    for place in range(len(data) * 8):
        spoilt = bytearray(data)
        spoilt[place // 8] ^= 1 << place % 8
        with suppress(UnreadableRecordError):
            serializer.loads(bytes(spoilt), HOST, None)


def test_interval_triggers_keep_their_start() -> None:
    trigger = IntervalTrigger(seconds=5, start_at=NOON)
    assert through(make_task("a", fn=jobs.anything, trigger=trigger)).trigger == trigger
