"""Virtual time, and event loops that live in it: each part of a simulated process has its own."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import Any

__all__ = ["ORIGIN", "NodeLoop", "Process", "World"]

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
FOREVER = float("inf")
MAX_STEPS = 150_000
"""Callbacks in one scenario: more than that, and something spins."""


class Process:
    """A process of the simulated machine: it can be killed at any step, and be paused.

    Args:
        name: Of the process.
        world: Where it is.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.alive = True
        self.steps_left = -1
        """Steps until it is killed; negative: it is not."""
        self.main = NodeLoop(self)  # type: ignore[abstract]  # no more of it is needed
        self.beat = NodeLoop(self)  # type: ignore[abstract]
        """Stands for the heartbeat's thread, which goes on while user code blocks the main loop."""
        self.pauses: list[tuple[float, float]] = []
        self.is_stopping = False

    def paused_since(self, time: float) -> float:
        """For how many seconds it has been paused since then."""
        now = self.world.now
        return sum(max(0.0, min(end, now) - max(begin, time)) for begin, end in self.pauses)

    def current_node(self) -> str | None:
        """The id of the node that it is, if it is one now."""
        return None

    @property
    def has_stopped(self) -> bool:
        """Whether it has been shut down."""
        return False

    def left_over(self) -> str:
        """What it has kept though nothing goes on any more."""
        return ""

    def kill(self) -> None:
        """Nothing more of it happens."""
        if self.alive:
            self.alive = False
            self.world.note(self.name, "killed")

    def pause(self, seconds: float) -> None:
        """Nothing of it happens for a while, then it goes on."""
        self.world.note(self.name, "paused", seconds)
        until = self.world.until_calm(seconds)
        self.pauses.append((self.world.now, until))
        self.main.held_until = max(self.main.held_until, until)
        self.beat.held_until = max(self.beat.held_until, until)


class _Handle:
    """A callback; what a loop gives out for it."""

    __slots__ = ("args", "callback", "context", "loop", "time")

    def __init__(
        self,
        loop: NodeLoop | None,
        time: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> None:
        self.loop = loop
        self.time = time
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.time


class World:
    """All that happens, in one order: what is ready, then what the time brings.

    Args:
        rng: Where chance comes from.
        keeps_trace: Whether what happens is written down.
    """

    def __init__(self, rng: Random, keeps_trace: bool = False) -> None:
        self.rng = rng
        self.now = 0.0
        self.calm_at = FOREVER
        self.is_over = False
        self.steps = 0
        self.trace: list[tuple[Any, ...]] | None = [] if keeps_trace else None
        self.tasks: list[asyncio.Task[Any]] = []
        self._ready: deque[_Handle] = deque()
        self._heap: list[tuple[float, int, _Handle]] = []
        self._serial = 0
        self._running: NodeLoop | None = None

    def note(self, *what: Any) -> None:
        """Write something down."""
        if self.trace is not None:
            self.trace.append((round(self.now, 6), *what))

    @property
    def clock(self) -> datetime:
        """The time of the store's server."""
        return ORIGIN + timedelta(seconds=self.now)

    def until_calm(self, seconds: float) -> float:
        """The time in so many seconds, or when faults end."""
        return max(self.now, min(self.now + seconds, self.calm_at))

    def at(
        self,
        loop: NodeLoop | None,
        time: float,
        callback: Callable[..., object],
        *args: Any,
    ) -> _Handle:
        """Call back at a time; without a loop: whatever becomes of any process."""
        handle = _Handle(loop, time, callback, args, None)
        self._push(handle, time)
        return handle

    def _push(self, handle: _Handle, time: float) -> None:
        self._serial += 1
        heappush(self._heap, (time, self._serial, handle))

    def run(self, until: float) -> None:
        """Let everything happen until a time.

        Raises:
            RuntimeError: It does not end.
        """
        ready, heap = self._ready, self._heap
        try:
            while not self.is_over:
                while ready:
                    self._step(ready.popleft())
                if not heap or heap[0][0] > until:
                    break
                time, _, handle = heappop(heap)
                self.now = max(self.now, time)
                ready.append(handle)
                while heap and heap[0][0] <= self.now:
                    ready.append(heappop(heap)[2])
        finally:
            self._running = None
            events._set_running_loop(None)
        self.now = until

    def _step(self, handle: _Handle) -> None:
        callback, loop = handle.callback, handle.loop
        if callback is None:
            return
        if loop is None:
            callback(*handle.args)
            return
        process = loop.process
        if not process.alive:
            return
        if loop.held_until > self.now:
            self._push(handle, loop.held_until)
            return
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise RuntimeError(f"more than {MAX_STEPS:,} steps: something spins")
        if loop is not self._running:
            self._running = loop
            events._set_running_loop(loop)
        if handle.context is None:
            callback(*handle.args)
        else:
            handle.context.run(callback, *handle.args)
        if process.steps_left >= 0:
            process.steps_left -= 1
            if process.steps_left < 0:
                process.kill()

    def unnoticed(self) -> list[str]:
        """The errors of tasks, in processes that live, that nobody has taken note of."""
        return [
            f"{task.get_name()}: {task.exception()!r}"
            for task in self.tasks
            if task.done() and task._log_traceback and task.get_loop().process.alive  # type: ignore[attr-defined]
        ]

    def close(self) -> None:
        """End what is left of all processes without a word."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine: Any = task.get_coro()
                for _ in range(3):
                    try:
                        coroutine.close()
                    except RuntimeError:
                        continue  # it awaits something on its way out
                    break
        self._ready.clear()
        self._heap.clear()


class NodeLoop(asyncio.AbstractEventLoop):
    """An event loop of a process, as far as schedulers need one."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._world = process.world
        self.held_until = 0.0

    def time(self) -> float:
        return self._world.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        world = self._world
        handle = _Handle(self, world.now, callback, args, context or copy_context())
        world._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> _Handle:
        return self.call_at(self._world.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> _Handle:
        handle = _Handle(self, when, callback, args, context or copy_context())
        self._world._push(handle, when)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._world.tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing: what has failed unnoticed is looked for at the end, see `World.unnoticed`."""

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False
