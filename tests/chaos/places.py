"""Where the tasks of a trial are kept: a store of each kind, and the server that it is on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple
from uuid import uuid4

from asyncz.stores import FileStore, MongoDBStore, RedisStore, SQLAlchemyStore
from asyncz.stores.base import BaseStore
from tests.outages.backends import BACKENDS, Backend
from tests.services.processes import IN_MEMORY

from .served_memory import ServedMemoryStore

__all__ = ["LOCAL", "PLACES", "SERVED", "Place", "make_store"]

DATABASE = "chaos"
ROOT = Path(__file__).parents[2]


def _postgresql(where: str, name: str) -> BaseStore:
    return SQLAlchemyStore(f"postgresql+asyncpg://postgres@{where}/postgres", tablename=name)


def _mariadb(where: str, name: str) -> BaseStore:
    return SQLAlchemyStore(f"mysql+asyncmy://root@{where}/test", tablename=name)


def _redis(where: str, name: str) -> BaseStore:
    keys = f"{{{name}}}"
    return RedisStore(
        url=f"redis://{where}/0", tasks_key=f"{keys}.tasks", run_times_key=f"{keys}.run_times"
    )


def _mongodb(where: str, name: str) -> BaseStore:
    uri = f"mongodb://{where}/?directConnection=true"
    return MongoDBStore(uri=uri, database=DATABASE, collection=name)


def _sqlite(where: str, name: str) -> BaseStore:
    return SQLAlchemyStore(f"sqlite:///{where}/{name}.db")


def _file(where: str, name: str) -> BaseStore:
    return FileStore(f"{where}/{name}")


def _memory(where: str, name: str) -> BaseStore:
    return ServedMemoryStore(where=where)  # type: ignore[abstract]  # not any more


MAKERS: dict[str, Callable[[str, str], BaseStore]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "file": _file,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "redis": _redis,
    "mongodb": _mongodb,
}
LOCAL = ["sqlite", "file"]
SERVED = [*BACKENDS]
PLACES = [*LOCAL, *SERVED]
"""The stores that several processes may share; `memory` is for the engine by itself."""


class Address(NamedTuple):
    """How a worker finds the tasks.

    Args:
        kind: Of the store.
        where: A directory, or host and port.
        name: Of the tables, keys or files.
    """

    kind: str
    where: str
    name: str


def make_store(address: Address) -> BaseStore:
    """The store at an address; nothing is opened yet."""
    return MAKERS[address.kind](address.where, address.name)


class Place:
    """A server of the trials' own, or a directory. Each trial has tables or keys of its own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._directory = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self._backend = BACKENDS[kind]() if kind in BACKENDS else None
        self._memories: list[subprocess.Popen[bytes]] = []
        self._memory_port = 0

    @property
    def port(self) -> int:
        """Where the server listens."""
        if self.kind == "memory":
            self._memory_port = self._memory_port or self._serve_memory()
            return self._memory_port
        return self._server.port

    @property
    def _server(self) -> Backend:
        assert self._backend is not None, f"{self.kind} has no server"
        return self._backend

    def new_address(self, port: int | None = None) -> Address:
        """An empty store's.

        Args:
            port: Of a proxy before the server.
        """
        name = f"c{uuid4().hex[:12]}"
        if self.kind in LOCAL:
            return Address(self.kind, str(self._directory), name)
        return Address(self.kind, f"127.0.0.1:{port or self.port}", name)

    def direct(self, address: Address) -> Address:
        """The same store without a proxy between."""
        if self.kind in LOCAL:
            return address
        return address._replace(where=f"127.0.0.1:{self.port}")

    def freeze(self) -> None:
        """SIGSTOP: the server holds its connections and says nothing."""
        if self.kind == "memory":
            self._memories[-1].send_signal(signal.SIGSTOP)
        else:
            self._server.server.freeze()

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        if self.kind == "memory":
            self._memories[-1].send_signal(signal.SIGCONT)
        else:
            self._server.server.thaw()

    def kill(self) -> None:
        """SIGKILL to the server."""
        self._server.kill()

    def start(self) -> None:
        """Start the server again, and return when it answers."""
        self._server.start()

    def put_right(self) -> None:
        """Whatever a trial has left, the server runs afterwards."""
        self._memory_port = 0  # each trial has a memory of its own
        if self._backend is not None:
            self._backend.put_right()

    def _serve_memory(self) -> int:
        command, pipe = [sys.executable, "-m", "tests.chaos.served_memory"], subprocess.PIPE
        server = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT)
        self._memories.append(server)
        assert server.stdout is not None
        return int(server.stdout.readline())

    def close(self) -> None:
        """End the server and remove the data."""
        if self._backend is not None:
            self._backend.server.close()
        for server in self._memories:
            with server:
                server.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
