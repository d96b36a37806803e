"""What differs between databases and drivers: URLs, connections, their settings, error codes."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Connection, Dialect, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from asyncz.exceptions import ConfigurationError, StoreFormatError
from asyncz.stores.sqlalchemy_aiosqlite import use_one_trip
from asyncz.stores.sqlalchemy_schema import IDENTIFIER, family_of

__all__ = [
    "Settings",
    "async_url",
    "can_skip_locked",
    "check_database",
    "check_server",
    "check_settings",
    "hang_up",
    "is_conflict_of_others",
    "is_in_memory",
    "make_engine",
    "missing_directory",
    "running_loop",
]

OLDEST_SQLITE = (3, 35)
"""The first that can say which rows a statement has changed."""
Settings = Mapping[str, str | int | float | None]

FAMILIES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
DRIVERS: dict[str, dict[str, str]] = {
    "sqlite": {"aiosqlite": "'asyncz[sqlalchemy]'"},
    "postgresql": {"asyncpg": "'asyncz[postgresql]'", "psycopg": "'psycopg[binary]'"},
    "mysql": {"asyncmy": "'asyncz[mysql]'", "aiomysql": "aiomysql"},
}
"""The drivers that can be awaited, best first, each with what to install for it."""

OTHER_DRIVERS = {
    "pysqlite", "psycopg2", "psycopg2cffi", "psycopg_async", "pg8000", "pymysql", "mysqldb",
    "mysqlconnector", "mariadbconnector", "cymysql", "pyodbc",
}  # fmt: skip

PATIENCE = 10
"""Seconds: for a connection to be made, a statement to be answered, SQLite's lock to be free."""

POSTGRESQL: Settings = {
    "statement_timeout": f"{PATIENCE}s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    # A client that is gone must not go on holding locks.
    "client_connection_check_interval": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
}
MYSQL: Settings = {
    "innodb_lock_wait_timeout": 5,
    "wait_timeout": 60,
    "time_zone": "+00:00",
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
}
SQLITE: Settings = {
    "busy_timeout": PATIENCE * 1000,
    "journal_mode": "WAL",
    "synchronous": "FULL",
}
DEFAULTS: dict[str, Settings] = {"postgresql": POSTGRESQL, "mysql": MYSQL, "sqlite": SQLITE}

RECYCLE = 45
"""Seconds; less than MySQL's wait_timeout above."""

SERIALISED_AWAY = {"40001", "40P01"}
"""PostgreSQL: could not serialise, deadlock."""
LOST_RACES = {1213, 1020}
"""MySQL: deadlock. MariaDB: the record has changed since it was read."""


def async_url(database: str | URL) -> URL:
    """The URL with a driver that can be awaited, one that is installed.

    Raises:
        ConfigurationError: It is no URL of SQLite, PostgreSQL, MySQL or MariaDB. The message does
            not show it, since it may hold a password.
        ImportError: No driver is installed; the message says which to install.
    """
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "database is not a URL such as 'sqlite:///jobs.db' or "
            "'postgresql://user:password@host/name'."
        ) from None
    name, _, driver = url.drivername.partition("+")
    family = FAMILIES.get(name)
    if family is None or (driver and driver not in OTHER_DRIVERS | DRIVERS[family].keys()):
        raise ConfigurationError(
            f"There is no way to use {url.drivername!r} here; a SQLAlchemyStore works with "
            "sqlite, postgresql, mysql and mariadb."
        )
    backend = family if name == "postgres" else name
    if driver == "psycopg_async":
        driver = "psycopg"
    if driver not in DRIVERS[family]:
        driver = _installed_driver(family)
    elif find_spec(driver) is None:
        raise _missing(driver, DRIVERS[family][driver])
    url = url.set(drivername=f"{backend}+{driver}")
    if driver == "asyncpg" and "sslmode" in url.query:
        # What libpq calls sslmode asyncpg calls ssl, with the same values.
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def _installed_driver(family: str) -> str:
    for driver in DRIVERS[family]:
        if find_spec(driver) is not None:
            return driver
    raise _missing(*next(iter(DRIVERS[family].items())))


def _missing(driver: str, package: str) -> ImportError:
    return ImportError(f"{driver} is not installed; pip install {package}", name=driver)


def check_database(url: URL, schema: str | None) -> None:
    """Raise ConfigurationError unless a URL says which database is meant. None of it is shown.

    Args:
        url: From `async_url`, or an engine's.
        schema: Of the tables.
    """
    backend = url.get_backend_name()
    if backend == "sqlite" and url.host:
        raise ConfigurationError(
            "The URL of a SQLite database has no host: write sqlite:///jobs.db, with three "
            "slashes, for a file in the current directory, sqlite:////var/lib/app/jobs.db for "
            "another one."
        )
    if FAMILIES.get(backend) == "mysql" and not url.database and schema is None:
        raise ConfigurationError(
            f"The URL names no database; it needs one at its end, {backend}://user:password@host"
            "/name, or give schema."
        )


def missing_directory(url: URL) -> str | None:
    """The directory that a SQLite file should be in and that is not there."""
    if url.get_backend_name() != "sqlite" or is_in_memory(url) or not url.database:
        return None
    if url.database.startswith("file:"):
        return None
    directory = os.path.dirname(os.path.abspath(url.database))
    return None if os.path.isdir(directory) else directory


def is_in_memory(url: URL) -> bool:
    """Whether it is SQLite without a file."""
    if not url.drivername.startswith("sqlite"):
        return False
    database = url.database or ":memory:"
    return database == ":memory:" or "mode=memory" in database or url.query.get("mode") == "memory"


def make_engine(url: URL, settings: Settings, options: Mapping[str, Any]) -> AsyncEngine:
    """An engine for us alone.

    It is in autocommit mode: most of what a store does is one statement, which then takes one
    round trip. Transactions are begun and ended in words.

    Args:
        url: From `async_url`.
        settings: Of each connection, instead of or beside `DEFAULTS`; None leaves one out.
        options: For `create_async_engine`, instead of ours.
    """
    driver = url.drivername.partition("+")[2]
    options = dict(options)
    given = {**_connect_args(driver, url), **options.pop("connect_args", {})}
    ours: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        "pool_reset_on_return": None,
        "skip_autocommit_rollback": True,
        "hide_parameters": True,
        "connect_args": given,
        "pool_size": 5,
        "max_overflow": 0,
        "pool_timeout": PATIENCE,
        "pool_use_lifo": True,
    }
    if driver == "aiosqlite":
        # One connection: the database takes one writer, and the next in line here waits in
        # order, without polling for the lock as SQLite does.
        from sqlalchemy.pool import AsyncAdaptedQueuePool

        ours |= {"pool_size": 1, "poolclass": AsyncAdaptedQueuePool}
        ours |= {"pool_timeout": 3 * PATIENCE}
    elif driver in DRIVERS["mysql"]:
        ours["pool_recycle"] = RECYCLE
    engine = create_async_engine(url, **{**ours, **options})
    if driver == "asyncpg":
        # SQLAlchemy's own way waits 2 s for the answer of a server that has none.
        engine.dialect.do_terminate = _abort  # type: ignore[method-assign,assignment]
    _set_on_connect(engine, settings)
    return engine


def _abort(connection: Any) -> None:
    connection.driver_connection.terminate()


def _connect_args(driver: str, url: URL) -> dict[str, Any]:
    wanted: dict[str, dict[str, Any]] = {
        "aiosqlite": {"timeout": PATIENCE},
        "asyncpg": {"timeout": PATIENCE},
        "psycopg": {"connect_timeout": PATIENCE, "keepalives_idle": 10, "keepalives_interval": 5},
        "asyncmy": {"connect_timeout": PATIENCE, "charset": "utf8mb4"},
        "aiomysql": {"connect_timeout": PATIENCE, "charset": "utf8mb4"},
    }
    return {name: value for name, value in wanted[driver].items() if name not in url.query}


def check_settings(settings: Settings) -> None:
    """Raise ConfigurationError unless these may stand in SQL."""
    for name, value in settings.items():
        if not IDENTIFIER.fullmatch(name) or not re.fullmatch(r"[\w+:,. -]*", str(value)):
            raise ConfigurationError(
                f"session_settings: {name!r} is not the name of a setting, or its value has "
                "characters that no setting needs."
            )


def _set_on_connect(engine: AsyncEngine, settings: Settings) -> None:
    family = family_of(engine.dialect)
    merged = {**DEFAULTS[family], **settings}
    wanted = {name: value for name, value in merged.items() if value is not None}
    check_settings(wanted)
    setters = {"sqlite": _set_sqlite, "postgresql": _set_postgresql, "mysql": _set_mysql}
    setter = setters[family]
    dialect = engine.dialect

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        if family == "sqlite":
            use_one_trip(connection.driver_connection)
        cursor = connection.cursor()
        try:
            setter(dialect, connection, cursor, dict(wanted), settings)
        finally:
            cursor.close()


def _set_sqlite(
    dialect: Any, connection: Any, cursor: Any, wanted: dict[str, Any], given: Settings
) -> None:
    for name, value in wanted.items():
        for pause in (0.01, 0.05, 0.1, 0.3, 1.0, 3.0, None):
            cursor.execute(f"PRAGMA {name}")
            before = cursor.fetchone()
            if before is not None and str(before[0]).lower() == str(value).lower():
                break
            try:
                cursor.execute(f"PRAGMA {name} = {value}")
                break
            except dialect.loaded_dbapi.OperationalError:
                # The first to open a new file changes its journal, and holds up the others, who
                # are not let wait for that.
                if pause is None:
                    raise
                await_only(asyncio.sleep(pause))


def _set_postgresql(
    dialect: Any, connection: Any, cursor: Any, wanted: dict[str, Any], given: Settings
) -> None:
    try:
        _set_config(dialect, cursor, wanted)
    except dialect.loaded_dbapi.Error:
        # Not every platform can watch for clients that are gone.
        connection.rollback()
        if "client_connection_check_interval" in given:
            raise
        del wanted["client_connection_check_interval"]
        _set_config(dialect, cursor, wanted)
    connection.commit()


def _set_config(dialect: Any, cursor: Any, wanted: Mapping[str, Any]) -> None:
    # By way of the server's own list, so that one that is older passes over what it lacks.
    pairs = ", ".join(f"('{name}', '{value}')" for name, value in wanted.items())
    cursor.execute(
        f"""
        SELECT set_config(s.name, w.value, false) FROM pg_settings s
        JOIN (VALUES {pairs}) AS w(name, value) ON lower(s.name) = lower(w.name)
        """  # noqa: S608  # `check_settings` has let them pass
    )
    cursor.fetchall()


def _set_mysql(
    dialect: Any, connection: Any, cursor: Any, wanted: dict[str, Any], given: Settings
) -> None:
    cursor.execute("SELECT VERSION()")
    is_mariadb = "mariadb" in str(cursor.fetchone()[0]).lower()
    limits = {"max_execution_time": PATIENCE * 1000}
    if is_mariadb:
        # MySQL has nothing like the second; there, wait_timeout is what ends a session that is
        # idle in a transaction, and holds rows that others want.
        limits = {"max_statement_time": PATIENCE, "idle_transaction_timeout": PATIENCE}
    wanted |= {name: value for name, value in limits.items() if name not in given}
    parts = (
        f"{name} = {value}" if isinstance(value, int | float) else f"{name} = '{value}'"
        for name, value in wanted.items()
    )
    cursor.execute(f"SET SESSION {', '.join(parts)}")
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")


def can_skip_locked(dialect: Any) -> bool:
    """Whether a search that locks can leave out the rows that somebody else has locked.

    Args:
        dialect: Of a connection that was made.
    """
    family = family_of(dialect)
    if family == "mysql":
        version: tuple[int, ...] = dialect.server_version_info or ()
        return version >= ((10, 6) if dialect.is_mariadb else (8, 0, 1))
    return family == "postgresql"


def is_conflict_of_others(error: BaseException) -> bool:
    """Whether the transaction only lost against another one, and is to be tried again."""
    if not isinstance(error, DBAPIError):
        return False
    origin: Any = error.orig
    if getattr(origin, "sqlstate", None) in SERIALISED_AWAY:
        return True
    code = origin.args[0] if origin is not None and origin.args else None
    # The last one: the tables were changed since the statement was prepared.
    return code in LOST_RACES or "InvalidCachedStatementError" in str(type(origin).__mro__)


def hang_up(connection: Connection) -> bool:
    """Cut a connection of psycopg at once, so that what goes on there fails; whether it was."""
    try:
        driven: Any = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(driven.pgconn.socket)) as cut:
            cut.shutdown(socket.SHUT_RDWR)
    except Exception:  # it is closed already, or was not even open
        return False
    return True


def check_server(dialect: Dialect) -> None:
    """Raise StoreFormatError if a server cannot do what the statements ask of it."""
    version = dialect.server_version_info or ()
    if dialect.name == "sqlite" and version < OLDEST_SQLITE:
        raise StoreFormatError(
            f"SQLite {'.'.join(map(str, version))} is too old, a SQLAlchemyStore needs "
            f"{'.'.join(map(str, OLDEST_SQLITE))}; use a Python that is linked with a newer one."
        )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
