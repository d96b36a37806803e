"""A pool of daemon threads.

The standard library's pool joins its threads when the interpreter exits, so one job that blocks
for ever would keep the process from ending. These threads do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from asyncz.clock import SystemClock
from asyncz.exceptions import ConfigurationError

__all__ = ["WorkerPool", "check_pool_options"]

R = TypeVar("R")


def check_pool_options(alias: str, given: Mapping[str, Any], known: Set[str]) -> None:
    """Raise ConfigurationError if a pool of workers has no such options."""
    if unknown := given.keys() - known:
        raise ConfigurationError(
            f"pool_kwargs of the executor {alias!r}: {', '.join(sorted(unknown))} unknown; "
            f"known are {', '.join(sorted(known))}."
        )


class WorkerPool:
    """Runs calls in at most `max_workers` threads, started when they are needed.

    Args:
        max_workers: How many calls may go on at once; more wait in line.
        thread_name_prefix: What the threads are called.
        initializer, initargs: Called first in each thread.
    """

    def __init__(
        self,
        max_workers: int,
        thread_name_prefix: str = "asyncz worker",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self._max_workers = max_workers
        self._prefix = thread_name_prefix
        self._initializer = initializer
        self._initargs = initargs
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, call: Callable[[], R]) -> Future[R]:
        """Put a call in line. Its future can be cancelled until it has begun."""
        if self._closed:
            raise RuntimeError("The worker pool is closed.")
        future: Future[R] = Future()
        self._queue.put((future, call))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._max_workers:
            name = f"{self._prefix} {len(self._threads) + 1}"
            self._start_thread(name)
        return future

    def _start_thread(self, name: str) -> None:
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more threads
            if not self._threads:
                self._queue.get_nowait()
                raise
        else:
            self._threads.append(thread)

    def close(self) -> None:
        """Take no more calls; each thread ends when those before this are done."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait, `timeout` seconds in all, for the threads of a closed pool to end."""
        now = SystemClock().monotonic
        deadline = now() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - now()))

    @property
    def busy_names(self) -> list[str]:
        """The names of threads that are still alive."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _work(self) -> None:
        refusal = self._initialize()
        while (item := self._next()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    if refusal is not None:
                        raise refusal
                    future.set_result(call())
                except BaseException as exc:
                    future.set_exception(exc)
            del item, future, call  # an idle thread must not keep a task's values alive

    def _initialize(self) -> BaseException | None:
        if self._initializer is not None:
            try:
                self._initializer(*self._initargs)
            except BaseException as exc:
                # Dying here would leave the calls in line without an answer.
                return exc
        return None

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        try:
            return self._queue.get_nowait()
        except Empty:
            self._idle.release()
            return self._queue.get()
