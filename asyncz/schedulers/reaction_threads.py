"""Threads for the plain functions that are called when runs have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from asyncz.executors.pool import DEFAULT_WORKERS
from asyncz.executors.workers import WorkerPool

__all__ = ["ReactionThreads"]


class ReactionThreads:
    """A few threads of their own, which hold up nobody: a reaction that blocks for ever must take
    the threads neither of the runs nor of the app's `asyncio.to_thread`, nor keep the process from
    ending. Used on the loop that user code lives on."""

    def __init__(self) -> None:
        self._workers: WorkerPool | None = None

    async def call(self, reaction: Callable[..., Any], *args: Any) -> BaseException | None:
        """Call a plain function in a thread, when one is free. Returns what it has raised."""
        if self._workers is None:
            self._workers = WorkerPool(DEFAULT_WORKERS, "asyncz reactions")
        call = partial(copy_context().run, _raised_by, reaction, *args)
        return await asyncio.wrap_future(self._workers.submit(call))

    def close(self) -> None:
        """Let the threads end. From any thread."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()


def _raised_by(reaction: Callable[..., Any], *args: Any) -> BaseException | None:
    # Not every exception can be raised again out of a future.
    try:
        reaction(*args)
    except BaseException as exc:
        return exc
    return None
