"""A database as a store uses it: units of work, repeated where that is safe, and its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import random
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.util import await_only, greenlet_spawn

from asyncz.exceptions import AsynczException, StoreError
from asyncz.stores.sqlalchemy_dialects import (
    Settings,
    hang_up,
    is_conflict_of_others,
    is_in_memory,
    make_engine,
)
from asyncz.stores.sqlalchemy_schema import family_of

__all__ = ["CallersTransaction", "Database", "OwnDatabase", "TakenError", "Work"]

R = TypeVar("R")

Work = Callable[[Connection, bool], R]
"""Something to do on a connection. The second argument: whether it may have been done already, by
a try whose answer was lost. Raising leaves nothing of it.

It is a plain function, which SQLAlchemy lets wait for the driver in a greenlet. One for all of a
piece of work costs half of what one for each call of `AsyncConnection` does."""

TRIES = 6
FIRST_PAUSE = 0.01
LONGEST_TEXT = 300
PATIENCE = 5.0
LOOK_AGAIN = 0.002
"""Seconds between looks whether a commit or rollback that was begun is done."""


class TakenError(StoreError):
    """A key is in the table already."""


class Database(Protocol):
    """Where the operations of a store are carried out."""

    async def run(self, work: Work[R], transaction: bool = False) -> R:
        """Do some work, and return what it returns.

        Args:
            work: One statement, or several in a transaction.
            transaction: Whether it is several.

        Raises:
            TakenError: A key is taken.
            StoreError: Anything else that the driver or the server says.
        """


class CallersTransaction:
    """A transaction of the caller's, which the caller commits or rolls back."""

    def __init__(self, connection: AsyncConnection | AsyncSession, alias: str) -> None:
        self._connection = connection
        self._alias = alias

    async def connection(self) -> AsyncConnection:
        """The connection of it."""
        if isinstance(self._connection, AsyncSession):
            return await self._connection.connection()
        return self._connection

    async def run(self, work: Work[R], transaction: bool = False) -> R:
        try:
            return await (await self.connection()).run_sync(work, False)
        except AsynczException:
            raise
        except Exception as exc:
            raise as_store_error(exc, self._alias, "in the transaction it was given") from exc

    async def when_ended(self, tell: Callable[[bool], None]) -> None:
        """Have `tell` called, on this loop, after the commit (True) or the rollback (False)."""
        connection = (await self.connection()).sync_connection
        transaction = connection.get_transaction() if connection is not None else None
        if connection is None or transaction is None:
            tell(True)
            return
        loop = asyncio.get_running_loop()
        committed = False

        def commits(*_: Any) -> None:
            # SQLAlchemy says so before it commits.
            nonlocal committed
            committed = True
            loop.call_soon(look)

        def rolls_back(*_: Any) -> None:
            nonlocal committed
            committed = False
            loop.call_soon(look)

        def look() -> None:
            if not listeners:
                return
            if connection.get_transaction() is transaction:
                loop.call_later(LOOK_AGAIN, look)
                return
            for name, listener in listeners:
                event.remove(connection, name, listener)
            listeners.clear()
            tell(committed)

        listeners: list[tuple[str, Callable[..., None]]] = [
            ("commit", commits),
            ("commit_twophase", commits),
            ("rollback", rolls_back),
            ("rollback_twophase", rolls_back),
        ]
        for name, listener in listeners:
            event.listen(connection, name, listener)


class OwnDatabase:
    """The connections of one store, from an engine of its own or from the caller's.

    Args:
        source: An engine is used on the loop it belongs to and not closed.
        alias: Of the store.
        settings, options: For an engine of our own.
        home: The loop that the caller's engine belongs to; None: the running one.
    """

    def __init__(
        self,
        source: URL | AsyncEngine,
        alias: str,
        settings: Settings,
        options: Mapping[str, Any],
        home: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._alias = alias
        self._owned: AsyncEngine | None = None
        self._home = None if home is asyncio.get_running_loop() else home
        if isinstance(source, URL):
            self._owned = engine = make_engine(source, settings, options)
        else:
            engine = source.execution_options(isolation_level="AUTOCOMMIT")
        self._engine = engine
        # Interrupting a connection to a database in memory would be the end of the database, and
        # psycopg, when it is interrupted, waits for the server to say that it knows.
        self._in_memory = is_in_memory(engine.url)
        self._shields = self._in_memory or engine.dialect.driver == "psycopg"
        self.family = family_of(engine.dialect)
        self._begin = {
            "sqlite": ["BEGIN IMMEDIATE"],
            "postgresql": ["BEGIN ISOLATION LEVEL READ COMMITTED"],
            "mysql": ["START TRANSACTION"],
        }.get(self.family, [])
        if self.family == "mysql" and self._owned is None:
            self._begin.insert(0, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    @property
    def engine(self) -> AsyncEngine:
        """What connects."""
        return self._engine

    @property
    def where(self) -> str:
        """The database in words, without its password."""
        url = self._engine.url
        host = f"{url.host}{f':{url.port}' if url.port else ''}/" if url.host else ""
        nameless = ":memory:" if self.family == "sqlite" else ""
        return f"{url.get_backend_name()} {host}{url.database or nameless}"

    async def close(self, at_once: bool) -> None:
        """Close the connections, if they are ours.

        Args:
            at_once: Without saying goodbye to a server that does not answer.
        """
        if self._owned is None:
            return
        if at_once:
            dialect = self._owned.dialect
            dialect.do_close = dialect.do_terminate  # type: ignore[method-assign]
        try:
            async with asyncio.timeout(PATIENCE):
                await self._owned.dispose()
        except Exception:  # noqa: S110  # the server is gone, or does not answer any more
            pass

    async def run(self, work: Work[R], transaction: bool = False) -> R:
        if self._home is not None:
            return await self._at_home(self._home, work, transaction)
        attempt = _Attempt()
        trying = self._try(work, transaction, attempt)
        if not self._shields:
            return await trying
        shielded = asyncio.ensure_future(trying)
        try:
            return await asyncio.shield(shielded)
        except asyncio.CancelledError:
            if not self._in_memory:
                attempt.abandon(shielded)
            raise

    async def _at_home(
        self, home: asyncio.AbstractEventLoop, work: Work[R], transaction: bool
    ) -> R:
        """Do it on the loop that the caller's engine belongs to."""
        if home.is_closed():
            raise StoreError(
                f"The event loop that the engine of the store {self._alias!r} belongs to is "
                "closed; make the engine in the loop that the app runs on."
            )
        begun = asyncio.Event()
        here = asyncio.get_running_loop()

        async def begin() -> R:
            here.call_soon_threadsafe(begun.set)
            return await self._try(work, transaction, _Attempt())

        result = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(begin(), home))
        try:
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
        except TimeoutError:
            result.cancel()
            raise StoreError(
                f"The store {self._alias!r} has an engine of an event loop that is blocked; if "
                "that is by scheduler.start(), use 'await scheduler.astart()', or give the store "
                "a URL."
            ) from None
        return await result

    async def _try(self, work: Work[R], transaction: bool, attempt: _Attempt) -> R:
        in_doubt = False
        for number in range(TRIES):
            try:
                return await greenlet_spawn(self._once, work, transaction, in_doubt, attempt)
            except AsynczException:
                raise
            except Exception as exc:
                lost = isinstance(exc, DBAPIError) and exc.connection_invalidated
                # After a restart of the server, connections that were made before are dead.
                again = (lost and number == 0) or is_conflict_of_others(exc)
                if not again or attempt.abandoned or number == TRIES - 1:
                    raise as_store_error(exc, self._alias, f"({self.where})") from exc
                in_doubt = in_doubt or lost
                if not lost:
                    await asyncio.sleep(FIRST_PAUSE * 2**number * (0.5 + random()))  # noqa: S311
        raise AssertionError("the last try returns or raises")

    def _once(self, work: Work[R], transaction: bool, in_doubt: bool, attempt: _Attempt) -> R:
        connection = self._engine.sync_engine.connect()
        attempt.connection = connection
        try:
            if not transaction:
                return work(connection, in_doubt)
            try:
                for statement in self._begin:
                    connection.exec_driver_sql(statement)
                result = work(connection, in_doubt)
                connection.exec_driver_sql("COMMIT")
            except BaseException as exc:
                _give_up(connection, isinstance(exc, asyncio.CancelledError))
                raise
            return result
        finally:
            if self._owned is None:
                closing = greenlet_spawn(connection.close)
                await_only(asyncio.shield(asyncio.ensure_future(closing)))
            else:
                # Ours goes back to its pool without a word to the server; nothing can be cut off.
                connection.close()


class _Attempt:
    """Some work, and the connection that it is being done on."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.abandoned = False

    def abandon(self, trying: asyncio.Future[Any]) -> None:
        """Let it fail soon; nobody waits for it any more."""
        self.abandoned = True
        trying.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self.connection is None or not hang_up(self.connection):
            trying.cancel()


def _give_up(connection: Connection, at_once: bool) -> None:
    """Leave nothing of the transaction, nor a connection that is still in it."""
    if connection.invalidated:
        return
    if not at_once:
        try:
            connection.exec_driver_sql("ROLLBACK")
            return
        except Exception:  # noqa: S110  # the connection is closed instead
            pass
    connection.invalidate()


def as_store_error(error: Exception, alias: str, where: str) -> StoreError:
    """What the driver or the server said, as an error of ours, without the values in it."""
    origin: BaseException = error
    if isinstance(error, DBAPIError):
        error.hide_parameters = True  # it may be logged, and arguments may be secret
        origin = error.orig or error
        origin = origin.__cause__ or origin
    lines = str(origin).strip().splitlines() or [""]
    text = lines[0][:LONGEST_TEXT]
    kind = TakenError if isinstance(error, IntegrityError) else StoreError
    return kind(f"The store {alias!r} failed {where}: {type(origin).__name__}: {text}")
