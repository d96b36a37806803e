"""Runs in other processes: for work that would hold the interpreter's lock."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor as StandardPool
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from traceback import format_exception_only
from typing import Any

from pydantic import Field

from asyncz.clock import SystemClock
from asyncz.enums import Delivery
from asyncz.exceptions import RemoteTaskError, TaskOptionError, class_names
from asyncz.executors.base import ExecutorHost, Outcome
from asyncz.executors.calls import await_each, call_each, cut_off, failed, timed_out
from asyncz.executors.going import Going
from asyncz.executors.tracking import TrackingExecutor
from asyncz.executors.workers import check_pool_options
from asyncz.runs.current import CURRENT_RUN, CurrentRun
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

__all__ = ["ProcessPoolExecutor"]

POOL_OPTIONS = frozenset({"mp_context", "initializer", "initargs", "max_tasks_per_child"})


class ProcessPoolExecutor(TrackingExecutor):
    """Runs tasks in worker processes; a coroutine function in a loop of the worker's own.

    The callable, its arguments and what it returns have to be picklable. A worker that dies
    breaks the pool: the runs that were in it fail, and the pool is rebuilt for the next ones.

    Args:
        max_workers: How many processes.
        pool_kwargs: `mp_context` (default: spawn, the one that is safe in a process with
            threads), `initializer`, `initargs`, `max_tasks_per_child`.
    """

    max_workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    pool_kwargs: dict[str, Any] = Field(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._pool: StandardPool | None = None
        self._line: deque[_Sent] = deque()
        self._inside: set[_Sent] = set()

    def start(self, scheduler: ExecutorHost, alias: str) -> None:
        check_pool_options(alias, self.pool_kwargs, POOL_OPTIONS)
        super().start(scheduler, alias)

    def check_task(self, task: Task) -> None:
        """Raise TaskOptionError, naming what it is, if the task cannot be sent to a process."""
        parts = [("fn", task.fn)]
        parts += [(f"args[{index}]", value) for index, value in enumerate(task.args)]
        parts += [(f"kwargs[{key!r}]", value) for key, value in task.kwargs.items()]
        for name, value in parts:
            if error := _pickling_error(value):
                raise TaskOptionError(
                    f"Task {task.id!r}: {name} ({type(value).__name__}) cannot be sent to the "
                    f"processes of the executor {self._alias!r}: it is not picklable "
                    f"({type(error).__name__}). Use a function of a module and plain values."
                )

    def do_send_task(self, task: Task, run_times: Sequence[datetime]) -> None:
        self._line.append(_Sent(task, run_times, self._host))
        self._going.add(self._line[-1])
        self._hand_over()

    def _hand_over(self) -> None:
        """Give the pool as many runs as it has processes. What it is given beyond that cannot be
        told any more from what is being done, and could only be ended with that."""
        while self._line and len(self._inside) < self.max_workers:
            going = self._line.popleft()
            if going in self._going:
                self._send(going)

    def _send(self, going: _Sent) -> None:
        self._inside.add(going)
        try:
            future = self._submitted(going)
        except Exception as exc:
            self._ended(going, [failed(moment, exc) for moment in going.run_times])
            return
        going.limit(self._loop, self._time_is_up)
        going.arm(len(going.run_times))
        self._watch(going, future)

    def _submitted(self, going: _Sent) -> Future[list[Outcome]]:
        task, run_times = going.task, going.run_times
        # A worker has the machine's clock; it cannot judge lateness on a virtual one.
        real = isinstance(self.host.clock, SystemClock)
        grace = self._grace_of(task) if real else None
        whose = str(task.id), task.store_alias, *going.numbers
        call = partial(run_in_worker, going.work, list(run_times), grace, whose)
        try:
            return self._healthy_pool().submit(call)
        except BrokenProcessPool:
            self._logger.error("A process of the executor %r died; it is rebuilt.", self._alias)
            self._pool = None
            return self._healthy_pool().submit(call)

    def _leave(self, going: Going) -> bool:
        was_going = super()._leave(going)
        self._inside.discard(going)
        if was_going:
            self._hand_over()
        return was_going

    def _healthy_pool(self) -> StandardPool:
        if self._pool is None:
            options = {"mp_context": multiprocessing.get_context("spawn"), **self.pool_kwargs}
            begin = options.pop("initializer", None), options.pop("initargs", ())
            self._pool = StandardPool(
                self.max_workers, initializer=_begin_worker, initargs=begin, **options
            )
        return self._pool

    @property
    def ends_at_once(self) -> bool:
        return self._pool is None and super().ends_at_once

    def _cut_off(self, going: Going) -> None:
        line, self._line = self._line, deque()  # all are cut off, and none of these is to begin
        for waiting in line:
            self._ended(waiting, cut_off(waiting.run_times))
        if not going.handle.cancel():
            self._kill_pool()
        self._ended(going, cut_off(going.run_times))

    def _cut_off_one(self, going: Going) -> None:
        self._end_with_process(going, cut_off(going.run_times))

    def _time_is_up(self, going: Going) -> None:
        if going in self._going:
            timeout = going.task.timeout
            late = timed_out(going.run_times[0], timeout, "its process was killed")
            self._end_with_process(going, cut_off(going.run_times, [late]))

    def _end_with_process(self, going: Going, outcomes: Sequence[Outcome]) -> None:
        """End one run. Its process cannot be told from the others of the pool, which all end with
        it; what they were at is begun again in new ones, where that is allowed."""
        if going.handle.done():  # it has ended in this moment
            return
        others: list[_Sent] = []
        if not going.handle.cancel():
            others = [each for each in self._inside if each is not going and not each.handle.done()]
            self._inside.clear()
            self._kill_pool()
        again = [each for each in others if each.task.delivery is Delivery.AT_LEAST_ONCE]
        for other in again:
            other.disarm()
            other.handle = Future()
            self._logger.warning(
                "A run of the task %r is begun again: its process ended with that of another.",
                other.task.id,
            )
        self._line.extendleft(reversed(again))
        self._ended(going, outcomes)
        for other in others:
            if other not in again:
                error = BrokenProcessPool("Its process was killed because of another run in it.")
                self._ended(other, [failed(moment, error) for moment in other.run_times])

    def _kill_pool(self) -> None:
        # What has begun ends only with its process.
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in _processes_of(pool):
                with suppress(OSError, ValueError):
                    process.kill()
            pool.shutdown(wait=False, cancel_futures=True)

    async def _close(self, deadline: float) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = _processes_of(pool)
        pool.shutdown(wait=False, cancel_futures=True)
        left = max(0.1, deadline - asyncio.get_running_loop().time())
        await asyncio.to_thread(_end_all, processes, left)


def _processes_of(pool: StandardPool | None) -> list[Any]:
    # The standard pool offers no other way to its processes before Python 3.14.
    return list((getattr(pool, "_processes", None) or {}).values())


def _end_all(processes: list[Any], timeout: float) -> None:
    for process in processes:
        process.join(timeout / max(1, len(processes)))
        if process.is_alive():
            process.kill()
            process.join(1.0)


def _begin_worker(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    # Ctrl-C reaches the whole process group; when the workers end is up to the scheduler.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="asyncz-parent", daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent() -> None:
    """End this process when the scheduler's is killed: nobody would hear of what it does, another
    scheduler may run it again, and the standard pool would let it wait for more for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


class _Sent(Going):
    """A run that waits for a process, or is in one.

    What it is to be called with is pickled at once, and unpickled by our own code there: what
    cannot be is the failure of this run, and does not break the pool under the others.
    """

    def __init__(
        self, task: Task, run_times: Sequence[datetime], host: ExecutorHost | None
    ) -> None:
        super().__init__(task, run_times, Future(), host)
        self.work = bytes(ForkingPickler.dumps((task.fn, task.args, task.kwargs)))


class _Follower:
    """Follows a run in the worker process; what it says comes back with its outcome."""

    def __init__(self, task_id: str, store_alias: str | None, attempt: int, fence: int) -> None:
        self._whose = task_id, store_alias
        self._attempt = attempt
        self._fence = fence
        self.current: CurrentRun = None  # type: ignore[assignment]  # until it begins

    def begin(self, run_time: datetime) -> None:
        """The function is about to be called for this one."""
        self.current = CurrentRun(*self._whose, run_time, self._attempt, fence=self._fence)

    def end(self, outcome: Outcome) -> Outcome:
        """The same, with what it has said."""
        notes = self.current.notes()
        return outcome._replace(notes=notes) if notes else outcome


def run_in_worker(
    work: bytes,
    run_times: Sequence[datetime],
    grace: float | None,
    whose: tuple[str, str | None, int, int],
) -> list[Outcome]:
    """Called in the worker process, with the pickled callable, arguments and keyword arguments."""
    clock = SystemClock()
    follower = _Follower(*whose)
    CURRENT_RUN.set(follower)

    def too_late(run_time: datetime) -> bool:
        return grace is not None and clock.now() - run_time > timedelta(seconds=grace)

    try:
        fn, args, kwargs = ForkingPickler.loads(work)
    except Exception as exc:
        return [_portable(failed(run_time, exc)) for run_time in run_times]
    if is_coroutine_callable(fn):
        outcomes = asyncio.run(await_each(fn, args, kwargs, run_times, too_late, follower))
    else:
        outcomes = call_each(fn, args, kwargs, run_times, too_late, None, follower)
    return [_portable(outcome) for outcome in outcomes]


def _portable(outcome: Outcome) -> Outcome:
    """The outcome with a value and an exception that survive the way back."""
    if not _survives(outcome.exception):
        shown = "".join(format_exception_only(outcome.exception)).strip()
        outcome = outcome._replace(exception=RemoteTaskError(shown, _names_of(outcome.exception)))
    if not _survives(outcome.value):
        outcome = outcome._replace(value=f"<{type(outcome.value).__qualname__}, not picklable>")
    return outcome


def _names_of(error: object) -> tuple[str, ...]:
    # What is `__main__` for the program has another name in its workers.
    names = class_names(type(error))
    return tuple(name.replace("__mp_main__:", "__main__:") for name in names)


def _survives(value: object) -> bool:
    # An exception whose __init__ wants more than its args pickles, but does not come back, and
    # that would break the pool for everybody.
    return _pickling_error(value, loads=True) is None


def _pickling_error(value: object, *, loads: bool = False) -> Exception | None:
    try:
        pickled = ForkingPickler.dumps(value)
        if loads:
            ForkingPickler.loads(pickled)
    except Exception as exc:
        return exc
    return None
