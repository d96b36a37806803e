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
        self._started = 0
        self._lock = threading.Lock()
        self._replaced: set[Future[Any]] = set()
        self._not_replaced: list[Future[Any]] = []
        self._closed = False

    def submit(self, call: Callable[[], R]) -> Future[R]:
        """Put a call in line. Its future can be cancelled until it has begun."""
        if self._closed:
            raise RuntimeError("The worker pool is closed.")
        future: Future[R] = Future()
        self._queue.put((future, call))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                if len(self._threads) - len(self._replaced) < self._max_workers:
                    self._start_thread()
        return future

    def give_up(self, future: Future[Any]) -> bool:
        """Nobody waits any more for a call that has begun: another thread takes the place of its
        own, which ends with it.

        Returns:
            Whether it does: not if as many have been replaced already as may work at once.
        """
        with self._lock:
            if self._closed or future.done():
                return True
            if len(self._replaced) >= self._max_workers:
                self._not_replaced.append(future)
                return False
            self._replaced.add(future)
            if not self._queue.empty():
                self._start_thread()
            return True

    def _start_thread(self) -> None:
        self._started += 1
        name = f"{self._prefix} {self._started}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more threads
            self._threads.remove(thread)
            self._started -= 1
            if not self._threads:
                self._queue.get_nowait()
                raise

    def _is_replaced(self, future: Future[Any]) -> bool:
        """Whether a thread is to end after this call, as another has taken its place."""
        with self._lock:
            if future in self._not_replaced:
                self._not_replaced.remove(future)
            elif future in self._replaced:
                self._replaced.remove(future)
                if self._not_replaced:  # instead of one that hangs still
                    self._replaced.add(self._not_replaced.pop(0))
                elif not self._closed:
                    self._threads.remove(threading.current_thread())
                    return True
            return False

    def close(self) -> None:
        """Take no more calls; each thread ends when those before this are done."""
        with self._lock:
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
                if (self._replaced or self._not_replaced) and self._is_replaced(future):
                    return
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
