"""Event codes and the models that carry them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from asyncz import SchedulerEvent, TaskEvent, TaskExecutionEvent, TaskSubmissionEvent
from asyncz.events import constants

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CODES = [
    "SCHEDULER_STARTED",
    "SCHEDULER_SHUTDOWN",
    "SCHEDULER_PAUSED",
    "SCHEDULER_RESUMED",
    "EXECUTOR_ADDED",
    "EXECUTOR_REMOVED",
    "STORE_ADDED",
    "STORE_REMOVED",
    "ALL_TASKS_REMOVED",
    "TASK_ADDED",
    "TASK_REMOVED",
    "TASK_MODIFIED",
    "TASK_EXECUTED",
    "TASK_ERROR",
    "TASK_MISSED",
    "TASK_SUBMITTED",
    "TASK_MAX_INSTANCES",
    "TASK_QUARANTINED",
    "TASK_CANCELLED",
    "CLOCK_JUMPED",
    "STORE_DEGRADED",
    "STORE_RECOVERED",
    "TASK_RECOVERED",
    "TASK_TAKEN_OVER",
    "TASK_LOST",
    "TASK_SKIPPED",
    "TASK_RETRYING",
    "TASK_OVERDUE",
]


def test_the_codes_are_distinct_bits_in_this_order() -> None:
    assert [getattr(constants, name) for name in CODES] == [1 << n for n in range(len(CODES))]


def test_all_events_are_all_of_them() -> None:
    assert sum(getattr(constants, name) for name in CODES) == constants.ALL_EVENTS


def test_every_code_has_its_name() -> None:
    assert {getattr(constants, name): name for name in CODES} == constants.NAMES
    assert constants.SCHEDULER_START == constants.SCHEDULER_STARTED


def test_a_code_without_a_name_is_shown_as_a_number() -> None:
    assert SchedulerEvent(code=1 << 30).code_name == str(1 << 30)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (SchedulerEvent(code=1, alias="x"), "<SchedulerEvent SCHEDULER_STARTED>"),
        (TaskEvent(code=1 << 9, task_id="a"), "<TaskEvent TASK_ADDED task='a'>"),
        (
            TaskSubmissionEvent(code=1 << 15, task_id="a", scheduled_run_times=[NOON]),
            "<TaskSubmissionEvent TASK_SUBMITTED task='a'>",
        ),
        (
            TaskExecutionEvent(code=1 << 12, task_id="a", scheduled_run_time=NOON),
            "<TaskExecutionEvent TASK_EXECUTED task='a'>",
        ),
    ],
)
def test_an_event_is_shown_as_its_code_and_task(event: SchedulerEvent, text: str) -> None:
    assert (repr(event), str(event)) == (text, text)


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TaskEvent(code=1, task_id="a").task_id = "b"


def test_an_execution_event_keeps_the_very_exception() -> None:
    error = ValueError("mine")
    event = TaskExecutionEvent(
        code=1 << 13, task_id="a", scheduled_run_time=NOON, exception=error, return_value=None
    )
    assert event.exception is error
    assert (event.run_count, event.last_scheduled_run_time) == (1, None)
