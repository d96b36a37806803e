"""A proxy on the loopback interface that loses replies of a server, or all connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

__all__ = ["Proxy", "proxy_before"]

SIZE = 1 << 16


class Proxy:
    """Passes everything on; it can be told to lose replies, and to refuse connections.

    Args:
        port: Of the server, on the loopback interface.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._about = 0
        self._to_loss = 0
        self._random = Random(1)  # not a secret
        self.port = 0
        self.lost = 0
        """Replies that were not passed on. The server had done what was asked."""
        self.refuses = False
        self.serving: set[asyncio.Task[None]] = set()

    def lose_one_in(self, about: int) -> None:
        """Lose a reply, with its connection, now and then: one in so many; 0: none any more."""
        self._about = about
        self._set_next_loss()

    def has_lost_more_than(self, number: int) -> bool:
        """Whether so many replies were lost, and one more."""
        return self.lost > number

    def hang_up(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if (task := asyncio.current_task()) is not None:
            self.serving.add(task)
            task.add_done_callback(self.serving.discard)
        if self.refuses:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_writer}
        self._writers |= ends
        ways = {
            asyncio.ensure_future(self._pass_on(reader, to_writer, False)),
            asyncio.ensure_future(self._pass_on(to_reader, writer, True)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in ends:
                end.transport.abort()
            self._writers -= ends

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool
    ) -> None:
        try:
            while data := await reader.read(SIZE):
                if replies and self._is_to_be_lost():
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    def _is_to_be_lost(self) -> bool:
        if not self._about:
            return False
        self._to_loss -= 1
        if self._to_loss > 0:
            return False
        self._set_next_loss()
        return True

    def _set_next_loss(self) -> None:
        self._to_loss = self._random.randint(1, 2 * self._about) if self._about else 0


@asynccontextmanager
async def proxy_before(port: int) -> AsyncIterator[Proxy]:
    """A proxy before a server; it ends with the block."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.refuses = True
        proxy.hang_up()
        if proxy.serving:
            await asyncio.wait(proxy.serving, timeout=5)
