"""Adding and changing tasks within a transaction of the caller's, on the caller's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from asyncz.events.constants import TASK_ADDED, TASK_MODIFIED
from asyncz.exceptions import BlockingCallError, ConflictIdError, TaskLookupError
from asyncz.stores.base import BaseStore
from asyncz.tasks.base import Task

__all__ = ["CallersConnection", "callers_connection", "joins_transaction", "put_task"]

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

TRIES = 10

Call = Callable[[Awaitable[Any]], Awaitable[Any]]


class CallersConnection(NamedTuple):
    """A connection of the caller's, with the loop that it may be used on.

    The engine may live on another loop, in another thread.
    """

    connection: Any
    loop: asyncio.AbstractEventLoop

    async def run(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run something that uses the connection, from the engine's loop."""
        if asyncio.get_running_loop() is self.loop:
            return await make()
        result: R = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), self.loop))
        return result


def joins_transaction(
    twin: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Note the loop that a coroutine of `on_engine` was given its `connection` on."""

    @wraps(twin)
    async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("connection") is not None:
            here = asyncio.get_running_loop()
            kwargs["connection"] = CallersConnection(kwargs["connection"], here)
        return await twin(self, *args, **kwargs)

    call.__wrapped__ = twin.__wrapped__  # type: ignore[attr-defined]  # as `blocking` asks for
    return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, R]]", call)


def callers_connection(connection: Any, coroutine: str) -> CallersConnection | None:
    """The connection that a call was given, if any.

    Args:
        connection: It, as `joins_transaction` hands it on.
        coroutine: What to await instead of a synchronous call.

    Raises:
        BlockingCallError: It was a synchronous call, which cannot use a connection of a loop.
    """
    if connection is None or isinstance(connection, CallersConnection):
        return connection
    raise BlockingCallError(
        "A connection can only be used by a coroutine; use "
        f"'await scheduler.{coroutine}(…, connection=connection)'."
    )


async def put_task(
    store: BaseStore,
    call: Call,
    task: Task,
    replace_existing: bool,
    keeps_time: bool,
    settle: Callable[[Task], Awaitable[bool]] | None = None,
) -> int:
    """Put a task into a store, or into the place of one of its id.

    Args:
        store, task: What and where.
        call: Awaits an operation of the store.
        replace_existing: Whether it may take the place of another.
        keeps_time: Whether it then keeps that one's next run time, if the trigger is the same.
        settle: Called with that one if it does not: records what it owes. False: look again.

    Returns:
        The code of the event that says what was done.
    """
    if not replace_existing:
        await call(store.add_task(task))
        return TASK_ADDED
    for _ in range(TRIES):
        stored = await call(store.lookup_task(str(task.id)))
        try:
            if stored is None:
                await call(store.add_task(task))
                return TASK_ADDED
        except ConflictIdError:
            # Another worker has added it a moment ago; or there is a record that cannot be read,
            # which the store sets aside.
            stored = await call(store.lookup_task(str(task.id)))
        keeps = stored is not None and keeps_time and stored.trigger == task.trigger
        if stored is not None and not keeps and settle is not None and not await settle(stored):
            continue
        try:
            if stored is None or not keeps:
                await call(store.update_task(task))
                return TASK_MODIFIED
            # A restart must not postpone what is due, nor resume what was paused; nor must it set
            # back what another worker has fired since.
            task.next_run_time = stored.next_run_time
            if await call(store.update_task_if(task, stored.next_run_time)):
                return TASK_MODIFIED
        except TaskLookupError:
            continue  # it had its last run meanwhile, or was deleted
    raise ConflictIdError(task.id, store.alias)
