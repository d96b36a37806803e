"""Genuine job stores of APScheduler 3 on genuine servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from apscheduler.jobstores.mongodb import MongoDBJobStore
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from pymongo import MongoClient
from redis import Redis
from sqlalchemy import text

__all__ = ["SOURCES", "Source"]

POSTGRESQL = "postgresql://postgres@127.0.0.1:5432/postgres"
REDIS = "redis://127.0.0.1:6379/0"


class Source:
    """Where the jobs of one test are.

    Args:
        connect: Makes a job store on it, a new one each time.
        dump: All that is in it.
        plant: Puts bytes where a job of that id has its pickle.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        dump: Callable[[], Any],
        plant: Callable[[str, bytes], Any],
    ) -> None:
        self.connect = connect
        self.dump = dump
        self.plant = plant


def service(module: str, name: str) -> Any:
    """Something of `tests.services`, or None where there is no such module."""
    full = f"tests.services.{module}"
    found = find_spec("tests.services") is not None and find_spec(full) is not None
    return getattr(import_module(full), name) if found else None


def give_up(how: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(how)
    pytest.skip(how)


@contextmanager
def sql(url: str) -> Iterator[Source]:
    store = SQLAlchemyJobStore(url)

    def dump() -> Any:
        with store.engine.connect() as connection:
            return sorted(connection.execute(text("SELECT * FROM apscheduler_jobs")).all())

    def plant(job_id: str, data: bytes) -> None:
        with store.engine.begin() as connection:
            connection.execute(store.jobs_t.delete().where(store.jobs_t.c.id == job_id))
            connection.execute(store.jobs_t.insert().values(id=job_id, job_state=data))

    made: list[Any] = [store]

    def connect() -> Any:
        made.append(SQLAlchemyJobStore(url))
        return made[-1]

    yield Source(connect, dump, plant)
    for each in made:
        each.engine.dispose()


@contextmanager
def sqlite(directory: Path) -> Iterator[Source]:
    with sql(f"sqlite:///{directory / 'jobs.db'}") as source:
        yield source


@contextmanager
def postgresql(directory: Path) -> Iterator[Source]:
    shared = service("postgresql", "shared_postgresql")
    server = shared() if shared is not None else POSTGRESQL
    name = f"asyncz_migration_{uuid4().hex}"
    try:
        connection = psycopg.connect(server, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        give_up("There is no PostgreSQL at 127.0.0.1:5432; apt-get install postgresql.")
        raise
    with connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            url = server.replace("postgresql://", "postgresql+psycopg://").rpartition("/")[0]
            with sql(f"{url}/{name}") as source:
                yield source
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def redis(directory: Path) -> Iterator[Source]:
    shared = service("redis", "redis_url")
    client = Redis.from_url(shared() if shared is not None else REDIS)
    try:
        client.ping()
    except Exception:
        give_up("There is no Redis at 127.0.0.1:6379; apt-get install redis-server.")
        raise
    where = client.connection_pool.connection_kwargs
    prefix = f"asyncz-migration-{uuid4().hex}"
    keys = {"jobs_key": f"{prefix}.jobs", "run_times_key": f"{prefix}.run_times"}
    made: list[Any] = []

    def connect() -> Any:
        made.append(RedisJobStore(db=where["db"], host=where["host"], port=where["port"], **keys))
        return made[-1]

    def dump() -> Any:
        return client.hgetall(keys["jobs_key"]), client.zrange(
            keys["run_times_key"], 0, -1, withscores=True
        )

    try:
        yield Source(
            connect, dump, lambda job_id, data: client.hset(keys["jobs_key"], job_id, data)
        )
    finally:
        client.delete(*keys.values())
        for each in made:
            each.redis.close()
        client.close()


@contextmanager
def mongodb(directory: Path) -> Iterator[Source]:
    server_class = service("mongodb", "MongoServer")
    if server_class is None:
        pytest.skip("There is no tests.services.mongodb, which starts a mongod.")
    server = server_class(replica_set=False).start()
    clients: list[MongoClient[Any]] = []

    def new_client() -> MongoClient[Any]:
        clients.append(MongoClient(server.url))
        return clients[-1]

    jobs = new_client()["asyncz_migration"]["jobs"]

    def plant(job_id: str, data: bytes) -> None:
        jobs.replace_one({"_id": job_id}, {"next_run_time": None, "job_state": data}, upsert=True)

    try:
        yield Source(
            lambda: MongoDBJobStore("asyncz_migration", "jobs", new_client()),
            lambda: list(jobs.find({}, sort=[("_id", 1)])),
            plant,
        )
    finally:
        for client in clients:
            client.close()
        server.close()


SOURCES: dict[str, Callable[[Path], AbstractContextManager[Source]]] = {
    "sqlite": sqlite,
    "postgresql": postgresql,
    "redis": redis,
    "mongodb": mongodb,
}
