"""The memory store in a process of its own, for several workers: the engine without a database.

What fails on it is the engine's fault. Requests and answers are pickled, as both ends are ours.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partialmethod
from inspect import iscoroutinefunction
from io import BytesIO
from types import SimpleNamespace
from typing import Any, ClassVar

from asyncz import NativeAsyncIOScheduler
from asyncz.clock import SystemClock
from asyncz.exceptions import StoreError
from asyncz.stores.base import BaseStore, StoreHost
from asyncz.stores.cluster import ClusterStore, Pulse
from tests.stores import model_runs
from tests.stores.model_store import ModelStore

__all__ = ["ServedMemoryStore", "serve"]

LENGTH = 4


class Line:
    """A connection to the server, made when it is needed."""

    def __init__(self, where: str) -> None:
        self._host, port = where.split(":")
        self._port = int(port)
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._busy = asyncio.Lock()

    async def ask(self, name: str, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """The answer; or the error, raised."""
        async with self._busy:
            try:
                if self._ends is None:
                    self._ends = await asyncio.open_connection(self._host, self._port)
                reader, writer = self._ends
                _write(writer, (name, args, options))
                good, answer = await _read(reader)
            except (OSError, EOFError) as exc:
                self.close()
                raise StoreError(f"The served memory does not answer: {exc!r}") from exc
            except BaseException:
                self.close()  # the answer would be taken for that to the next question
                raise
        if not good:
            raise answer
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


class _Pickler(pickle.Pickler):
    """A task knows its scheduler, which stays here."""

    def persistent_id(self, obj: Any) -> str | None:
        return "scheduler" if isinstance(obj, NativeAsyncIOScheduler) else None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> None:
        return None


def _write(writer: asyncio.StreamWriter, message: object) -> None:
    buffer = BytesIO()
    _Pickler(buffer).dump(message)
    data = buffer.getvalue()
    writer.write(len(data).to_bytes(LENGTH) + data)


async def _read(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(LENGTH))
    return _Unpickler(BytesIO(await reader.readexactly(length))).load()


class ServedMemoryPulse(Pulse):
    """A heartbeat."""

    def __init__(self, where: str, node_id: str) -> None:
        self._where, self._node_id = where, node_id

    async def open(self) -> None:
        self._line = Line(self._where)

    async def beat(self, lease: float, running: int) -> bool:
        found: bool = await self._line.ask("renew_node", (self._node_id, lease, running), {})
        return found

    async def close(self) -> None:
        self._line.close()


class ServedMemoryStore(BaseStore, ClusterStore):
    """Asks the server everything."""

    in_process: ClassVar[bool] = False

    where: str

    async def start(self, scheduler: StoreHost, alias: str) -> None:
        await super().start(scheduler, alias)
        self._line = Line(self.where)

    async def shutdown(self) -> None:
        if self._host is not None:
            self._line.close()
        await super().shutdown()

    def pulse(self, node_id: str) -> Pulse | None:
        return ServedMemoryPulse(self.where, node_id)

    async def _ask(self, name: str, *args: Any, **options: Any) -> Any:
        return await self._line.ask(name, args, options)


def _complete(store: Any) -> None:
    """All other operations are asked for by name."""
    own = {name for name in vars(store) if not name.startswith("_")}
    operations = {*vars(BaseStore), *vars(ClusterStore)} & {*vars(ModelStore)} - own
    for name in operations:
        if iscoroutinefunction(getattr(ModelStore, name)):
            setattr(store, name, partialmethod(store._ask, name))
    store.__abstractmethods__ = frozenset()


class _Server:
    """Answers one question at a time."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):
            while True:
                name, args, options = await _read(reader)
                try:
                    answer = True, await getattr(self._store, name)(*args, **options)
                except Exception as exc:
                    answer = False, exc
                _write(writer, answer)
                await writer.drain()
        writer.close()


async def serve() -> None:
    """Serve on a free port of the loopback interface, and print it."""
    model_runs.KEPT_RUNS, model_runs.KEPT_CLAIMS = 1_000_000, 1_000
    store = ModelStore()
    await store.start(SimpleNamespace(clock=SystemClock()), "default")
    server = await asyncio.start_server(_Server(store).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


_complete(ServedMemoryStore)

if __name__ == "__main__":
    asyncio.run(serve())
