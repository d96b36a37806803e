"""What every test has: a clock to move, a scheduler on it, and guards against leftovers."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from asyncz import NativeAsyncIOScheduler

# Before anything of it is imported, so that the suite for stores shows what its asserts compared.
pytest.register_assert_rewrite("asyncz.testing")

from asyncz.testing import VirtualClock  # noqa: E402

REAL_TIME = ("tests/outages/", "tests/stores/test_restarts.py", "tests/asgi/test_servers.py")
"""Servers that are killed, frozen and restarted, on the real clock. Another program that keeps the
machine busy for a second can make one of these fail, so each has three tries; the summary shows
the ones that needed more than one."""

PATIENCE = 5.0
"""Seconds that what a test has ended may take to be gone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that shows 2026-01-01T00:00:00Z and stands still."""
    return VirtualClock()


@pytest_asyncio.fixture
async def scheduler(clock: VirtualClock) -> AsyncIterator[NativeAsyncIOScheduler]:
    """A scheduler that has started on `clock`, in UTC."""
    started = NativeAsyncIOScheduler(clock=clock, timezone="UTC", shutdown_timeout=5)
    async with started:
        yield started


@pytest.fixture(autouse=True)
def no_thread_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread which keeps the process alive, or one of ours."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("no_task_is_left")
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and _counts(thread)]
    for thread in left:
        thread.join(PATIENCE)
    assert [thread.name for thread in left if thread.is_alive()] == []


@pytest_asyncio.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=PATIENCE)
    assert [task.get_name() for task in left] == []


def _counts(thread: threading.Thread) -> bool:
    # A loop's own helper threads end with the loop.
    ours = thread.name.startswith("asyncz")
    return ours or not (thread.daemon or thread.name.startswith("asyncio_"))
