"""No argument, return value or option shows up where somebody may read it."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import pytest

from asyncz import (
    AsyncIOScheduler,
    IntervalTrigger,
    NativeAsyncIOScheduler,
    SchedulerEvent,
    Task,
)
from asyncz.exceptions import AsynczException, ConfigurationError, TaskOptionError
from asyncz.testing import VirtualClock

from . import jobs

CANARY = "canary-2718281828"
WEEKLY = IntervalTrigger(weeks=1, timezone="UTC")


def give_back(*args: object, **kwargs: object) -> object:
    return CANARY


async def give_back_later(*args: object, **kwargs: object) -> object:
    return CANARY


def secret_task(fn: Any = give_back, **options: Any) -> Task:
    return Task(
        partial(fn, CANARY, token=CANARY),
        args=[CANARY],
        kwargs={"password": CANARY},
        trigger=WEEKLY,
        **options,
    )


def texts_of(thing: object) -> str:
    rich = getattr(thing, "__rich_repr__", None)
    return f"{thing!r} {thing!s} {list(rich()) if rich else ''}"


async def test_no_log_line_has_a_secret(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    scheduler.add_executor("pool", "pool")
    scheduler.add_executor("debug", "debug")
    scheduler.add_listener(_fail)
    for executor in ("default", "pool", "debug"):
        for fn in (give_back, give_back_later):
            name = f"{executor} {fn.__name__}"
            scheduler.add_task(secret_task(fn, id=name, executor=executor), next_run_time=None)
            scheduler.run_task(name)
            await clock.advance(seconds=1)
    scheduler.update_task("pool give_back", args=[CANARY, CANARY])
    assert "The listener _fail failed" in caplog.text
    assert "Executing <" in caplog.text
    assert "succeeded" in caplog.text
    assert CANARY not in caplog.text


def _fail(event: SchedulerEvent) -> None:
    raise RuntimeError("listener")


async def test_no_event_shows_a_secret(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    seen: list[SchedulerEvent] = []
    scheduler.add_listener(seen.append)
    scheduler.add_task(secret_task(id="a"), next_run_time=None)
    scheduler.run_task("a")
    await clock.advance()
    assert any(getattr(event, "return_value", None) == CANARY for event in seen)
    assert all(CANARY not in texts_of(event) for event in seen)


async def test_no_task_or_snapshot_shows_a_secret(scheduler: NativeAsyncIOScheduler) -> None:
    task = scheduler.add_task(secret_task(id="a"))
    shown: list[object] = [
        task,
        task.snapshot(),
        scheduler.preview_task_runs("a"),
        scheduler.get_task_infos(),
    ]
    shown += [scheduler.get_scheduler_info(), scheduler.lookup_executor("default"), scheduler]
    assert all(CANARY not in texts_of(thing) for thing in shown)


async def test_what_is_printed_has_no_secret(
    scheduler: NativeAsyncIOScheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler.add_task(secret_task(id="a"))
    scheduler.print_tasks()
    printed = capsys.readouterr().out
    assert "id: a" in printed
    assert CANARY not in printed


@pytest.mark.parametrize(
    "options",
    [
        {"args": CANARY},
        {"kwargs": {CANARY: 1, 2: CANARY}},
        {"id": [CANARY]},
        {"next_run_time": CANARY},
        {"max_instances": CANARY},
        {"args": [CANARY] * 3},
        {"kwargs": {"third": CANARY}},
    ],
)
def test_no_error_about_a_task_has_a_secret(options: dict[str, Any]) -> None:
    with pytest.raises(TaskOptionError) as caught:
        Task(jobs.add, **options)
    assert CANARY not in str(caught.value).replace(f"kwargs.{CANARY}", "")


@pytest.mark.parametrize(
    "options",
    [
        {"timezone": [CANARY]},
        {"store_timeout": CANARY},
        {"task_defaults": {"max_instances": CANARY}},
        {"stores": CANARY},
        {"stores": {"default": {"type": "memory", "password": CANARY}}},
        {"stores": {"default": {"type": "file", "directory": 5, "password": CANARY}}},
        {"executors": {"default": {"type": "threadpool", "max_workers": CANARY}}},
        {"executors": {"default": {"type": "threadpool", "pool_kwargs": CANARY}}},
        {"clock": CANARY},
        {"loggers_class": CANARY},
    ],
)
def test_no_error_about_an_option_has_a_secret(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AsyncIOScheduler(**options)
    assert CANARY not in f"{caught.value!r} {caught.value}"


async def test_an_argument_that_cannot_be_sent_to_a_process_is_named_but_not_shown(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    scheduler.add_executor("processpool", "processes")
    with pytest.raises(AsynczException, match=r"args\[0\] \(_Secret\)") as caught:
        scheduler.add_task(jobs.take, args=[_Secret()], executor="processes")
    assert CANARY not in str(caught.value)


class _Secret:
    def __repr__(self) -> str:
        return CANARY

    def __reduce__(self) -> str:
        raise ValueError(CANARY)
