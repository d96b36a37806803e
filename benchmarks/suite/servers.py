"""Where a store keeps its tasks while it is measured: a new server, or a new file, each time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from suite.environments import TREE

ON_DISK = Path("/nonexistent")


class ServerMissingError(Exception):
    """This machine has no such server; the text says how to get it."""


def _started(module: str, server: str, **options: Any) -> Any:
    """A private server as the tests have them, but with its data on a disk."""
    if str(TREE) not in sys.path:
        sys.path.insert(0, str(TREE))
    services = import_module(f"tests.services.{module}")
    import_module("tests.services.processes").IN_MEMORY = ON_DISK  # type: ignore[attr-defined]
    try:
        return getattr(services, server)(**options).start()
    except BaseException as error:
        # The tests' way of saying so is to skip.
        if type(error).__name__ not in {"Skipped", "Failed"}:
            raise
        raise ServerMissingError(str(error)) from None


SERVERS: dict[str, Callable[[], Any]] = {
    "postgresql": lambda: _started("postgresql", "PostgreSQLServer"),
    "mariadb": lambda: _started("mariadb", "MariaDBServer"),
    "redis": lambda: _started("redis", "RedisServer"),
    "mongodb": lambda: _started("mongodb", "MongoServer"),
}


@contextmanager
def place(store: str | None) -> Iterator[dict[str, str] | None]:
    """What an adapter is told of its store: its kind, and the URL of a server that is new.

    Stores without a server get a name to use in the worker's own, empty directory.
    """
    if store is None:
        yield None
    elif store not in SERVERS:
        yield {"kind": store, "url": "tasks"}
    else:
        server = SERVERS[store]()
        try:
            yield {"kind": store, "url": server.url}
        finally:
            server.close()
