"""Tasks that should have gone well by now, and whether all is well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest

from asyncz import History, NativeAsyncIOScheduler
from asyncz.events.constants import TASK_OVERDUE
from asyncz.schedulers import finding, overdue
from asyncz.stores import mongo, redis_find, sqlalchemy
from asyncz.testing import VirtualClock

from . import jobs
from .conftest import MakeScheduler
from .places import PERSISTENT, MakeStore
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


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_what_was_paused_and_forgotten_is_watched_after_a_restart(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    async with make_scheduler() as first:
        for number in range(3):
            await first.aadd_task(jobs.fails, "interval", hours=1, args=[0], id=f"other-{number}")
        await first.aadd_task(
            jobs.fails, "interval", hours=1, args=[0], id="a", expect_every=3_600.0
        )
        await first.apause_task("a")
        await clock.advance(minutes=30)
    second = make_scheduler()
    told = listen(second)
    async with second:
        await clock.advance(minutes=30)
        assert (told, second.health().status) == ([], "ok")
        await clock.advance(minutes=2)
        assert [event.task_id for event in told] == ["a"]
        assert second.health().overdue == (("default", "a"),)


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_frequent_restarts_do_not_hide_a_task_that_never_goes_well(
    make_scheduler: MakeScheduler, clock: VirtualClock
) -> None:
    told: list[Any] = []
    for _ in range(4):
        scheduler = make_scheduler()
        scheduler.add_listener(told.append, TASK_OVERDUE)
        scheduler.add_task(
            jobs.fails, "interval", minutes=10, start_at=START, args=[99], id="a",
            expect_every=3_600.0, replace_existing=True,
        )  # fmt: skip
        async with scheduler:
            await clock.advance(minutes=25)
    assert told
    assert told[0].detail.startswith("It has not succeeded yet")


@pytest.mark.parametrize("make_store", ["memory"], indirect=True)
async def test_a_rare_success_is_remembered_beside_busy_tasks(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    told = listen(scheduler)
    await scheduler.aadd_task(
        jobs.fails, "interval", hours=7, start_at=START, args=[0], id="a",
        expect_every=26_000.0, history=History(count=0),
    )  # fmt: skip
    for number in range(15):
        await scheduler.aadd_task(
            jobs.fails, "interval", minutes=1, start_at=START, args=[0], id=f"busy-{number}"
        )
    await clock.advance(hours=15)
    assert await scheduler.aget_runs("a") == []
    assert (told, scheduler.health().status) == ([], "ok")


@pytest.mark.parametrize("make_store", ["sqlite", "redis"], indirect=True)
async def test_the_last_success_outlives_the_history(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    await scheduler.aadd_task(
        jobs.fails, "interval", minutes=10, start_at=START, args=[0], id="a",
        expect_every=86_400.0, history=History(count=2, age=timedelta(hours=1)),
    )  # fmt: skip
    await clock.advance(minutes=1)
    await scheduler.aupdate_task("a", args=[99])
    await clock.advance(hours=8)
    good = await scheduler.aget_runs("a", state="succeeded")
    assert [run.scheduled_time for run in good] == [START]


@pytest.mark.parametrize("make_store", PERSISTENT, indirect=True)
async def test_of_two_schedulers_the_older_one_tells_of_what_the_younger_has_added(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FIND_EVERY", 0.1)
    monkeypatch.setattr(overdue, "LOOK", timedelta(seconds=0.2))
    one, two = (
        NativeAsyncIOScheduler(
            timezone="UTC", identity=name, shutdown_timeout=5, stores={"default": make_store()}
        )
        for name in ("one", "two")
    )
    told = {scheduler.identity: listen(scheduler) for scheduler in (one, two)}
    async with one, two:
        await two.aadd_task(
            jobs.fails, "interval", hours=1, args=[0], id="a", expect_every=0.5,
            mistrigger_grace_time=0.5,
        )  # fmt: skip
        await two.apause_task("a")
        async with asyncio.timeout(20):
            while not (one.health().overdue and two.health().overdue and told["one"]):
                await asyncio.sleep(0.02)
        assert (len(told["one"]), told["two"]) == (1, [])


@pytest.mark.parametrize("make_store", [*PERSISTENT, "file"], indirect=True)
async def test_stores_find_the_tasks_that_have_expect_every_page_by_page(
    make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((sqlalchemy, "MARKED"), (mongo, "MARKED"), (redis_find, "SLICE")):
        monkeypatch.setattr(module, name, 2)
    async with make_scheduler() as scheduler:
        for number in range(6):
            await scheduler.aadd_task(
                jobs.fails, "interval", hours=1, args=[0], id=f"t{number}",
                expect_every=3_600.0 if number % 2 else None,
            )  # fmt: skip
        await scheduler.apause_task("t3")
        await scheduler.aupdate_task("t5", expect_every=None)
        await scheduler.aupdate_task("t4", expect_every=60.0)
        store = scheduler._engine.lanes["default"].store
        found, rest = await store.get_expecting_tasks()
        while rest is not None:
            more, rest = await store.get_expecting_tasks(rest)
            found += more
        assert {str(task.id) for task, _ in found} == {"t1", "t3", "t4"}
        assert all(added is not None for _, added in found)
