"""Listeners, and how an event reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from logging import Logger
from typing import Any, NamedTuple

from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import ALL_EVENTS, NAMES
from asyncz.tasks.callables import callable_name, is_coroutine_callable

__all__ = ["EventDispatcher", "Listener", "check_mask"]

Spawn = Callable[[Coroutine[Any, Any, None], str], None]
"""Runs a coroutine on the loop that user code lives on, under a name."""


class Listener(NamedTuple):
    """A callback, the set of event codes it wants, and whether it is a coroutine function."""

    callback: Callable[[SchedulerEvent], Any]
    mask: int
    is_coroutine: bool


def check_mask(mask: Any) -> None:
    """Raise ValueError, or TypeError, if these are no codes of events."""
    if isinstance(mask, bool) or not isinstance(mask, int):
        name = mask if isinstance(mask, str) and mask in NAMES.values() else "TASK_ERROR"
        raise TypeError(
            f"mask must be made of the constants of asyncz.events.constants, not of type "
            f"{type(mask).__name__}; write 'from asyncz.events.constants import {name}' and give "
            f"{name}."
        )
    if not 0 < mask <= ALL_EVENTS:
        raise ValueError(f"mask must be made of codes of asyncz.events.constants, not {mask!r}.")


class EventDispatcher:
    """Keeps the listeners of one scheduler and calls them.

    A listener that raises is logged and stops neither the others nor the scheduler. The list is
    replaced, never changed in place, so that listeners may add and remove listeners, from any
    thread, while an event is on its way.
    """

    __slots__ = ("_listeners", "_spawn", "logger", "mask")

    def __init__(self, logger: Logger, spawn: Spawn) -> None:
        self._listeners: tuple[Listener, ...] = ()
        self.logger = logger
        """Where the failures of listeners go; replaced when the scheduler is set up anew."""
        self._spawn = spawn
        self.mask = 0
        """The union of all masks: an event that is not in it need not be built."""

    def wants(self, code: int) -> bool:
        """Whether any listener wants events of this code."""
        return bool(self.mask & code)

    def add(self, callback: Callable[[SchedulerEvent], Any], mask: int = ALL_EVENTS) -> None:
        """Add a listener. Raises TypeError if it cannot be called, ValueError for a bad mask."""
        if not callable(callback):
            raise TypeError(f"A listener must be callable, not {type(callback).__name__}.")
        check_mask(mask)
        added = Listener(callback, mask, is_coroutine_callable(callback))
        self._replace((*self._listeners, added))

    def remove(self, callback: Callable[[SchedulerEvent], Any]) -> bool:
        """Remove the first listener with this callback. Returns whether there was one."""
        for index, listener in enumerate(self._listeners):
            if listener.callback == callback:
                self._replace(self._listeners[:index] + self._listeners[index + 1 :])
                return True
        return False

    def dispatch(self, event: SchedulerEvent) -> None:
        """Call every listener that wants the event."""
        for listener in self._listeners:
            if listener.mask & event.code:
                self._call(listener, event)

    def _replace(self, listeners: tuple[Listener, ...]) -> None:
        self._listeners = listeners
        mask = 0
        for listener in listeners:
            mask |= listener.mask
        self.mask = mask

    def _call(self, listener: Listener, event: SchedulerEvent) -> None:
        name = callable_name(listener.callback)
        try:
            if listener.is_coroutine:
                self._spawn(self._guard(listener, event, name), f"asyncz listener {name}")
            else:
                listener.callback(event)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # SystemExit would end the process that serves the app, CancelledError the engine's
            # pass, with runs not handed over.
            self.logger.exception("The listener %s failed on %r.", name, event)

    async def _guard(self, listener: Listener, event: SchedulerEvent, name: str) -> None:
        try:
            await listener.callback(event)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException:
            self.logger.exception("The listener %s failed on %r.", name, event)
