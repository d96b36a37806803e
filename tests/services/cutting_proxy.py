"""A proxy on the loopback interface that loses replies of a server, or holds them back, after it
has done its work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["CuttingProxy", "cutting_proxy"]

SIZE = 1 << 16


class CuttingProxy:
    """Passes everything on, until it is told to lose a reply, or to keep it for a while.

    Args:
        address: Of the server.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._word: bytes | None = None
        self._times = 0
        self._held_word: bytes | None = None
        self._may_pass = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None] | None] = set()
        self.port = 0
        self.lost = 0

    def lose_reply_to(self, word: bytes, times: int = 1) -> None:
        """Cut the connection instead of passing on the reply to what has this in it."""
        self._word, self._times = word, times

    def hold_reply_to(self, word: bytes) -> None:
        """Keep the replies to what has this in it, and what follows them, until `let_pass`."""
        self._held_word = word
        self._may_pass.clear()

    def let_pass(self) -> None:
        """Pass on what was kept."""
        self._held_word = None
        self._may_pass.set()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        here = asyncio.current_task()
        self._connections.add(here)
        to_reader, to_writer = await asyncio.open_connection(*self._address)
        state = {"cut": False, "held": False}
        self._writers |= {writer, to_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, to_writer, state))
                group.create_task(self._replies(to_reader, writer, state))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for end in (writer, to_writer):
                end.close()
            self._writers -= {writer, to_writer}
            self._connections.discard(here)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool]
    ) -> None:
        while data := await reader.read(SIZE):
            if self._word is not None and self._times and self._word in data:
                self._times -= 1
                state["cut"] = True
            if self._held_word is not None and self._held_word in data:
                state["held"] = True
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, bool]
    ) -> None:
        while data := await reader.read(SIZE):
            if state["cut"]:
                self.lost += 1
                raise ConnectionResetError
            if state["held"]:
                await self._may_pass.wait()
                state["held"] = False
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def hang_up(self) -> None:
        """Cut all connections."""
        self.let_pass()
        while ends := [connection for connection in self._connections if connection is not None]:
            for writer in self._writers:
                writer.close()
            await asyncio.wait(ends, timeout=0.1)


@asynccontextmanager
async def cutting_proxy(address: tuple[str, int]) -> AsyncIterator[CuttingProxy]:
    """A proxy before a server; it ends with the block."""
    proxy = CuttingProxy(address)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.hang_up()
        await server.wait_closed()
