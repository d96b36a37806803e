"""A thread with an event loop of its own, for an engine that must not use the app's."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

__all__ = ["EngineThread"]

FAREWELL = 1.0
"""Seconds that what is left on the loop has for its `finally` blocks when the loop ends."""
JOIN_TIME = 5.0


class EngineThread:
    """A daemon thread with an event loop.

    It ends also when there are coroutines on its loop that ignore being cancelled; `asyncio.run`
    would wait for them.
    """

    def __init__(self, name: str) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        """Start it and return its loop."""
        self._thread.start()
        self._started.wait()
        loop = self.loop
        if loop is None:  # pragma: no cover - the machine is out of threads or descriptors
            raise RuntimeError("The scheduler's thread could not make an event loop.")
        return loop

    def stop(self, timeout: float = JOIN_TIME) -> None:
        """End the loop, and wait `timeout` seconds for that, except on the thread itself."""
        if self.loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # closed already
                self.loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def stop_elsewhere(self) -> None:
        """The same for a caller who cannot wait, such as the thread itself."""
        threading.Thread(target=self.stop, name="asyncz end", daemon=True).start()

    def _run(self) -> None:
        try:
            loop = asyncio.new_event_loop()
            try:
                asyncio.set_event_loop(loop)
                loop.run_until_complete(self._live())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
        finally:
            self._started.set()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._started.set()
        await self._stop.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=FAREWELL)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.loop.shutdown_asyncgens(), FAREWELL)
