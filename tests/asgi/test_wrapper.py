"""`scheduler.asgi(app)`: when the scheduler starts and stops, and what passes through."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from asyncz import MemoryStore, NativeAsyncIOScheduler

from .protocol import (
    COMPLETE,
    PATIENCE,
    SCHEDULERS,
    STOPPED,
    AnyScheduler,
    Gate,
    LifespanServer,
    Message,
    Receive,
    Recorder,
    Send,
    served,
)


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> AnyScheduler:
    made: AnyScheduler = request.param(shutdown_timeout=PATIENCE)
    return made


async def test_the_scheduler_runs_from_startup_to_shutdown(scheduler: AnyScheduler) -> None:
    async with served(scheduler.asgi(Recorder())):
        assert scheduler.running
    assert not scheduler.running


async def test_the_app_starts_after_the_scheduler_and_stops_after_it(
    scheduler: AnyScheduler,
) -> None:
    app = Recorder(scheduler)
    async with served(scheduler.asgi(app)):
        pass
    assert app.seen == [("startup", True), ("shutdown", False)]


async def test_a_task_runs_only_when_the_app_has_started(scheduler: AnyScheduler) -> None:
    opened = asyncio.Event()
    was_open: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def task() -> None:
        was_open.set_result(opened.is_set())

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await scheduler.aadd_task(task)
        for _ in range(20):  # time enough for a scheduler that would run it now
            await asyncio.sleep(0)
        opened.set()
        await send(COMPLETE)
        await receive()
        await send(STOPPED)

    async with served(scheduler.asgi(app)):
        assert await asyncio.wait_for(was_open, PATIENCE)


async def test_a_task_that_is_waited_for_still_has_what_the_app_opened(
    scheduler: AnyScheduler,
) -> None:
    gate, order = Gate(), list[str]()

    async def task() -> None:
        await gate.run()
        order.append("task ended")

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()
        order.append("app closed")
        await send(STOPPED)

    async with served(scheduler.asgi(app, wait=True)):
        await scheduler.aadd_task(task)
        await asyncio.wait_for(gate.begun.wait(), PATIENCE)
        asyncio.get_running_loop().call_later(0.05, gate.may_end.set)
    assert order == ["task ended", "app closed"]


async def test_without_wait_a_run_is_cut_off_at_shutdown(scheduler: AnyScheduler) -> None:
    gate = Gate()
    async with served(scheduler.asgi(Recorder())):
        await scheduler.aadd_task(gate.run)
        await asyncio.wait_for(gate.begun.wait(), PATIENCE)
    assert gate.ended == "cut off"


async def test_it_is_a_decorator_too(scheduler: AnyScheduler) -> None:
    @scheduler.asgi(wait=True)
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("HTTP only")

    assert app.wait
    async with served(app):
        assert scheduler.running


async def test_an_app_that_raises_on_lifespan_messages_is_answered_for(
    scheduler: AnyScheduler,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise KeyError(scope["type"])

    async with served(scheduler.asgi(app)) as server:
        assert scheduler.running
    assert server.sent == [COMPLETE, STOPPED]


async def test_an_app_that_ignores_lifespan_messages_is_answered_for(
    scheduler: AnyScheduler,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        return

    async with served(scheduler.asgi(app)):
        assert scheduler.running


async def test_an_app_that_returns_after_its_startup_is_served_until_the_shutdown(
    scheduler: AnyScheduler,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)

    async with served(scheduler.asgi(app)) as server:
        await asyncio.sleep(0)
        assert not server.call.done()
        assert scheduler.running


async def test_an_app_that_returns_at_shutdown_without_a_word_is_answered_for(
    scheduler: AnyScheduler,
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(COMPLETE)
        await receive()

    async with served(scheduler.asgi(app)):
        pass
    assert not scheduler.running


async def test_handle_lifespan_keeps_the_messages_from_the_app(scheduler: AnyScheduler) -> None:
    app = Recorder()
    async with served(scheduler.asgi(app, handle_lifespan=True)):
        assert scheduler.running
    assert app.scopes == []


async def test_the_scheduler_is_in_the_lifespan_state(scheduler: AnyScheduler) -> None:
    async with served(scheduler.asgi(Recorder())) as server:
        assert server.state["scheduler"] is scheduler


async def test_a_server_without_lifespan_state_will_do(scheduler: AnyScheduler) -> None:
    server = LifespanServer(scheduler.asgi(Recorder()), state=None)
    assert await server.startup() == COMPLETE
    assert await server.shutdown() == STOPPED


@pytest.mark.parametrize("kind", ["http", "websocket", "something.else"])
async def test_other_scopes_pass_through_untouched(scheduler: AnyScheduler, kind: str) -> None:
    calls: list[tuple[Any, ...]] = []

    async def app(*call: Any) -> None:
        calls.append(call)

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = {"type": kind}
    await scheduler.asgi(app)(scope, receive, send)
    assert calls == [(scope, receive, send)]
    assert calls[0][0] is scope
    assert not scheduler.running


async def test_an_error_of_a_request_reaches_the_server(scheduler: AnyScheduler) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise LookupError("no such page")

    with pytest.raises(LookupError, match="no such page"):
        await scheduler.asgi(app)({"type": "http"}, Gate().begun.wait, Gate().begun.wait)  # type: ignore[arg-type]


async def test_nested_wrappers_stop_the_scheduler_once_at_the_end(
    scheduler: AnyScheduler,
) -> None:
    app = Recorder(scheduler)
    async with served(scheduler.asgi(scheduler.asgi(app))):
        assert scheduler.running
    assert app.seen == [("startup", True), ("shutdown", False)]
    assert not scheduler.running


async def test_two_apps_share_a_scheduler_until_the_last_has_shut_down(
    scheduler: AnyScheduler,
) -> None:
    async with served(scheduler.asgi(Recorder())):
        async with served(scheduler.asgi(Recorder())):
            pass
        assert scheduler.running
    assert not scheduler.running


async def test_an_app_can_be_served_again(scheduler: AnyScheduler) -> None:
    runs: asyncio.Queue[None] = asyncio.Queue()

    async def task() -> None:
        runs.put_nowait(None)

    app = scheduler.asgi(Recorder())
    for _ in range(3):
        async with served(app):
            await scheduler.aadd_task(task)
            await asyncio.wait_for(runs.get(), PATIENCE)


async def test_a_scheduler_that_was_started_before_is_left_running(
    scheduler: AnyScheduler,
) -> None:
    await scheduler.astart()
    async with served(scheduler.asgi(Recorder())):
        pass
    assert scheduler.running
    await scheduler.ashutdown()


async def test_a_scheduler_that_was_started_paused_stays_paused(scheduler: AnyScheduler) -> None:
    await scheduler.astart(paused=True)
    async with served(scheduler.asgi(Recorder())):
        assert scheduler.state.label == "paused"
    await scheduler.ashutdown()


async def test_a_scheduler_in_a_thread_of_its_own_stops_with_the_app() -> None:
    scheduler = NativeAsyncIOScheduler(
        isolated_event_loop=True, stores={"default": MemoryStore()}, shutdown_timeout=PATIENCE
    )
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def task() -> None:
        loop.call_soon_threadsafe(done.set)

    async with served(scheduler.asgi(Recorder())):
        await scheduler.aadd_task(task)
        await asyncio.wait_for(done.wait(), PATIENCE)
    assert not scheduler.running


def test_the_attributes_of_the_app_are_within_reach(scheduler: AnyScheduler) -> None:
    app = Recorder()
    wrapped = scheduler.asgi(app)
    assert wrapped.seen is app.seen
    assert wrapped.app is app
    with pytest.raises(AttributeError, match="no attribute 'routes'"):
        _ = wrapped.routes


def test_a_wrapper_can_be_copied(scheduler: AnyScheduler) -> None:
    wrapped = scheduler.asgi(Recorder())
    assert copy.copy(wrapped).app is wrapped.app
