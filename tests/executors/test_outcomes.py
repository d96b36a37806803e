"""The events that say what became of a run, with their fields."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from asyncz import (
    BaseExecutor,
    NativeAsyncIOScheduler,
    RunState,
    TaskExecutionEvent,
    TaskSubmissionEvent,
)
from asyncz.events.constants import (
    TASK_CANCELLED,
    TASK_ERROR,
    TASK_EXECUTED,
    TASK_MISSED,
    TASK_SUBMITTED,
)
from asyncz.executors.base import Outcome
from asyncz.testing import VirtualClock

from . import jobs
from .waiting import names, record

OUTCOMES = TASK_EXECUTED | TASK_ERROR | TASK_MISSED | TASK_CANCELLED


async def test_a_scheduled_run_is_submitted_and_then_executed(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    events = record(scheduler, TASK_SUBMITTED | OUTCOMES)
    scheduler.add_task(jobs.add_later, "interval", seconds=10, args=[1], id="a")
    await clock.advance(seconds=10)
    submitted, executed = events
    assert isinstance(submitted, TaskSubmissionEvent)
    assert isinstance(executed, TaskExecutionEvent)
    for event in (submitted, executed):
        assert (event.task_id, event.store, event.alias) == ("a", "default", None)
        assert event.scheduler_identity == scheduler.identity
    assert (submitted.code, submitted.scheduled_run_times) == (TASK_SUBMITTED, [clock.now()])
    assert (submitted.source, submitted.coalesced_run_count) == ("scheduled", 0)
    assert (executed.code, executed.scheduled_run_time) == (TASK_EXECUTED, clock.now())
    assert (executed.return_value, executed.exception, executed.traceback) == (1, None, None)


async def test_a_manual_run_says_so(scheduler: NativeAsyncIOScheduler, clock: VirtualClock) -> None:
    events = record(scheduler, TASK_SUBMITTED)
    scheduler.add_task(jobs.add_later, "interval", seconds=10, args=[1], id="a")
    scheduler.run_task("a")
    await clock.advance()
    (event,) = events
    assert isinstance(event, TaskSubmissionEvent)
    assert (event.source, event.scheduled_run_times) == ("manual", [clock.now()])


async def test_run_times_due_together_are_coalesced_and_counted(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    events = record(scheduler, TASK_SUBMITTED)
    scheduler.pause()
    scheduler.add_task(jobs.add_later, "interval", seconds=10, args=[1], id="a")
    await clock.advance(seconds=50)
    scheduler.resume()
    await clock.advance()
    (event,) = events
    assert isinstance(event, TaskSubmissionEvent)
    assert (event.coalesced_run_count, event.scheduled_run_times) == (4, [clock.now()])


async def test_run_times_too_late_are_one_event_that_says_how_many(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    events = record(scheduler, OUTCOMES)
    scheduler.pause()
    begin = clock.now()
    scheduler.add_task(
        jobs.add_later,
        "interval",
        hours=1,
        args=[1],
        id="a",
        mistrigger_grace_time=1,
    )
    await clock.advance(hours=3, minutes=30)
    scheduler.resume()
    await clock.advance()
    (event,) = events
    assert isinstance(event, TaskExecutionEvent)
    assert (event.code, event.run_count) == (TASK_MISSED, 3)
    assert event.scheduled_run_time == begin + timedelta(hours=1)
    assert event.last_scheduled_run_time == begin + timedelta(hours=3)
    assert "3 run(s) of the task 'a'" in caplog.text


async def test_a_run_that_cannot_be_handed_over_is_an_error_for_each_run_time(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("no room")

    events = record(scheduler, OUTCOMES)
    scheduler.pause()
    scheduler.add_task(jobs.add, "interval", seconds=5, args=[1], id="a", coalesce=False)
    await clock.advance(seconds=10)
    monkeypatch.setattr(type(scheduler.lookup_executor("default")), "do_send_task", refuse)
    scheduler.resume()
    await clock.advance()
    assert names(events) == ["TASK_ERROR", "TASK_ERROR"]
    assert [str(getattr(event, "exception", None)) for event in events] == ["no room"] * 2
    assert "'a' could not be handed to its executor" in caplog.text


@pytest.mark.parametrize(
    ("fn", "level", "text"),
    [
        (jobs.own_pid_later, logging.INFO, "Task 'a' (due 2026-01-01 00:00:00+00:00) succeeded."),
        (jobs.fail_later, logging.ERROR, "Task 'a' (due 2026-01-01 00:00:00+00:00) failed."),
    ],
)
async def test_an_outcome_is_logged_once_with_the_id_of_its_task(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
    fn: Any,
    level: int,
    text: str,
) -> None:
    caplog.set_level(logging.INFO, "asyncz.executors.default")
    scheduler.add_task(fn, id="a")
    await clock.advance(seconds=1)
    lines = [line for line in caplog.record_tuples if line[0] == "asyncz.executors.default"]
    assert lines == [("asyncz.executors.default", level, text)]


async def test_an_event_that_nobody_wants_is_not_built(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []
    make = BaseExecutor._event

    def count(self: BaseExecutor, *args: Any) -> TaskExecutionEvent:
        built.append(args)
        return make(self, *args)

    monkeypatch.setattr(BaseExecutor, "_event", count)
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        scheduler.remove_listener(clock._record)  # the clock itself listens to outcomes
        scheduler.add_task(jobs.add_later, args=[1], id="a")
        await clock.advance(seconds=1)
        assert scheduler.get_tasks() == built == []


def test_the_text_of_an_outcome_has_no_value() -> None:
    outcome = Outcome(TASK_EXECUTED, VirtualClock().now(), "canary")
    assert repr([outcome]) == "[<Outcome TASK_EXECUTED due 2026-01-01 00:00:00+00:00>]"


async def test_a_run_gives_its_place_back_whatever_becomes_of_its_outcome(
    scheduler: NativeAsyncIOScheduler,
    clock: VirtualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def judge(*args: object) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(type(scheduler), "judge", judge)
    scheduler.add_task(jobs.fail_later, "interval", seconds=10, id="a")
    await clock.advance(seconds=25)
    assert not scheduler.instances
    assert [run.state for run in scheduler.get_runs("a")] == [RunState.FAILED] * 2
    assert "What became of a run of the task 'a' is not clear" in caplog.text
