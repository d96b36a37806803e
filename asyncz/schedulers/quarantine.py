"""What goes into the quarantine and comes out of it: said once, in the log and to listeners."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asyncz.events.base import TaskEvent
from asyncz.events.constants import TASK_QUARANTINED, TASK_RECOVERED
from asyncz.exceptions import TransientTaskError
from asyncz.schedulers.bridge import Bridge, blocking, on_engine
from asyncz.stores.base import QuarantineNews
from asyncz.tasks.base import Task
from asyncz.tasks.callables import callable_name, reference_to, resolve_reference

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine
    from asyncz.schedulers.operations import Operations

__all__ = ["Repairs", "referenced", "report_quarantined", "report_recovered", "report_soon"]

SLICE = 0.004
"""Seconds of reporting before the event loop gets its turn: with a wrong key it is all tasks."""


def report_soon(engine: Engine, alias: str, news: Sequence[QuarantineNews]) -> None:
    """Report what a store says of its quarantine. From any thread."""
    loop = engine.bridge.loop
    if loop is None:
        return
    if engine.bridge.is_here:
        _report(engine, alias, deque(news))
        return
    try:
        loop.call_soon_threadsafe(_report, engine, alias, deque(news))
    except RuntimeError:  # closed meanwhile; nobody is left to be told
        return


def _report(engine: Engine, alias: str, news: deque[QuarantineNews]) -> None:
    loop = engine.loop
    deadline = loop.time() + SLICE
    while news:
        task_id, error = news.popleft()
        if error is None:
            report_recovered(engine, alias, task_id)
        else:
            engine.logger.error(
                "The task %r of the store %r cannot be read; it is kept, and tried again: %s",
                task_id, alias, error,
            )  # fmt: skip
            report_quarantined(engine, alias, task_id, error)
        if news and loop.time() > deadline:
            loop.call_soon(_report, engine, alias, news)
            return


def report_quarantined(engine: Engine, alias: str, task_id: str, error: str) -> None:
    """Tell the listeners why a task is not run."""
    _dispatch(engine, TASK_QUARANTINED, alias, task_id, error)


def report_recovered(engine: Engine, alias: str, task_id: str) -> None:
    """Say that a task is run again."""
    engine.logger.info("The task %r of the store %r can be run again.", task_id, alias)
    _dispatch(engine, TASK_RECOVERED, alias, task_id, None)


def _dispatch(engine: Engine, code: int, alias: str, task_id: str, detail: str | None) -> None:
    if engine.events.mask & code:
        identity = engine.identity
        engine.dispatch(
            TaskEvent(
                code=code, task_id=task_id, store=alias, detail=detail, scheduler_identity=identity
            )
        )


def referenced(fn: Callable[..., object] | str) -> str:
    """The reference to a callable that is to be in a record.

    Raises:
        TaskOptionError: It is a text, and names nothing.
        TransientTaskError: It is a callable without a name that could be found again.
    """
    if isinstance(fn, str):
        resolve_reference(fn)
        return fn
    reference = reference_to(fn)
    if reference is None:
        raise TransientTaskError(
            f"{callable_name(fn)} cannot be found again by a name, so a record cannot name it; "
            f"define it at the top level of a module."
        )
    return reference


class Repairs:
    """What can be done for quarantined tasks."""

    _bridge: Bridge
    _operations: Operations

    @on_engine
    async def arepair_task(
        self, task_id: str, fn: Callable[..., object] | str, store: str | None = None
    ) -> Task:
        """Give a quarantined task the callable that its record does not find any more.

        A function that was moved or renamed is pointed at in its new place. Nothing else of the
        record is changed, its schedule goes on where it was, and it leaves the quarantine.

        Args:
            task_id: Its id, as `get_task_infos(schedule_state="quarantined")` lists it.
            fn: The callable, or a reference to it (`package.module:name`).
            store: The alias of its store. Left out: all stores are searched.

        Raises:
            TaskLookupError: No store has a record of that id.
            TaskOptionError: The task can be read as it is, or `fn` names nothing.
            TransientTaskError: `fn` cannot be found again by a name.
            UnreadableRecordError: The record cannot be read with that callable either; the
                message says why. Nothing was changed.
            SchedulerNotRunningError: The scheduler has not started.
        """
        return await self._operations.repair(task_id, referenced(fn), store)

    repair_task = blocking(arepair_task)
