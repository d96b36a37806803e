"""The servers that misbehave: one of each kind for all tests, put right after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.outages.backends import BACKENDS, SQL_BACKENDS, Backend, SQLBackend
from tests.services.mongodb import warm_motor


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Backend]]:
    """By name, those that were needed so far."""
    warm_motor()
    started: dict[str, Backend] = {}
    yield started
    for backend in started.values():
        backend.server.close()


@pytest.fixture(params=[*BACKENDS])
def backend(request: pytest.FixtureRequest, servers: dict[str, Backend]) -> Iterator[Backend]:
    """A server that runs, of each kind in turn."""
    found = server_of(servers, request.param)
    yield found
    found.put_right()


@pytest.fixture(params=SQL_BACKENDS)
def sql_backend(
    request: pytest.FixtureRequest, servers: dict[str, Backend]
) -> Iterator[SQLBackend]:
    """A SQL server that runs, of each kind in turn."""
    found = server_of(servers, request.param)
    assert isinstance(found, SQLBackend)
    yield found
    found.put_right()


@pytest.fixture
def all_backends(servers: dict[str, Backend]) -> Iterator[list[Backend]]:
    """A server of each kind."""
    found = [server_of(servers, name) for name in BACKENDS]
    yield found
    for backend in found:
        backend.put_right()


def server_of(servers: dict[str, Backend], name: str) -> Backend:
    if name not in servers:
        servers[name] = BACKENDS[name]()
    return servers[name]
