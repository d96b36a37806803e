"""Each promise is held against each kind of store, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from asyncz import NativeAsyncIOScheduler
from asyncz.testing import VirtualClock
from tests.services.mongodb import mongodb_url, warm_motor

from . import jobs
from .places import PLACES, MakeStore, place

__all__ = ["mongodb_url"]

MakeScheduler = Callable[[], NativeAsyncIOScheduler]


@pytest.fixture(params=PLACES)
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    """Makes store objects on the same tasks."""
    kind = request.param
    url = request.getfixturevalue("mongodb_url") if kind == "mongodb" else ""
    with place(kind, url) as make:
        yield make


@pytest.fixture(scope="session", autouse=True)
def have_the_threads_of_motor() -> None:
    """Which stay for good: no test has left them."""
    warm_motor()


@pytest.fixture(autouse=True)
def begin_anew(clock: VirtualClock) -> None:
    jobs.forget(clock)


@pytest.fixture
def make_scheduler(make_store: MakeStore, clock: VirtualClock) -> MakeScheduler:
    """Makes schedulers on the same tasks and the same clock."""
    return lambda: NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", shutdown_timeout=5, stores={"default": make_store()}
    )


@pytest_asyncio.fixture
async def scheduler(make_scheduler: MakeScheduler) -> AsyncIterator[NativeAsyncIOScheduler]:
    """One that has started."""
    async with make_scheduler() as started:
        yield started
