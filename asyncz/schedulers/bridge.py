"""How a call reaches the engine, whichever thread and loop it is made on.

The operations are coroutines that run on the engine's loop. `call` is the one place where
synchronous code gets at them, `acall` the one for coroutines of other loops.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from asyncz.exceptions import BlockingCallError, SchedulerNotRunningError

__all__ = ["Bridge", "blocking", "drive", "on_engine"]

P = ParamSpec("P")
R = TypeVar("R")


class Bridge:
    """Knows the engine's loop and thread while it runs."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._thread_id: int | None = None
        self._process_id: int | None = None
        self._driving: str | None = None
        # Without an engine every thread works on the pending list itself; an engine that starts
        # meanwhile would not see what is put there a moment later.
        self._offline = threading.RLock()

    def connect(self) -> None:
        """The engine lives on the running loop from now on."""
        with self._offline:
            self.loop = asyncio.get_running_loop()
            self._thread_id = threading.get_ident()
            self._process_id = os.getpid()

    def disconnect(self) -> None:
        """The engine is gone; calls work on the pending list again."""
        self.loop = None
        self._thread_id = None

    @property
    def is_here(self) -> bool:
        """Whether this is the engine's own thread."""
        return self._thread_id == threading.get_ident()

    def call(self, make: Callable[[], Coroutine[Any, Any, R]], twin: str) -> R:
        """Run an operation from synchronous code and wait for it.

        Raises:
            BlockingCallError: On the engine's own thread, if the operation has to wait.
        """
        if self._usable_loop() is None:
            with self._offline:
                if self.loop is None:
                    return drive(make(), twin)
        loop = self._usable_loop()
        if loop is None or self.is_here:
            before, self._driving = self._driving, twin
            try:
                return drive(make(), twin)
            finally:
                self._driving = before
        result: R = self._send(make(), loop).result()
        return result

    async def acall(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run an operation from a coroutine of any loop."""
        if self._usable_loop() is None:
            with self._offline:
                if self.loop is None:
                    return await make()
        loop = self._usable_loop()
        if loop is None or self.is_here:
            return await make()
        result: R = await asyncio.wrap_future(self._send(make(), loop))
        return result

    @property
    def is_orphaned(self) -> bool:
        """Whether the engine's loop was closed under it."""
        return self.loop is not None and self.loop.is_closed()

    def check_process(self) -> None:
        """Raise SchedulerNotRunningError in a process that was forked off from the engine's.

        Its threads are not there: whoever waited for them would wait for ever.
        """
        if self.loop is not None and self._process_id != os.getpid():
            raise SchedulerNotRunningError(
                f"The scheduler was started in the process {self._process_id}, and this one was "
                "forked off from it; make and start another one here, after the fork."
            )

    def _usable_loop(self) -> asyncio.AbstractEventLoop | None:
        self.check_process()
        if self.is_orphaned:
            raise SchedulerNotRunningError(
                "The event loop of the scheduler was closed without shutdown(); "
                "shut it down, or start it again."
            )
        return self.loop

    def check_may_wait(self, what: str, why: str = "needs I/O") -> None:
        """Raise BlockingCallError if the operation that is going on must not wait."""
        if self._driving is not None and self.loop is not None:
            raise BlockingCallError(
                f"{what} {why}, which would block the event loop that this call was made on; "
                f"use 'await scheduler.{self._driving}(…)' instead."
            )

    def _send(self, operation: Coroutine[Any, Any, R], loop: asyncio.AbstractEventLoop) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(operation, loop)
        except RuntimeError as exc:  # closed a moment ago
            operation.close()
            raise SchedulerNotRunningError() from exc


def drive(operation: Coroutine[Any, Any, R], twin: str) -> R:
    """Run a coroutine that never has to wait to its end, at once."""
    try:
        operation.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    operation.close()
    raise BlockingCallError(
        f"This call has to wait, which would block the event loop that it was made on; "
        f"use 'await scheduler.{twin}(…)' instead."
    )


class HasBridge(Protocol):
    _bridge: Bridge


S = TypeVar("S", bound=HasBridge)


def on_engine(
    operation: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a coroutine method run on the engine's loop, wherever it is awaited."""

    @wraps(operation)
    async def twin(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._bridge.acall(lambda: operation(self, *args, **kwargs))

    return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, R]]", twin)


def blocking(
    twin: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], R]:
    """The synchronous form of a method made by `on_engine`."""
    operation: Callable[Concatenate[S, P], Coroutine[Any, Any, R]] = twin.__wrapped__  # type: ignore[attr-defined]

    @wraps(operation)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._bridge.call(lambda: operation(self, *args, **kwargs), twin.__name__)

    call.__name__ = twin.__name__.removeprefix("a")
    call.__qualname__ = twin.__qualname__.replace(twin.__name__, call.__name__)
    return cast("Callable[Concatenate[S, P], R]", call)
