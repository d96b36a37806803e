"""Starting and stopping a scheduler with an ASGI app.

The order is the same whichever way it is done, so that a task never meets an app that is half
there: the scheduler starts, paused; the app starts; runs are handed out. At shutdown the scheduler
ends its runs first, and what the app has opened for them is closed after that.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from enum import Enum, auto
from inspect import isasyncgenfunction
from logging import getLogger
from typing import TYPE_CHECKING, Any, Protocol

from asyncz.exceptions import ConfigurationError, SchedulerNotRunningError

if TYPE_CHECKING:
    from asyncz.schedulers.inspection import Health

__all__ = ["AnyApp", "Lifespan", "LifespanWrapper", "make_lifespan"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AnyApp = Callable[..., Awaitable[None]]
"""An ASGI 3 app; frameworks each have a type of their own for what it is called with."""
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

STATE_KEY = "scheduler"

logger = getLogger("asyncz.asgi")


class Startable(Protocol):
    """A scheduler, as far as an app's lifespan is concerned with it."""

    async def astart(self, paused: bool = False) -> bool: ...
    async def aresume(self) -> None: ...
    async def ashutdown(self, wait: bool = True) -> bool: ...
    def health(self) -> Health: ...


class _Span:
    """One app's hold on a scheduler, from before the app's startup to before its shutdown.

    Args:
        scheduler: Counts its starts, so several spans may overlap.
        wait: Whether to let runs finish when the app shuts down.
    """

    def __init__(self, scheduler: Startable, wait: bool) -> None:
        self.failure: Exception | None = None
        self._scheduler = scheduler
        self._wait = wait
        self._held = False
        self._to_resume = False

    async def open(self) -> None:
        """Start the scheduler, unless somebody has: tasks can be added, none is run yet."""
        self._to_resume = await self._scheduler.astart(paused=True)
        self._held = True

    async def begin(self) -> None:
        """The app is up. Tasks run from now on."""
        if self._to_resume:
            try:
                await self._scheduler.aresume()
            except SchedulerNotRunningError:
                logger.warning("The app's startup has shut the scheduler down; no task will run.")

    async def close(self) -> None:
        """The app is about to shut down. What goes wrong is kept: the app must close all the same.

        The one who opened the span raises `failure` when the app is done.
        """
        try:
            await self._let_go(self._wait)
        except Exception as exc:
            logger.exception("The scheduler could not be shut down.")
            self.failure = exc

    async def abandon(self) -> None:
        """If it is still open: the app failed, or was cancelled. There is no time to wait."""
        await self._let_go(wait=False)

    async def _let_go(self, wait: bool) -> None:
        if self._held:
            self._held = False
            try:
                await self._scheduler.ashutdown(wait)
            except SchedulerNotRunningError:
                logger.debug("The scheduler was shut down before the app.")


def checked_path(path: Any) -> str | None:
    """The path that health is served at; None: nowhere.

    Raises:
        ConfigurationError: It is none that could be asked for.
    """
    if path is None:
        return None
    if not isinstance(path, str) or not path.startswith("/"):
        given = repr(path) if isinstance(path, str) else type(path).__name__
        raise ConfigurationError(
            f"health_path must be a path that begins with '/', such as '/healthz', not {given}."
        )
    return path


class LifespanWrapper:
    """An ASGI app around another, which starts and stops a scheduler with it.

    Whatever else is asked of it, the app's attributes included, it passes on.

    Args:
        app: The app.
        scheduler: A failure to start it is reported as `lifespan.startup.failed`, and the app is
            not started then.
        handle_lifespan: Answer the lifespan messages here instead of passing them on. An app
            that does not know them, and raises or returns, is answered for in any case.
        wait: Whether to let runs finish at shutdown.
        health_path: Where GET and HEAD are answered with the scheduler's health, instead of by
            the app; None: nowhere.
    """

    def __init__(
        self,
        app: AnyApp,
        scheduler: Startable,
        handle_lifespan: bool,
        wait: bool,
        health_path: str | None = None,
    ) -> None:
        self.health_path = checked_path(health_path)
        self.app = app
        self.scheduler = scheduler
        self.handle_lifespan = handle_lifespan
        self.wait = wait

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _LifespanCall(self, scope, receive, send).run()
        elif self.health_path is not None and _asks_for(scope, self.health_path):
            await _answer_with(self.scheduler.health(), scope, send)
        else:
            await self.app(scope, receive, send)

    def __getattr__(self, name: str) -> Any:
        # `app.state`, `app.router` and the like stay within reach. `app` itself is missing only
        # while a copy is being made, and asking for it again would never end.
        if name == "app":
            raise AttributeError(name)
        return getattr(self.app, name)


class _Stage(Enum):
    """How far a lifespan has come, as the server sees it."""

    STARTING = auto()
    SERVING = auto()
    STOPPING = auto()
    ENDED = auto()


class _LifespanCall:
    """One lifespan: stands between the server and the app, and does what the app leaves undone."""

    def __init__(
        self, wrapper: LifespanWrapper, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._wrapper = wrapper
        self._scope = scope
        self._receive = receive
        self._send = send
        self._span = _Span(wrapper.scheduler, wrapper.wait)
        self._stage = _Stage.STARTING
        self._startup: Message | None = None

    async def run(self) -> None:
        self._startup = await self._receive()
        await self._start_scheduler()
        try:
            if not self._wrapper.handle_lifespan:
                await self._accompany_app()
            await self._finish()
        finally:
            await self._span.abandon()
        if self._span.failure is not None:
            raise self._span.failure

    async def _start_scheduler(self) -> None:
        try:
            await self._span.open()
        except Exception as exc:
            logger.exception("The scheduler could not be started.")
            text = f"The scheduler could not be started: {_describe(exc)}"
            await self._send({"type": "lifespan.startup.failed", "message": text})
            # As Starlette does: test clients learn of the failure only from this.
            raise
        if isinstance(state := self._scope.get("state"), MutableMapping):
            state[STATE_KEY] = self._wrapper.scheduler

    async def _accompany_app(self) -> None:
        try:
            await self._wrapper.app(self._scope, self._next_for_app, self._answer)
        except Exception as exc:
            if self._stage in (_Stage.STOPPING, _Stage.ENDED):
                raise
            self._explain_departure(exc)

    def _explain_departure(self, error: Exception) -> None:
        # The specification: the server goes on with an app that raises instead of answering.
        if self._stage is _Stage.SERVING:
            logger.error("The app left its lifespan; it is served all the same.", exc_info=error)
        elif self._startup is None:
            logger.warning(
                "The app raised during its startup instead of sending "
                "'lifespan.startup.failed', so it is served.",
                exc_info=error,
            )
        else:
            logger.debug("The app does not take lifespan messages.", exc_info=error)

    async def _finish(self) -> None:
        if self._stage is _Stage.STARTING:
            await self._answer({"type": "lifespan.startup.complete"})
        if self._stage is _Stage.SERVING:
            self._startup = None
            await self._next_for_app()
        if self._stage is _Stage.STOPPING:
            await self._answer({"type": "lifespan.shutdown.complete"})

    async def _next_for_app(self) -> Message:
        """The app's `receive`."""
        if self._startup is not None:
            message, self._startup = self._startup, None
            return message
        message = await self._receive()
        if message["type"] == "lifespan.shutdown":
            await self._span.close()
            self._stage = _Stage.STOPPING
        return message

    async def _answer(self, message: Message) -> None:
        """The app's `send`."""
        if message["type"] == "lifespan.startup.complete":
            await self._span.begin()
            self._stage = _Stage.SERVING
        else:
            await self._span.close()
            self._stage = _Stage.ENDED
            message = self._with_failure(message)
        await self._send(message)

    def _with_failure(self, message: Message) -> Message:
        if self._span.failure is None:
            return message
        text = f"The scheduler could not be shut down: {_describe(self._span.failure)}"
        kind = message["type"].replace("complete", "failed")
        return {"type": kind, "message": "\n".join(filter(None, (message.get("message"), text)))}


def _asks_for(scope: Scope, path: str) -> bool:
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    # Below the place that the app is mounted at, which servers give in either form.
    root, full = scope.get("root_path", ""), scope["path"]
    return full in (path, root + path)


async def _answer_with(health: Health, scope: Scope, send: Send) -> None:
    """The health as JSON: 200, or 503 if not all is well, for whoever only looks at that."""
    # Why a store does not answer is for the log: it may name servers, and anybody may ask here.
    known = health.model_dump(mode="json") | {"degraded": sorted(health.degraded)}
    body = json.dumps(known).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    status = 200 if health.status == "ok" else 503
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def make_lifespan(scheduler: Startable, app_lifespan: Lifespan | None, wait: bool) -> Lifespan:
    """A lifespan context manager that runs the scheduler together with the app's own lifespan."""
    inner = app_lifespan or _nothing
    if isasyncgenfunction(inner):
        inner = asynccontextmanager(inner)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        span = _Span(scheduler, wait)
        await span.open()
        try:
            async with inner(app) as state:
                own = dict(state) if isinstance(state, Mapping) else {}
                await span.begin()
                try:
                    yield {STATE_KEY: scheduler, **own}
                    await span.close()
                finally:
                    await span.abandon()
        finally:
            await span.abandon()
        if span.failure is not None:
            raise span.failure

    return lifespan


def _nothing(app: Any) -> AbstractAsyncContextManager[None]:
    return nullcontext()


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
