"""Moments at which a worker dies or stops by itself, while it asks its store for something."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from random import random
from threading import Thread
from typing import Any

from sqlalchemy import Connection

from asyncz.schedulers import caretaker
from asyncz.schedulers.handover import HandOver
from asyncz.stores.base import BaseStore
from asyncz.stores.cluster import Fired, Pulse
from asyncz.stores.sqlalchemy_firing import Shot, Volley

from .journal import EPOCH, Journal

__all__ = ["AT_END", "DECLARING", "POINTS", "die_at", "points_of", "stop_in_claim"]

Call = Callable[..., Awaitable[Any]]

CALLS = {
    "start": 1,
    "lookup_task": 1,
    "update_task_if": 2,
    "join_node": 1,
    "get_nodes": 1,
    "look": 3,
    "get_due_tasks": 2,
    "fire": 2,
    "start_runs": 1,
    "finish_runs": 2,
    "reap": 1,
    "get_own_runs": 1,
    "open": 1,
    "beat": 2,
    "release_runs": 1,
    "leave_node": 1,
    "announce": 1,
    "shutdown": 1,
    "attend": 1,
    "note_runs": 1,
    "cancel_run": 1,
    "prune_runs": 1,
    "forget_runs": 1,
    "get_due_tasks_behind": 1,
    "get_due_tasks_apart": 1,
}
"""What a worker asks its store for, and at which call of it it dies."""
PULSE = frozenset({"open", "beat"})
"""Those of the heartbeat."""
DECLARING = frozenset({"lookup_task", "update_task_if"})
"""What only a worker asks for that declares tasks."""
AT_END = frozenset({"release_runs", "leave_node", "announce", "shutdown"})
"""What only a worker asks for that is told to end."""
MOMENTS = ("before", "during", "after")
POINTS = tuple(f"{name}:{moment}" for name in CALLS for moment in MOMENTS)
ANNOUNCING = frozenset({"postgresql", "redis", "mongodb"})
"""The kinds of stores that announce anything."""
HANDING_OUT = frozenset({"redis"})
"""The kinds that divide a backlog among those that ask for it; in others they seek a place."""
SOON = 0.3
"""Seconds after which a worker forgets old runs that dies by that."""
USUAL = 0.003
"""Seconds that a call takes, of which nothing else is known."""


def points_of(kind: str) -> list[str]:
    """The points that a worker on a store of this kind comes to."""
    never = {"get_due_tasks_behind" if kind in HANDING_OUT else "get_due_tasks_apart"}
    if kind not in ANNOUNCING:
        never.add("announce")
    return [point for point in POINTS if point.partition(":")[0] not in never]


def die_at(point: str, store: type[BaseStore], journal: Journal) -> None:
    """Have this process kill itself at a point."""
    name, _, moment = point.partition(":")
    death = _Death(point, moment, CALLS[name], journal)
    _hasten(name)
    if name not in PULSE:
        setattr(store, name, death.upon(getattr(store, name)))
        return
    make: Callable[..., Pulse | None] = store.pulse  # type: ignore[attr-defined]  # it is shared

    def pulse(self: BaseStore, node_id: str) -> Pulse | None:
        made = make(self, node_id)
        if made is not None:
            setattr(made, name, death.upon(getattr(made, name)))
        return made

    store.pulse = pulse  # type: ignore[attr-defined]


def _hasten(name: str) -> None:
    """Have this process ask soon for what is asked for once in a while only."""
    if name == "forget_runs":
        caretaker.FORGET_EVERY = SOON
    elif name == "get_due_tasks_behind":
        always = property(lambda self: True, lambda self, value: None)
        HandOver._has_rivals = always  # type: ignore[assignment]  # others are as fast as this


class _Death:
    """When and where a process dies.

    Args:
        point: For the journal.
        moment: Before the call, at a random moment of it, or when its answer is there.
        number: At which call.
        journal: Where it says so first.
    """

    def __init__(self, point: str, moment: str, number: int, journal: Journal) -> None:
        self._point = point
        self._moment = moment
        self._number = number
        self._journal = journal
        self._calls = 0
        self._took = USUAL

    def upon(self, call: Call) -> Call:
        """The call, in the course of which it dies."""

        @wraps(call)
        async def fatal(*args: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls != self._number:
                began = time.monotonic()
                answer = await call(*args, **options)
                self._took = time.monotonic() - began
                return answer
            if self._moment == "before":
                self._die()
            elif self._moment == "during":
                Thread(target=self._die_soon, daemon=True).start()
            try:
                return await call(*args, **options)
            finally:
                self._die()

        return fatal

    def _die_soon(self) -> None:
        time.sleep(random() * self._took)
        self._die()

    def _die(self) -> None:
        self._journal.note("K", self._point, EPOCH)
        os.kill(os.getpid(), signal.SIGKILL)


def stop_in_claim(number: int, journal: Journal) -> None:
    """Have this process stop itself in a claim, with the rows changed and nothing committed.

    Args:
        number: In which of those in which it wins something.
        journal: Where it says so first.
    """
    fire, left = Volley.fire, [number]

    def fire_and_stop(
        self: Volley, connection: Connection, now: int, shots: list[Shot]
    ) -> list[Fired]:
        said = fire(self, connection, now, shots)
        left[0] -= Fired.WON in said
        if Fired.WON in said and not left[0]:
            for shot in shots:  # whoever has lost one has locked it too
                journal.note("Z", str(shot.firing.task.id), shot.firing.expected or EPOCH)
            os.kill(os.getpid(), signal.SIGSTOP)
        return said

    Volley.fire = fire_and_stop  # type: ignore[method-assign,assignment]
