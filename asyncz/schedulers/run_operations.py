"""The scheduler's public operations on runs: each in both forms."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.schedulers.bridge import Bridge, blocking, on_engine
from asyncz.schedulers.engine import Engine
from asyncz.schedulers.operations import Operations
from asyncz.schedulers.run_arguments import (
    canceller,
    instant_since,
    limit_of_runs,
    named_run,
    seconds_to_wait,
    states,
)
from asyncz.tasks.base import Task

__all__ = ["RunOperations"]


class RunOperations:
    """What became of the occurrences of tasks, and what may be done about those that go on.

    `run_id` is a `Run`, or its `id`: the task's id, `@` and the instant that it was due. `store` is
    a store's alias; left out, all stores are searched. An unknown run raises `RunLookupError`,
    and a scheduler that has not started, and so has no runs, `SchedulerNotRunningError`.
    """

    _bridge: Bridge
    _engine: Engine
    _operations: Operations

    @on_engine
    async def aget_runs(
        self,
        task_id: Task | str | None = None,
        store: str | None = None,
        *,
        state: RunState | str | Iterable[RunState | str] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Run]:
        """What became of the occurrences of tasks, the latest first.

        Args:
            task_id: Of this task; left out: of all.
            store: A store's alias; left out: all stores are asked.
            state: One state, or several; left out: any.
            since: Scheduled at or after this instant (aware).
            limit: At most so many, up to 10,000.

        Raises:
            TaskOptionError: There is no such state, `since` has no time zone, `limit` is out of
                range, or the `Task` has no id, as it was not added yet.
        """
        wanted = None
        if task_id is not None:
            wanted, store = self._operations.key(task_id, store)
        query = RunQuery(wanted, states(state), instant_since(since), limit_of_runs(limit))
        return await self._operations.runs(store, query)

    get_runs = blocking(aget_runs)

    @on_engine
    async def aget_run(self, run_id: Run | str, store: str | None = None) -> Run:
        """What is known of one run."""
        run_id, store = named_run(run_id, store)
        return (await self._operations.run_of(store, run_id))[1]

    get_run = blocking(aget_run)

    @on_engine
    async def acancel_run(
        self, run_id: Run | str, store: str | None = None, *, by: str | None = None
    ) -> Run:
        """Cancel a run, whichever worker has it.

        One that waits for its next attempt, or has not begun anywhere, is cancelled at once. The
        worker of one that goes on is told: it cancels a coroutine and kills a process; a thread
        cannot be stopped, and is left alone. To wait until that has happened: `await_run`.

        Args:
            run_id, store: The run.
            by: Who wants it, for its record; this scheduler's identity by default.

        Returns:
            The run as it is now; one that had ended before is as it was.

        Raises:
            TaskOptionError: It waits behind another, and is cancelled with that one only.
        """
        run_id, store = named_run(run_id, store)
        who = canceller(by, self._engine.identity)
        return await self._operations.cancel_run(store, run_id, who)

    cancel_run = blocking(acancel_run)

    @on_engine
    async def await_run(
        self, run_id: Run | str, store: str | None = None, *, timeout: float | None = None
    ) -> Run:
        """Wait until a run has ended, wherever it goes on.

        The synchronous form, `wait_run`, is for threads other than the scheduler's: on its event
        loop it raises `BlockingCallError` while the run goes on.

        Args:
            run_id, store: The run. One that waits for its next attempt has not ended.
            timeout: Seconds to wait at most; None: as long as it takes.

        Returns:
            The run, with its `state`, `result`, `error` and so on.

        Raises:
            TimeoutError: It has not ended within that time. The run goes on.
        """
        run_id, store = named_run(run_id, store)
        return await self._operations.end_of_run(store, run_id, seconds_to_wait(timeout))

    wait_run = blocking(await_run)
