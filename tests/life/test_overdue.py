"""Tasks that should have gone well by now, and whether all is well."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.events.constants import TASK_OVERDUE
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT
from .test_attempts import START


def listen(scheduler: NativeAsyncIOScheduler) -> list[Any]:
    told: list[Any] = []
    scheduler.add_listener(told.append, TASK_OVERDUE)
    return told


async def test_a_task_that_fails_is_overdue_until_it_goes_well(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    told = listen(scheduler)
    await scheduler.aadd_task(
        jobs.fails, "interval", minutes=10, start_at=START, args=[0], id="a", expect_every=600.0
    )
    await clock.advance(minutes=35)
    assert (told, scheduler.health().status) == ([], "ok")
    await scheduler.aupdate_task("a", args=[99])
    await clock.advance(minutes=5)
    assert told == []
    await clock.advance(minutes=5)
    (event,) = told
    assert (event.task_id, event.store) == ("a", "default")
    assert event.detail == (
        "It has not succeeded since 2026-01-01T00:30:00+00:00; it should every 600 s."
    )
    info = await scheduler.aget_task_info("a")
    assert info is not None
    assert info.overdue
    health = scheduler.health()
    assert (health.status, health.overdue) == ("degraded", (("default", "a"),))
    await clock.advance(hours=2)
    assert len(told) == 1
    await scheduler.aupdate_task("a", args=[0])
    await clock.advance(minutes=11)
    assert scheduler.health().status == "ok"
    await scheduler.aupdate_task("a", args=[99])
    await clock.advance(minutes=30)
    assert len(told) == 2


async def test_one_that_was_paused_and_forgotten_is_overdue(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    told = listen(scheduler)
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=1, args=[0], id="a", expect_every=3_600.0
    )
    await scheduler.apause_task("a")
    await clock.advance(hours=1)
    assert told == []
    await clock.advance(minutes=2)
    assert [event.detail for event in told] == ["It has not succeeded yet; it should every 3600 s."]
    await scheduler.adelete_task("a")
    await clock.advance(minutes=1)
    assert scheduler.health().status == "ok"


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_a_restart_knows_when_it_was(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    schedule: Any = {
        "id": "a",
        "args": [0],
        "hours": 24,
        "start_at": START,
        "expect_every": 86_400.0,
    }
    async with make_scheduler() as first:
        await first.aadd_task(jobs.fails, "interval", **schedule)
        await clock.advance(minutes=1)
        await first.apause_task("a")
    await clock.advance(days=3)
    second = make_scheduler()
    told = listen(second)
    second.add_task(jobs.fails, "interval", **schedule)
    async with second:
        await clock.advance(seconds=5)
        assert [event.task_id for event in told] == ["a"]


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_the_health_is_served_where_it_is_asked_for(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"the app's"})

    async def ask(wrapped: Any, method: str, path: str) -> tuple[int, bytes]:
        sent: list[MutableMapping[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await wrapped({"type": "http", "method": method, "path": path}, None, send)
        return sent[0]["status"], sent[1]["body"]

    wrapped = scheduler.asgi(health_path="/healthz")(app)
    status, body = await ask(wrapped, "GET", "/healthz")
    assert (status, json.loads(body)) == (
        200,
        {"status": "ok", "state": "running", "degraded": [], "overdue": []},
    )
    assert await ask(wrapped, "HEAD", "/healthz") == (200, b"")
    assert await ask(wrapped, "POST", "/healthz") == (404, b"the app's")
    assert await ask(scheduler.asgi(app), "GET", "/healthz") == (404, b"the app's")
    await scheduler.aadd_task(jobs.fails, args=[9], trigger="interval", hours=1, id="a",
                              expect_every=60.0)  # fmt: skip
    await clock.advance(minutes=10)
    status, body = await ask(wrapped, "GET", "/healthz")
    assert (status, json.loads(body)["overdue"]) == (503, [["default", "a"]])
