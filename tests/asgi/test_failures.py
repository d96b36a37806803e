"""What goes wrong at startup and shutdown: who is told, and what is stopped again."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from asyncz import MemoryStore, NativeAsyncIOScheduler

from .protocol import (
    COMPLETE,
    PATIENCE,
    SCHEDULERS,
    STOPPED,
    AnyScheduler,
    BrokenStore,
    Gate,
    LifespanServer,
    Message,
    Receive,
    Recorder,
    Send,
    until,
)


class UnclosableStore(MemoryStore):
    """A store whose shutdown fails."""

    async def shutdown(self) -> None:
        await super().shutdown()
        raise OSError("the disk is full")


class Unstoppable(NativeAsyncIOScheduler):
    """A scheduler whose shutdown fails when it is done."""

    async def ashutdown(self, wait: bool = True) -> bool:
        await super().ashutdown(wait)
        raise OSError("no threads left")


@pytest.fixture(params=SCHEDULERS)
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def scheduler(make: Any) -> AnyScheduler:
    made: AnyScheduler = make(shutdown_timeout=PATIENCE)
    return made


async def test_a_store_that_fails_at_start_is_reported_and_the_app_is_not_started(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make(stores={"default": BrokenStore()})
    app = Recorder()
    server = LifespanServer(scheduler.asgi(app))
    assert await server.startup() == {
        "type": "lifespan.startup.failed",
        "message": "The scheduler could not be started: "
        "ConnectionError: nobody listens on port 6379",
    }
    assert isinstance(await server.end(), ConnectionError)
    assert app.scopes == []
    assert not scheduler.running
    assert "The scheduler could not be started." in caplog.text


async def test_a_failed_start_can_be_tried_again(make: Any) -> None:
    scheduler = make()
    await scheduler.aadd_store(BrokenStore(), "other")
    app = scheduler.asgi(Recorder())
    failed = LifespanServer(app)
    await failed.startup()
    await failed.end()
    await scheduler.aremove_store("other")
    server = LifespanServer(app)
    assert await server.startup() == COMPLETE
    assert await server.shutdown() == STOPPED


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_that_reports_a_failed_startup_stops_the_scheduler(
    scheduler: AnyScheduler, raises: bool
) -> None:
    failed = {"type": "lifespan.startup.failed", "message": "no database"}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(failed)
        if raises:
            raise ConnectionError("no database")

    server = LifespanServer(scheduler.asgi(app))
    assert await server.startup() == failed
    error = await server.end()
    assert isinstance(error, ConnectionError) if raises else error is None
    assert not scheduler.running


async def test_an_app_that_raises_at_startup_is_served_and_the_log_says_so(
    scheduler: AnyScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        raise ConnectionError("no database")

    server = LifespanServer(scheduler.asgi(app))
    assert await server.startup() == COMPLETE
    assert "The app raised during its startup" in caplog.text
    assert "no database" in caplog.text
    assert await server.shutdown() == STOPPED


async def test_an_app_that_raises_after_its_startup_is_served_and_the_log_says_so(
    scheduler: AnyScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        raise ConnectionError("connection lost")

    server = LifespanServer(scheduler.asgi(app))
    assert await server.startup() == COMPLETE
    assert scheduler.running
    assert await server.shutdown() == STOPPED
    assert "connection lost" in caplog.text


async def test_an_app_that_raises_at_shutdown_has_its_error_passed_on(
    scheduler: AnyScheduler,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        raise ConnectionError("gone already")

    server = LifespanServer(scheduler.asgi(app))
    await server.startup()
    assert await server.shutdown() is None
    assert isinstance(await server.end(), ConnectionError)
    assert not scheduler.running


async def test_a_failed_shutdown_of_the_scheduler_is_reported_after_the_app_has_closed() -> None:
    app = Recorder()
    server = LifespanServer(Unstoppable().asgi(app))
    await server.startup()
    assert await server.shutdown() == {
        "type": "lifespan.shutdown.failed",
        "message": "The scheduler could not be shut down: OSError: no threads left",
    }
    assert [step for step, _ in app.seen] == ["startup", "shutdown"]
    assert isinstance(await server.end(), OSError)


async def test_both_failures_of_a_shutdown_are_reported() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cache not flushed"})

    server = LifespanServer(Unstoppable().asgi(app))
    await server.startup()
    answer = await server.shutdown()
    assert answer is not None
    assert answer["type"] == "lifespan.shutdown.failed"
    assert answer["message"].splitlines() == [
        "cache not flushed",
        "The scheduler could not be shut down: OSError: no threads left",
    ]
    await server.end()


async def test_a_store_that_cannot_be_closed_is_logged_and_the_scheduler_starts_again(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(stores={"default": UnclosableStore()}).asgi(Recorder())
    for _ in range(2):
        server = LifespanServer(app)
        assert await server.startup() == COMPLETE
        assert await server.shutdown() == STOPPED
    assert caplog.text.count("OSError: the disk is full") == 2


async def test_a_scheduler_that_was_shut_down_by_hand_is_no_failure(
    scheduler: AnyScheduler,
) -> None:
    server = LifespanServer(scheduler.asgi(Recorder()))
    await server.startup()
    await scheduler.ashutdown()
    assert await server.shutdown() == STOPPED


async def test_an_app_may_shut_the_scheduler_down_in_its_startup(
    scheduler: AnyScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await scheduler.ashutdown()
        await send(COMPLETE)
        await receive()
        await send(STOPPED)

    server = LifespanServer(scheduler.asgi(app))
    assert await server.startup() == COMPLETE
    assert await server.shutdown() == STOPPED
    assert "no task will run" in caplog.text


@pytest.mark.parametrize("wait", [True, False])
async def test_a_cancelled_lifespan_cuts_the_runs_off_whatever_wait_says(
    make: Any, wait: bool
) -> None:
    scheduler, gate = make(shutdown_timeout=60), Gate()
    server = LifespanServer(scheduler.asgi(Recorder(), wait=wait))
    await server.startup()
    await scheduler.aadd_task(gate.run)
    await asyncio.wait_for(gate.begun.wait(), PATIENCE)
    server.call.cancel()
    assert isinstance(await server.end(), asyncio.CancelledError)
    assert gate.ended == "cut off"
    assert not scheduler.running


async def test_a_lifespan_cancelled_while_the_app_starts_stops_the_scheduler(
    scheduler: AnyScheduler,
) -> None:
    starting = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        starting.set()
        await asyncio.Event().wait()

    server = LifespanServer(scheduler.asgi(app))
    server.begin()
    await asyncio.wait_for(starting.wait(), PATIENCE)
    assert scheduler.running
    server.call.cancel()
    assert isinstance(await server.end(), asyncio.CancelledError)
    assert not scheduler.running


async def test_a_lifespan_cancelled_during_its_shutdown_leaves_a_scheduler_that_can_start_again(
    scheduler: AnyScheduler,
) -> None:
    gate = Gate()
    server = LifespanServer(scheduler.asgi(Recorder(), wait=True))
    await server.startup()
    await scheduler.aadd_task(gate.run)
    await asyncio.wait_for(gate.begun.wait(), PATIENCE)
    shutdown = asyncio.create_task(server.shutdown())
    await until(lambda: not scheduler.running)
    server.call.cancel()
    assert isinstance(await server.end(), asyncio.CancelledError)
    await shutdown
    gate.may_end.set()
    assert await scheduler.astart()
    await scheduler.ashutdown()


def test_a_loop_that_ends_during_a_shutdown_cuts_the_runs_off(scheduler: AnyScheduler) -> None:
    gate = Gate()

    async def serve_and_be_killed() -> None:
        server = LifespanServer(scheduler.asgi(Recorder(), wait=True))
        await server.startup()
        await scheduler.aadd_task(gate.run)
        await asyncio.wait_for(gate.begun.wait(), PATIENCE)
        waiting = asyncio.create_task(server.shutdown())
        await until(lambda: not scheduler.running)
        waiting.cancel()

    asyncio.run(serve_and_be_killed())
    assert gate.ended == "cut off"
    asyncio.run(scheduler.astart())  # nothing of the last time is in the way
    asyncio.run(scheduler.ashutdown())


async def test_a_task_that_ignores_being_cut_off_does_not_hold_the_shutdown_up(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gate, refused = Gate(), asyncio.Event()

    async def stubborn() -> None:
        gate.begun.set()
        while not gate.may_end.is_set():
            try:
                await gate.may_end.wait()
            except asyncio.CancelledError:
                refused.set()

    scheduler = make(shutdown_timeout=1)
    server = LifespanServer(scheduler.asgi(Recorder(), wait=True))
    await server.startup()
    await scheduler.aadd_task(stubborn, id="stubborn")
    async with gate:
        async with asyncio.timeout(2):
            assert await server.shutdown() == STOPPED
        assert refused.is_set()
    assert "A run of the task 'stubborn' did not end when it was cut off" in caplog.text


async def test_a_listener_that_raises_disturbs_neither_startup_nor_shutdown(
    scheduler: AnyScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(event: object) -> None:
        raise RuntimeError("a bad listener")

    scheduler.add_listener(listener)
    server = LifespanServer(scheduler.asgi(Recorder()))
    assert await server.startup() == COMPLETE
    assert await server.shutdown() == STOPPED
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors
    assert all("listener" in record.message for record in errors)


async def test_a_task_that_exits_does_not_end_the_app(scheduler: AnyScheduler) -> None:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def leave() -> None:
        raise SystemExit(3)

    def listener(event: Any) -> None:
        if getattr(event, "exception", None) is not None and not ended.done():
            ended.set_result(event.exception.code)

    scheduler.add_listener(listener)
    server = LifespanServer(scheduler.asgi(Recorder()))
    await server.startup()
    await scheduler.aadd_task(leave)
    assert await asyncio.wait_for(ended, PATIENCE) == 3
    assert await server.shutdown() == STOPPED
