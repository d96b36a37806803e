"""The way to a MongoDB server: which driver, whose client, on which loop, and what errors say."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl

import pymongo
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, PyMongoError, ServerSelectionTimeoutError
from pymongo.errors import ConfigurationError as DriverConfigurationError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from asyncz.exceptions import ConfigurationError, StoreError, StoreTimeoutError
from asyncz.stores.base import StoreHost
from asyncz.text import printable

__all__ = [
    "Collection",
    "Document",
    "Link",
    "check_client",
    "check_uri",
    "driver_errors",
    "like",
    "open_link",
    "options_for",
    "repeated",
]

Document: TypeAlias = dict[str, Any]
Collection: TypeAlias = AsyncCollection[Document]
"""Or Motor's: of either, only what both have is used."""

T = TypeVar("T")

CLIENT_OPTIONS = {
    "appname": "asyncz",
    "connectTimeoutMS": 5_000,
    "retryWrites": False,  # a quarter of the time of a write, and those here are repeated anyway
    "serverSelectionTimeoutMS": 3_000,
    "socketTimeoutMS": 20_000,
}
"""Of clients that are made here, where the URI does not say otherwise."""
BEGIN_TIMEOUT = 5.0
"""Seconds that another event loop may take to begin a call."""
GOODBYE = 2.0
"""Seconds that saying goodbye to the server may take."""
ERROR_LENGTH = 300
URI_FORM = (
    "must be like mongodb://user:password@host:27017/?option=value, or begin with mongodb+srv://, "
    "with user and password percent-encoded."
)


def check_client(client: Any) -> None:
    """Raise ConfigurationError unless a client is one of those that a store can use."""
    if client is None or _is_motor(client) or isinstance(client, pymongo.AsyncMongoClient):
        return
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    raise ConfigurationError(
        "client must be an AsyncIOMotorClient of Motor, an AsyncMongoClient of PyMongo or a URI, "
        f"not {kind}, which would block the event loop or does not know asyncio."
    )


def check_uri(uri: str) -> None:
    """Raise ConfigurationError unless it may be a URI of MongoDB's. No part of it is shown: it may
    hold a password."""
    fits = uri.startswith(("mongodb://", "mongodb+srv://"))
    if uri.startswith("mongodb://"):  # for the other it would ask the DNS, at the start it does
        try:
            parse_uri(uri, validate=False)
        except (PyMongoError, ValueError, TypeError):
            fits = False
    if not fits:
        raise ConfigurationError(f"MongoDBStore: the uri {URI_FORM}")


def _is_motor(client: Any) -> bool:
    # Whoever has a client of Motor's has imported it.
    motor = sys.modules.get("motor.motor_asyncio")
    return motor is not None and isinstance(client, motor.AsyncIOMotorClient)


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Await `call()`, and once more if the connection was lost in it."""
    try:
        return await call()
    except ServerSelectionTimeoutError:
        raise
    except AutoReconnect:
        return await call()


class Link:
    """A client, and the event loop that its calls are made on.

    Args:
        client: Of Motor or PyMongo.
        is_ours: Whether to close it.
        home: The loop it belongs to; None: the running one.
        alias: The store's, for errors.
    """

    def __init__(
        self, client: Any, is_ours: bool, home: asyncio.AbstractEventLoop | None, alias: str
    ) -> None:
        self._client = client
        self._is_ours = is_ours
        self._home = home
        self._alias = alias

    def collection(self, database: str, name: str) -> Collection:
        """A collection with the guarantees that a store needs, whatever the client's defaults."""
        found = self._client[database].get_collection(
            name,
            codec_options=CodecOptions(),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern(w="majority", j=True),
            read_concern=ReadConcern("local"),
        )
        return cast("Collection", found)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` on the client's loop.

        Raises:
            StoreTimeoutError: The server did not answer in time.
            StoreError: Something else went wrong with the server or the client's loop.
        """
        with driver_errors(self._alias):
            if self._home is None:
                return await work()
            return await self._elsewhere(work, self._home)

    async def close(self) -> None:
        """Close the client if it is ours."""
        if not self._is_ours:
            return
        with pymongo.timeout(GOODBYE):
            if isinstance(self._client, pymongo.AsyncMongoClient):
                await self._client.close()
            else:
                # Motor's says good-bye to the server before it returns.
                await asyncio.to_thread(self._client.close)

    async def _elsewhere(
        self, work: Callable[[], Awaitable[T]], home: asyncio.AbstractEventLoop
    ) -> T:
        here = asyncio.get_running_loop()
        has_begun = asyncio.Event()

        async def begin() -> T:
            here.call_soon_threadsafe(has_begun.set)
            return await work()

        call = begin()
        try:
            answer = asyncio.run_coroutine_threadsafe(call, home)
        except RuntimeError as exc:
            call.close()
            raise StoreError(
                f"The store {self._alias!r} (MongoDBStore): the event loop that its client belongs "
                "to was closed; make the client on the loop that is running, or give a URI."
            ) from exc
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT):
                await has_begun.wait()
        except TimeoutError as exc:
            answer.cancel()
            raise StoreError(
                f"The store {self._alias!r} (MongoDBStore): the event loop that its client belongs "
                f"to has been blocked for {BEGIN_TIMEOUT:g} s, maybe by a call of the scheduler "
                "that waits there for this one; await the call's coroutine form (astart, aadd_task "
                "…), or give the store a URI."
            ) from exc
        except BaseException:
            answer.cancel()
            raise
        return await asyncio.wrap_future(answer)


class _Made(NamedTuple):
    client: Any
    is_ours: bool
    home: asyncio.AbstractEventLoop | None


async def open_link(client: Any, uri: str, host: StoreHost, alias: str) -> Link:
    """A link through a client, or through one that is made for a URI.

    Raises:
        StoreError: The URI is none, or the client's loop is closed.
    """
    if client is None:
        made = _Made(await _make_client(uri, alias), True, None)
    elif _is_motor(client):
        made = _Made(_on_this_loop(client), False, None)
    else:
        made = _Made(client, False, _home_of(client, host))
    return Link(*made, alias)


async def _make_client(uri: str, alias: str) -> Any:
    options = options_for(uri)
    try:
        if find_spec("motor") is None:
            return pymongo.AsyncMongoClient(uri, **options)
        from motor.motor_asyncio import AsyncIOMotorClient

        options["io_loop"] = asyncio.get_running_loop()
        # In a thread: for `mongodb+srv` it asks the DNS.
        return await asyncio.to_thread(lambda: AsyncIOMotorClient(uri, **options))
    except (PyMongoError, ValueError, TypeError) as exc:
        # Not chained: such errors quote pieces of the URI, which may be of its password.
        raise StoreError(
            f"The store {alias!r} (MongoDBStore) cannot use its URI ({type(exc).__name__}); it "
            f"{URI_FORM}"
        ) from None


def options_for(uri: str) -> dict[str, Any]:
    """The options of a client that is made here, where a URI does not say otherwise."""
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2])}
    return {name: value for name, value in CLIENT_OPTIONS.items() if name.lower() not in given}


def like(client: Any) -> dict[str, Any]:
    """What makes an `AsyncMongoClient` that goes where a user's client goes.

    Its own encryption and the listeners of its events are left out: they are of its loop.
    """
    driver = client.delegate if _is_motor(client) else client
    # There is no public way to ask for them; this is what the driver makes copies of itself with.
    given: dict[str, Any] = dict(driver._init_kwargs)
    for name in ("auto_encryption_opts", "event_listeners", "document_class", "type_registry"):
        given.pop(name, None)
    return {**given, "connect": False}


def _on_this_loop(client: Any) -> Any:
    """A client of Motor's that shares the connections of another, with answers on this loop.

    Motor works in threads, so one set of connections serves any loop; but each client answers on
    one only, at the latest the one of its first use, and the user's must not be tied to ours.
    """
    from motor.motor_asyncio import AsyncIOMotorClient

    class View(AsyncIOMotorClient):  # type: ignore[type-arg]
        def __init__(self, shared: Any, loop: asyncio.AbstractEventLoop) -> None:
            self.delegate = shared
            self._loop = loop

        def get_io_loop(self) -> asyncio.AbstractEventLoop:
            return self._loop

    return View(client.delegate, asyncio.get_running_loop())


def _home_of(client: Any, host: StoreHost) -> asyncio.AbstractEventLoop | None:
    """The loop a client of PyMongo belongs to; None: the running one will do.

    One that has not connected yet belongs to nobody. It is left to the loop of the app, if there
    is one beside this, where its owner will use it.
    """
    loop: asyncio.AbstractEventLoop | None = getattr(client, "_loop", None)
    if loop is None:
        loop = getattr(host, "task_loop", None)
        if loop is not None and loop.is_closed():
            loop = None
    return None if loop is asyncio.get_running_loop() else loop


@contextmanager
def driver_errors(alias: str) -> Iterator[None]:
    """Within it, the errors of a driver become a StoreError."""
    try:
        yield
    except (PyMongoError, BSONError) as exc:
        raise _explained(exc, alias) from exc


def _explained(error: Exception, alias: str) -> StoreError:
    # What follows is a description of the whole cluster.
    text = printable(str(error).partition(", Topology Description:")[0], ERROR_LENGTH)
    if isinstance(error, DriverConfigurationError):
        text = "the options of its client are not ones it can work with"
    late = isinstance(error, PyMongoError) and error.timeout
    kind = StoreTimeoutError if late else StoreError
    return kind(f"The store {alias!r} (MongoDBStore) failed: {type(error).__name__}: {text}")
