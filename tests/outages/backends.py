"""Servers that may be made to misbehave, each with a store on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from typing import Any, Protocol, Self
from uuid import uuid4

import psycopg
import pymysql  # type: ignore[import-untyped]
from pymongo import MongoClient

from asyncz.stores.base import BaseStore
from asyncz.stores.mongo import MongoDBStore
from asyncz.stores.redis import RedisStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from tests.services.mariadb import MariaDBServer
from tests.services.mongodb import MongoServer
from tests.services.postgresql import PostgreSQLServer
from tests.services.redis import RedisServer

__all__ = ["BACKENDS", "SQL_BACKENDS", "Backend", "SQLBackend"]


class Server(Protocol):
    """What the servers of `tests/services` have in common."""

    def start(self) -> Any: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def close(self) -> None: ...


class Backend(ABC):
    """A server of the tests' own. Each store is on tables or keys of its own there."""

    name: str

    def __init__(self) -> None:
        self.server = self.make_server()
        self.server.start()
        self.is_up = True

    @abstractmethod
    def make_server(self) -> Server:
        """The server, not started."""

    @property
    @abstractmethod
    def port(self) -> int:
        """Where the server listens."""

    @abstractmethod
    def store_at(self, port: int, name: str) -> BaseStore:
        """A store that reaches the server at that port.

        Args:
            port: Of the server, or of a proxy before it.
            name: For its tables or keys; another store of the same name has the same tasks.
        """

    @abstractmethod
    def end_connections(self) -> None:
        """Have the server end all connections, as an administrator does."""

    @abstractmethod
    def takes_no_writes(self) -> AbstractContextManager[None]:
        """Have the server answer all writes with an error, or with silence, for a while."""

    def start(self) -> None:
        """Start it again."""
        if not self.is_up:
            self.server.start()
            self.is_up = True

    def kill(self) -> None:
        """SIGKILL."""
        self.server.kill()
        self.is_up = False

    def put_right(self) -> Self:
        """Whatever a test has left, it runs afterwards."""
        self.start()
        self.server.thaw()
        return self

    def new_name(self) -> str:
        """For the tables or keys of a test."""
        return f"t{uuid4().hex[:12]}"


class SQLBackend(Backend):
    """A SQL database."""

    driver: str
    user: str
    database: str
    waiting: str

    def store_at(self, port: int, name: str) -> SQLAlchemyStore:
        url = f"{self.driver}://{self.user}@127.0.0.1:{port}/{self.database}"
        return SQLAlchemyStore(url, tablename=name)

    @abstractmethod
    def connect(self) -> Any:
        """A connection beside the store's; it is to be closed."""

    @abstractmethod
    def begin_weighty(self, connection: Any, name: str) -> None:
        """Begin a transaction that is not the one to give way in a deadlock."""

    def number_of_waiting(self) -> int:
        """How many connections wait for a lock."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(self.waiting)
            return int(cursor.fetchone()[0])


class PostgreSQL(SQLBackend):
    """PostgreSQL."""

    name = "postgresql"
    driver, user, database = "postgresql+asyncpg", "postgres", "postgres"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    server: PostgreSQLServer

    def make_server(self) -> PostgreSQLServer:
        return PostgreSQLServer()

    @property
    def port(self) -> int:
        return self.server.port

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server.url, autocommit=True)

    def begin_weighty(self, connection: Any, name: str) -> None:
        # The one whose patience ends first is the one to give way.
        connection.execute("BEGIN")
        connection.execute("SET LOCAL deadlock_timeout = '5s'")

    def end_connections(self) -> None:
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )

    @contextmanager
    def takes_no_writes(self) -> Iterator[None]:
        self._be_read_only("on")
        try:
            yield
        finally:
            self._be_read_only("off")

    def _be_read_only(self, word: str) -> None:
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {word}")
            connection.execute("SELECT pg_reload_conf()")


class MariaDB(SQLBackend):
    """MariaDB."""

    name = "mariadb"
    driver, user, database = "mysql+asyncmy", "root", "test"
    waiting = "SELECT count(*) FROM information_schema.innodb_lock_waits"
    server: MariaDBServer

    def make_server(self) -> MariaDBServer:
        return MariaDBServer()

    @property
    def port(self) -> int:
        return self.server.port

    def connect(self) -> Any:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database="test", autocommit=True
        )

    def begin_weighty(self, connection: Any, name: str) -> None:
        # The one that has changed less is the one to give way.
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {name}_weight (number INT) ENGINE=InnoDB")
            cursor.execute("BEGIN")
            cursor.execute(f"INSERT INTO {name}_weight SELECT seq FROM seq_1_to_1000")  # noqa: S608

    def end_connections(self) -> None:
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist "
                "WHERE id <> CONNECTION_ID() AND user = 'root'"
            )
            for (number,) in cursor.fetchall():
                with suppress(pymysql.MySQLError):  # it has ended by itself
                    cursor.execute(f"KILL {number}")

    @contextmanager
    def takes_no_writes(self) -> Iterator[None]:
        # An administrator, such as the tests' user, is not held up by read_only.
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            yield


class RedisBackend(Backend):
    """Redis."""

    name = "redis"
    server: RedisServer

    def make_server(self) -> RedisServer:
        return RedisServer()

    @property
    def port(self) -> int:
        return self.server.port

    def store_at(self, port: int, name: str) -> RedisStore:
        return RedisStore(
            url=f"redis://127.0.0.1:{port}/0",
            tasks_key=f"{{{name}}}.tasks",
            run_times_key=f"{{{name}}}.run_times",
        )

    def end_connections(self) -> None:
        with self.server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    @contextmanager
    def takes_no_writes(self) -> Iterator[None]:
        with self.server.client() as client:
            # As the old master of a set in which another has taken over.
            client.replicaof("127.0.0.1", "1")
            try:
                yield
            finally:
                client.replicaof("NO", "ONE")


class MongoDB(Backend):
    """MongoDB."""

    name = "mongodb"
    server: MongoServer

    def make_server(self) -> MongoServer:
        return MongoServer()

    @property
    def port(self) -> int:
        return self.server.port

    def store_at(self, port: int, name: str) -> MongoDBStore:
        return MongoDBStore(
            uri=f"mongodb://127.0.0.1:{port}/?directConnection=true",
            database="outages",
            collection=name,
        )

    def client(self) -> MongoClient[dict[str, Any]]:
        return MongoClient(f"mongodb://127.0.0.1:{self.port}/?directConnection=true")

    def end_connections(self) -> None:
        with self.client() as client:
            for operation in client.admin.aggregate(
                [{"$currentOp": {"allUsers": True, "idleConnections": True}}]
            ):
                if str(operation.get("appName", "")).startswith("asyncz") and "opid" in operation:
                    client.admin.command("killOp", op=operation["opid"])
            # Ends those that are not in use at the moment.
            client.admin.command("dropConnections", hostAndPort=[f"127.0.0.1:{self.port}"])

    @contextmanager
    def takes_no_writes(self) -> Iterator[None]:
        with self.client() as client:
            client.admin.command("fsync", lock=True)
            try:
                yield
            finally:
                client.admin.command("fsyncUnlock")


BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend for backend in (PostgreSQL, MariaDB, RedisBackend, MongoDB)
}
SQL_BACKENDS = [name for name, backend in BACKENDS.items() if issubclass(backend, SQLBackend)]
