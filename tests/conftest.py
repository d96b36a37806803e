"""What every test has: a clock to move, a scheduler on it, and guards against leftovers."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from asyncz import NativeAsyncIOScheduler

# Before anything of it is imported, so that the suite for stores shows what its asserts compared.
pytest.register_assert_rewrite("asyncz.testing")

from asyncz.testing import VirtualClock  # noqa: E402

# How fast a machine draws an example says nothing about the code.
if settings.get_current_profile_name() == "default":
    settings.register_profile("asyncz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("asyncz")

REAL_TIME = (
    "tests/asgi/test_cluster_demo.py",
    "tests/asgi/test_servers.py",
    "tests/chaos/",
    "tests/outages/",
    "tests/schedulers/test_file_takeover.py",
    "tests/stores/test_restarts.py",
)
"""Workers and servers that are killed, frozen and restarted, on the real clock. Those of the chaos
run one after the other, with nothing beside them; of the others, which mostly wait, two at a time.
Another program that keeps the machine busy for a second can make one of these fail all the same, so
each has three tries; the summary shows the ones that needed more than one. What fails in
`tests/chaos` is a broken promise, which counts at once."""

AGAIN = (
    "tests/chaos/",
    "tests/life/test_year.py",
    "tests/simulation/test_simulation.py",
    "tests/stores/test_conformance.py::TestDictStore",
    "tests/stores/test_conformance.py::TestEncryptedFileStore",
    "tests/stores/test_conformance.py::TestModelStore",
    "tests/stores/test_mongo_conformance.py::TestWithAClientOfMotor",
    "tests/stores/test_redis_cluster_conformance.py::TestSharedEncryptedRedisStore",
    "tests/stores/test_redis_cluster_conformance.py::TestSharedRedisStoreOnACluster",
    "tests/stores/test_security_conformance.py",
    "tests/stores/test_security_injection.py",
    "tests/stores/test_sequences.py::TestDictStore",
    "tests/stores/test_sequences.py::TestMariaDB",
    "tests/stores/test_sequences.py::TestMongoDB",
    "tests/stores/test_sequences.py::TestPostgreSQL",
    "tests/stores/test_sequences.py::TestRedis",
    "tests/stores/test_sequences.py::TestSQLite",
    "tests/stores/test_sqlalchemy_cluster.py::TestMariaDB",
    "tests/stores/test_sqlalchemy_cluster.py::TestPostgreSQL",
    "tests/stores/test_sqlalchemy_conformance.py::TestMariaDB",
    "tests/stores/test_sqlalchemy_conformance.py::TestPostgreSQL",
    "tests/stores/test_sqlalchemy_rights.py",
    "tests/stores/test_sqlalchemy_serialised.py",
    "tests/triggers/test_differential.py",
    "tests/triggers/test_properties.py",
)
"""What goes through code that other tests have gone through, with another driver or other values.
To measure its coverage would take as long as the tests themselves."""

LARGE = ("test_many_tasks", "test_ten_thousand_tasks_are_added_at_once")
"""Likewise, of the suite for stores. What is the same again does them at night only."""

SERVERS = ("mariadb", "mongodb", "mysql", "postgresql", "redis")
ON_EACH_STORE = (
    "tests/life/",
    "tests/stores/test_sqlalchemy_attempts.py",
    "tests/stores/test_sqlalchemy_schema.py",
    "tests/stores/test_sqlalchemy_transactions.py",
)
"""Likewise, but for the cases without a server: the code is the scheduler's."""

SECOND_DRIVERS = ("aiomysql", "psycopg")
WITH_ONE_DRIVER = (
    "tests/stores/test_sqlalchemy_attempts.py",
    "tests/stores/test_sqlalchemy_queries.py",
    "tests/stores/test_sqlalchemy_schema.py",
    "tests/stores/test_sqlalchemy_store.py",
    "tests/stores/test_sqlalchemy_transactions.py",
)
"""What the second drivers do at night only; the conformance suite has them every time."""

PATIENCE = 5.0
"""Seconds that what a test has ended may take to be gone."""


NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"
"""Whether the long forms are wanted, and the same again with another driver or encrypted."""


def is_again(name: str) -> bool:
    """Whether its coverage need not be measured."""
    if name.startswith(AGAIN) or name.endswith(LARGE):
        return True
    return name.startswith(ON_EACH_STORE) and any(f"[{server}" in name for server in SERVERS)


def is_for_the_night(item: pytest.Item) -> bool:
    if item.get_closest_marker("nightly") is not None:
        return True
    if item.nodeid.startswith(AGAIN) and item.nodeid.endswith(LARGE):
        return True
    file, _, name = item.nodeid.partition("::")
    return file in WITH_ONE_DRIVER and any(driver in name for driver in SECOND_DRIVERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if NIGHTLY else [item for item in items if is_for_the_night(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    for item in items:
        if is_again(item.nodeid):
            item.add_marker(pytest.mark.no_cover)
        if item.nodeid.startswith(REAL_TIME):
            item.add_marker(pytest.mark.alone)
            is_chaos = item.nodeid.startswith("tests/chaos/")
            item.add_marker(pytest.mark.chaos if is_chaos else pytest.mark.flaky(reruns=2))


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
