"""A task runs wherever it was added: in a coroutine, a thread, another task, or a listener."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncz import AsyncIOScheduler, FileStore, MemoryStore, NativeAsyncIOScheduler, SchedulerEvent
from asyncz.events.constants import TASK_EXECUTED
from asyncz.exceptions import BlockingCallError

PATIENCE = 5.0
"""Seconds that a task may take to run."""

AnyScheduler = AsyncIOScheduler | NativeAsyncIOScheduler

RAN = threading.Event()
"""What `report` sets; a module's function, so that a store can write down what to call."""


def report() -> None:
    RAN.set()


async def areport() -> None:
    RAN.set()


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    RAN.clear()


@pytest.fixture(params=[report, areport], ids=["function", "coroutine function"])
def work(request: pytest.FixtureRequest) -> Callable[[], Any]:
    found: Callable[[], Any] = request.param
    return found


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore | FileStore:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "tasks")


@pytest.fixture(
    params=[
        (NativeAsyncIOScheduler, False),
        (NativeAsyncIOScheduler, True),
        (AsyncIOScheduler, False),
        (AsyncIOScheduler, True),
    ],
    ids=["native", "native isolated", "asyncio", "asyncio isolated"],
)
def scheduler(request: pytest.FixtureRequest, store: Any) -> AnyScheduler:
    kind, isolated = request.param
    made: AnyScheduler = kind(
        stores={"default": store}, isolated_event_loop=isolated, shutdown_timeout=PATIENCE
    )
    return made


async def it_runs() -> bool:
    return await asyncio.to_thread(RAN.wait, PATIENCE)


@asynccontextmanager
async def running(scheduler: AnyScheduler) -> Any:
    await scheduler.astart()
    try:
        yield
    finally:
        await scheduler.ashutdown()


# On a running loop.


async def test_a_coroutine_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async with running(scheduler):
        await scheduler.aadd_task(work)
        assert await it_runs()


async def test_a_thread_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async with running(scheduler):
        await asyncio.to_thread(scheduler.add_task, work)
        assert await it_runs()


async def test_another_loop_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async def add() -> None:
        await scheduler.aadd_task(work)

    async with running(scheduler):
        await asyncio.to_thread(lambda: asyncio.run(add()))
        assert await it_runs()


async def test_a_coroutine_task_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async with running(scheduler):
        ADD[:] = [scheduler, work]
        await scheduler.aadd_task(add_from_coroutine)
        assert await it_runs()


async def test_a_task_in_a_thread_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async with running(scheduler):
        ADD[:] = [scheduler, work]
        await scheduler.aadd_task(add_from_function)
        assert await it_runs()


async def test_a_coroutine_listener_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    async def listener(event: SchedulerEvent) -> None:
        if getattr(event, "task_id", None) == "seed":
            await scheduler.aadd_task(work)

    scheduler.add_listener(listener, TASK_EXECUTED)
    async with running(scheduler):
        await scheduler.aadd_task(seed, id="seed")
        assert await it_runs()


async def test_a_plain_listener_adds_a_task(scheduler: AnyScheduler, work: Any) -> None:
    outcome: list[BaseException | None] = []

    def listener(event: SchedulerEvent) -> None:
        if getattr(event, "task_id", None) == "seed":
            try:
                scheduler.add_task(work)
            except BlockingCallError as exc:
                outcome.append(exc)
                RAN.set()

    scheduler.add_listener(listener, TASK_EXECUTED)
    async with running(scheduler):
        await scheduler.aadd_task(seed, id="seed")
        assert await it_runs()
    needs_io = not scheduler.stores["default"].in_process
    # A plain listener is on the engine's own thread: with I/O to wait for it has to be told.
    assert [type(error) for error in outcome] == ([BlockingCallError] if needs_io else [])
    assert all("aadd_task" in str(error) for error in outcome)


# Without a running loop: the engine has a thread of its own.


@pytest.fixture(params=[False, True], ids=["", "isolated"])
def threaded(request: pytest.FixtureRequest, store: Any) -> Iterator[AsyncIOScheduler]:
    with AsyncIOScheduler(
        stores={"default": store}, isolated_event_loop=request.param, shutdown_timeout=PATIENCE
    ) as started:
        yield started


def test_a_program_without_a_loop_adds_a_task(threaded: AsyncIOScheduler, work: Any) -> None:
    threaded.add_task(work)
    assert RAN.wait(PATIENCE)


def test_a_thread_of_such_a_program_adds_a_task(threaded: AsyncIOScheduler, work: Any) -> None:
    thread = threading.Thread(target=threaded.add_task, args=[work])
    thread.start()
    thread.join(PATIENCE)
    assert RAN.wait(PATIENCE)


@pytest.mark.parametrize("way", ["coroutine", "function"])
def test_a_task_of_such_a_program_adds_a_task(
    threaded: AsyncIOScheduler, work: Any, way: str
) -> None:
    ADD[:] = [threaded, work]
    threaded.add_task(add_from_coroutine if way == "coroutine" else add_from_function)
    assert RAN.wait(PATIENCE)


def test_a_coroutine_listener_of_such_a_program_adds_a_task(
    threaded: AsyncIOScheduler, work: Any
) -> None:
    async def listener(event: SchedulerEvent) -> None:
        if getattr(event, "task_id", None) == "seed":
            await threaded.aadd_task(work)

    threaded.add_listener(listener, TASK_EXECUTED)
    threaded.add_task(seed, id="seed")
    assert RAN.wait(PATIENCE)


def test_such_a_program_can_stop_an_engine_that_is_faster_than_it() -> None:
    for _ in range(300):
        scheduler = AsyncIOScheduler()
        scheduler.start()
        assert scheduler.shutdown()


# What tasks call. A persistent store needs functions of a module.

ADD: list[Any] = []
"""The scheduler, and what the task that is running is to add to it."""


async def add_from_coroutine() -> None:
    scheduler, fn = ADD
    await scheduler.aadd_task(fn)


def add_from_function() -> None:
    scheduler, fn = ADD
    scheduler.add_task(fn)


async def seed() -> None: ...
