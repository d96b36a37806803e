"""The thread of a store whose calls block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread, local
from time import sleep, thread_time
from typing import Any, NamedTuple, TypeVar

__all__ = ["StoreThread", "give_way"]

T = TypeVar("T")

TURN = 0.001
"""Seconds of work after which others get the interpreter; by itself it would change hands after
five times that, and an event loop asks for it several times before it is round once."""
BREAK = 0.000_05

_worked = local()


def give_way() -> None:
    """Let the event loop's thread have the interpreter, if it may have waited for it.

    For the middle of work that keeps Python busy. Without a wait of some length the thread that
    has let go would have it again before the other one has woken up.
    """
    worked = thread_time()
    if worked - getattr(_worked, "at_the_break", 0.0) > TURN:
        sleep(BREAK)
        _worked.at_the_break = worked


class _Call(NamedTuple):
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def carry_out(self) -> None:
        if self.future.cancelled():
            return
        try:
            result, error = self.work(), None
        except Exception as exc:
            result, error = None, exc
        except BaseException as exc:  # user code may try to exit, and would end the loop with it
            result, error = None, RuntimeError(f"A call of a store ended with {exc!r}.")
        if isinstance(error, StopIteration):  # no future takes it, and its caller would wait on
            error = RuntimeError("A call of a store ended with StopIteration.")
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:
            # The loop was closed meanwhile; nobody is left to be told.
            return

    def _settle(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class StoreThread:
    """Carries out calls one after another on one daemon thread.

    A daemon, so that a disk that does not answer cannot keep the process from ending. A call
    whose caller was cancelled before it began is left out.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = Thread(target=_carry_out_all, args=(self._calls,), name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue `work()`; the future of its result belongs to the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put(_Call(work, future, loop))
        return future

    async def end(self, last_work: Callable[[], None], within: float) -> bool:
        """Let the thread end after the calls it has and this one.

        Returns:
            Whether it did so in that many seconds. It goes on to its end otherwise.
        """
        last = self.submit(last_work)
        self._calls.put(None)
        await asyncio.wait([last], timeout=within)
        if not last.done():
            return False
        self._thread.join()
        last.result()
        return True


def _carry_out_all(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.carry_out()
        # While it waits for the next one, nothing of the last may be kept alive.
        del call
