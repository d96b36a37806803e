"""Triggers of somebody else's that misbehave, in ways that ours do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, ClassVar

import pytest

from asyncz import BaseTrigger, NativeAsyncIOScheduler
from asyncz.exceptions import TaskOptionError
from asyncz.testing import VirtualClock

Answer = Callable[[], Any]


async def job() -> None:
    """Does nothing."""


class ForeignTrigger(BaseTrigger):
    """Due at once; what comes next is what `answer` says or raises."""

    alias: ClassVar[str] = "foreign"
    answer: Answer
    answers_at_once: bool = False

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        if previous_time is None and not self.answers_at_once:
            return now
        answer: datetime | None = self.answer()
        return answer


def raising(error: type[BaseException]) -> Answer:
    def answer() -> None:
        raise error

    return answer


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_a_trigger_cannot_end_the_app_nor_the_pass(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, error: type[BaseException]
) -> None:
    scheduler.add_task(job, ForeignTrigger(answer=raising(error)), id="bad")
    scheduler.add_task(job, "interval", seconds=1, id="good")
    fired = await clock.advance(seconds=3)
    assert [run.task_id for run in fired] == ["good"] * 3
    info = scheduler.get_task_info("bad")
    assert info is not None
    assert error.__name__ in str(info.error)


@pytest.mark.parametrize("answer", ["tomorrow", datetime(2030, 1, 1)])
async def test_what_is_no_instant_is_refused_when_the_task_is_added(
    scheduler: NativeAsyncIOScheduler, answer: object
) -> None:
    trigger = ForeignTrigger(answer=lambda: answer, answers_at_once=True)
    with pytest.raises(TaskOptionError, match="ForeignTrigger of the task 'bad' gave"):
        scheduler.add_task(job, trigger, id="bad")
    assert scheduler.get_tasks() == []


async def test_what_is_no_instant_later_keeps_the_task_and_says_why(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    trigger = ForeignTrigger(answer=lambda: datetime(2030, 1, 1))
    scheduler.add_task(job, trigger, id="bad")
    assert await clock.advance(seconds=1) == []
    info = scheduler.get_task_info("bad")
    assert info is not None
    assert "must be a datetime with a time zone" in str(info.error)
