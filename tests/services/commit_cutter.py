"""A proxy in front of a server that loses the answer to a commit, and with it the connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["CommitCutter"]

CHUNK = 65_536
DONE = b"COMMIT\0"
"""How PostgreSQL says that a commit is done."""


class CommitCutter:
    """Listens on a free loopback port and passes everything on to another.

    Args:
        port: Of the server, on the loopback interface.
        asks: Whether the commit is recognised by the question, as for MySQL, not by the answer.
    """

    def __init__(self, port: int, asks: bool) -> None:
        self._port = port
        self._asks = asks
        self._links: set[asyncio.Task[None]] = set()
        self.port = 0
        self.cuts = 0
        """How many answers to commits are to be lost from now on."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        with suppress(OSError):
            await self._pass_on(reader, writer)
        self._links.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        asked = asyncio.Event()

        async def questions() -> None:
            while data := await reader.read(CHUNK):
                if self._asks and b"COMMIT" in data and self.cuts:
                    asked.set()
                back.write(data)

        async def answers() -> None:
            while data := await there.read(CHUNK):
                if asked.is_set() or (not self._asks and DONE in data and self.cuts):
                    self.cuts -= 1
                    return
                writer.write(data)

        ways = [asyncio.ensure_future(questions()), asyncio.ensure_future(answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, back):
                end.close()
