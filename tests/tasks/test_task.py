"""The options of a task, its states and its run times."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from asyncz import DateTrigger, IntervalTrigger, Task, TaskInfo, TaskScheduleState
from asyncz.exceptions import SchedulerNotRunningError, TaskOptionError

from . import jobs

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOURLY = IntervalTrigger(hours=1, timezone="UTC")


def test_a_task_without_options_has_the_documented_defaults() -> None:
    task = Task(jobs.nothing)
    assert (task.name, task.fn_reference) == ("nothing", f"{jobs.__name__}:nothing")
    assert (task.args, task.kwargs) == ((), {})
    assert (task.coalesce, task.max_instances, task.mistrigger_grace_time) == (True, 1, 60.0)
    assert (task.id, task.trigger, task.next_run_time) == (None, None, None)
    assert (task.pending, task.submitted) == (True, False)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("id", ""),
        ("id", 5),
        ("name", ""),
        ("name", b"bytes"),
        ("args", "text"),
        ("args", b"bytes"),
        ("args", 5),
        ("kwargs", [1]),
        ("kwargs", {1: 2}),
        ("coalesce", "yes"),
        ("coalesce", 1),
        ("trigger", "interval"),
        ("trigger", IntervalTrigger),
        ("executor", 1),
        ("store_alias", ""),
        ("mistrigger_grace_time", 0),
        ("mistrigger_grace_time", -1),
        ("mistrigger_grace_time", float("nan")),
        ("mistrigger_grace_time", float("inf")),
        ("mistrigger_grace_time", True),
        ("mistrigger_grace_time", "60"),
        ("max_instances", 0),
        ("max_instances", True),
        ("max_instances", 1.0),
        ("next_run_time", datetime(2026, 1, 1)),
        ("next_run_time", "2026-01-01T00:00:00"),
        ("next_run_time", "soon"),
        ("next_run_time", 30),
        ("next_run_time", "30"),
        ("next_run_time", True),
        ("next_run_time", date(2026, 1, 1)),
        ("next_run_time", datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
        ("next_run_time", datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
        ("surprise", 1),
    ],
)
def test_a_bad_option_is_refused_and_named(option: str, value: object) -> None:
    with pytest.raises(TaskOptionError, match=f"Bad task options: {option}(: | is not an option )"):
        Task(jobs.nothing, **{option: value})


@pytest.mark.parametrize("fn", [5, b"module:name", object()])
def test_what_cannot_be_called_is_refused(fn: Any) -> None:
    with pytest.raises(TaskOptionError, match="fn must be a callable or a reference to one"):
        Task(fn)


def test_all_that_is_wrong_is_said_at_once_and_without_the_values() -> None:
    with pytest.raises(TaskOptionError) as caught:
        Task(jobs.nothing, args="canary-1", max_instances="canary-2", next_run_time="canary-3")
    message = str(caught.value)
    assert "canary" not in message
    assert all(f"{name}: " in message for name in ("args", "max_instances", "next_run_time"))


def test_a_next_run_time_may_be_iso_text() -> None:
    assert Task(jobs.nothing, next_run_time="2026-01-01T13:00:00+01:00").next_run_time == NOON


def test_the_arguments_are_the_tasks_own() -> None:
    args, kwargs = [1], {"second": 2}
    task = Task(jobs.plain, args=args, kwargs=kwargs)
    args.append(9)
    kwargs["third"] = 9
    assert (task.args, task.kwargs) == ((1,), {"second": 2})


def test_a_task_is_pending_until_it_is_added() -> None:
    task = Task(jobs.nothing)
    assert (task.schedule_state, task.paused) == (TaskScheduleState.PENDING, False)


def test_a_stored_task_without_a_next_run_time_is_paused() -> None:
    task = Task(jobs.nothing, pending=False)
    assert (task.schedule_state, task.paused) == (TaskScheduleState.PAUSED, True)


def test_a_stored_task_with_a_next_run_time_is_scheduled() -> None:
    task = Task(jobs.nothing, pending=False, next_run_time=NOON)
    assert (task.schedule_state, task.paused) == (TaskScheduleState.SCHEDULED, False)


def test_run_times_go_from_the_next_run_time_to_now_both_included() -> None:
    task = Task(jobs.nothing, trigger=HOURLY, next_run_time=NOON)
    found = task.get_run_times(UTC, NOON + timedelta(hours=2))
    assert found == [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def test_there_are_no_run_times_before_a_task_is_due() -> None:
    task = Task(jobs.nothing, trigger=HOURLY, next_run_time=NOON)
    assert task.get_run_times(UTC, NOON - timedelta(microseconds=1)) == []


def test_there_are_no_run_times_of_a_paused_task() -> None:
    assert Task(jobs.nothing, trigger=HOURLY).get_run_times(UTC, NOON) == []


def test_a_task_without_a_trigger_has_one_run_time() -> None:
    assert Task(jobs.nothing, next_run_time=NOON).get_run_times(UTC, NOON) == [NOON]


def test_run_times_are_at_most_a_hundred() -> None:
    task = Task(jobs.nothing, trigger=HOURLY, next_run_time=NOON)
    found = task.get_run_times(UTC, NOON + timedelta(days=365))
    assert (len(found), found[-1]) == (100, NOON + timedelta(hours=99))


def test_run_times_come_in_the_zone_of_the_trigger() -> None:
    trigger = DateTrigger(run_at=NOON, timezone="Asia/Tokyo")
    moment = trigger.get_next_trigger_time(UTC, None, NOON)
    task = Task(jobs.nothing, trigger=trigger, next_run_time=moment)
    assert task.get_run_times(ZoneInfo("Asia/Tokyo"), NOON) == [NOON]


def test_tasks_of_one_id_and_store_are_equal() -> None:
    one, two = (Task(jobs.nothing, id="a", store_alias="s", name=name) for name in "xy")
    assert one == two


@pytest.mark.parametrize("other", [Task(jobs.nothing, id="a"), Task(jobs.nothing), "a"])
def test_other_tasks_are_not_equal(other: object) -> None:
    assert Task(jobs.nothing, id="a", store_alias="s") != other
    assert Task(jobs.nothing) != other


def test_the_text_of_a_task_says_what_and_when() -> None:
    task = Task(jobs.nothing, id="a", trigger=HOURLY)
    assert repr(task) == "<Task id='a' name='nothing'>"
    assert str(task) == f"nothing (trigger: {HOURLY}, pending)"
    task.pending = False
    assert str(task).endswith(", paused)")
    task.next_run_time = NOON
    assert str(task).endswith(", next run at 2026-01-01 12:00:00+00:00)")


def test_a_snapshot_has_every_field_of_the_task() -> None:
    task = Task(jobs.plain, args=[1], kwargs={"third": 3}, id="a", trigger=HOURLY, executor="e")
    info = task.snapshot()
    shared = TaskInfo.model_fields.keys() & Task.model_fields.keys()
    assert all(getattr(info, name) == getattr(task, name) for name in shared)
    assert (info.callable_name, info.callable_reference) == ("plain", f"{jobs.__name__}:plain")
    assert (info.trigger_alias, info.trigger_name) == ("interval", "IntervalTrigger")
    assert info.trigger_description == str(HOURLY)
    assert (info.schedule_state, info.paused) == (TaskScheduleState.PENDING, False)


def test_a_snapshot_of_a_decorator_has_empty_fields() -> None:
    info = Task().snapshot()
    assert (info.callable_name, info.trigger_alias, info.id) == (None, None, None)


def test_a_snapshot_is_frozen_and_does_not_follow_its_task() -> None:
    task = Task(jobs.anything, kwargs={"a": 1}, id="a")
    info = task.snapshot()
    task.update_task(name="changed", kwargs={"b": 2})
    assert (info.name, info.kwargs) == ("anything", {"a": 1})
    with pytest.raises(ValidationError, match="frozen"):
        info.name = "other"


@pytest.mark.parametrize("operation", ["pause", "resume", "reschedule", "delete", "update"])
def test_a_task_that_was_not_added_cannot_be_changed_through_its_scheduler(operation: str) -> None:
    with pytest.raises(SchedulerNotRunningError, match="'a' has not been added to a scheduler"):
        getattr(Task(jobs.nothing, id="a"), operation)()


def test_a_name_cannot_end_a_line_of_a_log() -> None:
    assert "\n" not in str(Task(len, args=[()], name="report\nERROR forged\x1b[31m"))
