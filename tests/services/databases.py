"""Databases of a test's own, for each kind of server and each driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from uuid import uuid4

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from asyncz.stores.sqlalchemy_dialects import async_url

from .mariadb import shared_mariadb
from .postgresql import shared_postgresql
from .processes import IN_MEMORY

__all__ = ["BACKENDS", "SERVERS", "new_database"]

SERVERS = {
    "postgresql+asyncpg": shared_postgresql,
    "postgresql+psycopg": shared_postgresql,
    "mysql+asyncmy": shared_mariadb,
    "mysql+aiomysql": shared_mariadb,
}
BACKENDS = ["sqlite", *SERVERS]


@contextmanager
def new_database(backend: str) -> Iterator[URL]:
    """The URL of an empty database for this backend, which is dropped in the end."""
    if backend == "sqlite":
        directory = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        yield make_url(f"sqlite:///{directory / 'tasks.db'}")
        rmtree(directory)
        return
    server = make_url(SERVERS[backend]()).set(drivername=backend)
    name = f"asyncz_{os.getpid()}_{uuid4().hex[:12]}"
    execute_on(server, f"CREATE DATABASE {name}")
    try:
        yield server.set(database=name)
    finally:
        force = " WITH (FORCE)" if backend.startswith("postgresql") else ""
        execute_on(server, f"DROP DATABASE {name}{force}")


def execute_on(url: URL, *statements: str) -> None:
    """Execute statements, each on its own. May be called where a loop is running."""

    async def execute() -> None:
        engine = create_async_engine(async_url(url), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await engine.dispose()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(execute())).result()
