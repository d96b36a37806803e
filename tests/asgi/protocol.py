"""The server's side of the ASGI lifespan protocol, and apps to try it on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Self

from asyncz import AsyncIOScheduler, MemoryStore, NativeAsyncIOScheduler

PATIENCE = 5.0
"""Seconds that anything here may take."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[..., Awaitable[None]]
AnyScheduler = AsyncIOScheduler | NativeAsyncIOScheduler

SCHEDULERS = [AsyncIOScheduler, NativeAsyncIOScheduler]

COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class LifespanServer:
    """Calls an app with a lifespan scope, as a server does, one message at a time."""

    def __init__(self, app: App, **scope: Any) -> None:
        self.state: dict[str, Any] = {}
        self.sent: list[Message] = []
        self._app = app
        self._scope = {"type": "lifespan", "state": self.state, **scope}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._call: asyncio.Task[None] | None = None

    async def startup(self) -> Message | None:
        """Send `lifespan.startup`. Returns the answer; None: the app ended without one."""
        self.begin()
        return await self._answer()

    def begin(self) -> None:
        """Send `lifespan.startup` and do not wait for the answer."""
        self._to_app.put_nowait({"type": "lifespan.startup"})
        self._call = asyncio.create_task(self._run(), name="lifespan")

    async def shutdown(self) -> Message | None:
        """Send `lifespan.shutdown`. Returns the answer; None: the app ended without one."""
        self._to_app.put_nowait({"type": "lifespan.shutdown"})
        return await self._answer()

    async def end(self) -> BaseException | None:
        """Wait until the call has ended. Returns what it raised."""
        call = self.call
        done, _ = await asyncio.wait([call], timeout=PATIENCE)
        assert done, "the app did not return"
        return asyncio.CancelledError() if call.cancelled() else call.exception()

    @property
    def call(self) -> asyncio.Task[None]:
        assert self._call is not None, "startup comes first"
        return self._call

    async def _run(self) -> None:
        await self._app(self._scope, self._to_app.get, self._send)

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self._from_app.put_nowait(message)

    async def _answer(self) -> Message | None:
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait(
            [answer, self.call], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        if answer.done() or not self._from_app.empty():
            return await answer
        answer.cancel()
        assert self.call.done(), "the app did not answer"
        return None


@asynccontextmanager
async def served(app: App) -> AsyncIterator[LifespanServer]:
    """An app between a startup and a shutdown that both succeed."""
    server = LifespanServer(app)
    try:
        assert await server.startup() == COMPLETE
        yield server
        assert await server.shutdown() == STOPPED
        assert await server.end() is None
    finally:
        server.call.cancel()  # only a test that has failed leaves it running
        await asyncio.wait([server.call], timeout=PATIENCE)


class Recorder:
    """An app that takes lifespan messages, and notes whether the scheduler was running then."""

    def __init__(self, scheduler: AnyScheduler | None = None) -> None:
        self.scheduler = scheduler
        self.seen: list[tuple[str, bool | None]] = []
        self.scopes: list[Message] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        while scope["type"] == "lifespan":
            step = (await receive())["type"]
            running = self.scheduler.running if self.scheduler is not None else None
            self.seen.append((step.removeprefix("lifespan."), running))
            await send({"type": f"{step}.complete"})
            if step == "lifespan.shutdown":
                return


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


class BrokenStore(MemoryStore):
    """A store whose server is down."""

    async def start(self, scheduler: Any, alias: str) -> None:
        raise ConnectionError("nobody listens on port 6379")


class Gate:
    """A task that begins, and ends when it is told to or cut off; says which."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = ""

    async def run(self) -> None:
        self.begun.set()
        try:
            await self.may_end.wait()
            self.ended = "finished"
        except asyncio.CancelledError:
            self.ended = "cut off"
            raise

    async def __aenter__(self) -> Self:
        await asyncio.wait_for(self.begun.wait(), PATIENCE)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.may_end.set()
