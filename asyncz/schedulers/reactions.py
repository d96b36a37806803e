"""What a task wants to have called when its runs have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from asyncz.enums import RunState
from asyncz.executors.base import Outcome
from asyncz.executors.tracking import context_of_no_run
from asyncz.runs.base import Run, readable_notes
from asyncz.schedulers.accounts import Claim, as_recorded
from asyncz.schedulers.planning import Missed
from asyncz.stores.cluster import RunOutcome
from asyncz.tasks.base import Task
from asyncz.tasks.callables import is_coroutine_callable

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine
    from asyncz.schedulers.ledger import Ledger

__all__ = ["react", "react_to_loss", "react_to_missed"]

FAILURES = frozenset({RunState.FAILED, RunState.LOST, RunState.ABANDONED})


def react(engine: Engine, task: Task, head: datetime, outcomes: Sequence[Outcome]) -> None:
    """Call what the task wants to have called after such outcomes.

    Args:
        engine, task: Whose.
        head: The first of the run times that the run stood for.
        outcomes: One for each of its run times.
    """
    ledgers = engine.ledgers_of(task.store_alias)
    claim = ledgers[0].claim_of(str(task.id), head) if ledgers else Claim()
    now = engine.now_in(task.store_alias)
    for outcome in outcomes:
        said = as_recorded(outcome, now)
        if (reaction := _reaction_to(task, said.state)) is not None:
            _call(engine, task, reaction, _run_of(engine, task, said, claim, now), ledgers)


def react_to_missed(engine: Engine, task: Task, missed: Missed, why: str) -> None:
    """Run times were not run in time."""
    if task.on_missed is None:
        return
    total, first, last = missed
    now = engine.now_in(task.store_alias)
    run = Run(
        task_id=str(task.id),
        store_alias=task.store_alias,
        scheduled_time=first,
        state=RunState.MISSED,
        occurrences=total,
        last_scheduled_time=last if total > 1 else None,
        owner=engine.identity,
        claimed_at=now,
        finished_at=now,
        reason=why,
    )
    _call(engine, task, task.on_missed, run, engine.ledgers_of(task.store_alias))


def react_to_loss(engine: Engine, task: Task, run: Run) -> None:
    """A run will never be finished, as its worker is gone."""
    if task.on_failure is not None:
        _call(engine, task, task.on_failure, run)


def _reaction_to(task: Task, state: RunState) -> Callable[..., Any] | None:
    if state is RunState.SUCCEEDED:
        return task.on_success
    if state is RunState.MISSED:
        return task.on_missed
    return task.on_failure if state in FAILURES else None


def _run_of(engine: Engine, task: Task, said: RunOutcome, claim: Claim, now: datetime) -> Run:
    return Run(
        task_id=str(task.id),
        store_alias=task.store_alias,
        scheduled_time=said.scheduled_time,
        state=said.state,
        owner=engine.identity,
        finished_at=now,
        reason=said.reason,
        error=said.error,
        traceback=said.traceback,
        **claim._asdict(),
        **readable_notes(said.notes),
    )


def _call(
    engine: Engine,
    task: Task,
    reaction: Callable[..., Any],
    run: Run,
    ledgers: Sequence[Ledger] = (),
) -> None:
    """Call it beside the engine.

    Args:
        engine, task, reaction: What.
        run: As it is known here.
        ledgers: Whoever has a record of it, which is then what the reaction is given.
    """

    def begin(known: Run) -> None:
        name = f"asyncz reaction of {task.id}"
        context_of_no_run().run(engine.spawn, _called(engine, task, reaction, known), name)

    async def look_up_and_begin() -> None:
        known: Run | None = run
        for ledger in ledgers:
            known = await ledger.record_of(run)
        if known is not None:  # otherwise how it ended here does not count
            begin(known)

    if all(ledger.knows_records for ledger in ledgers):
        begin(run)
    else:
        engine.background(look_up_and_begin(), f"asyncz record for the reaction of {task.id}")


async def _called(engine: Engine, task: Task, reaction: Callable[..., Any], run: Run) -> None:
    """Whatever it raises is logged, and changes nothing: SystemExit would end the app."""
    error: BaseException | None = None
    try:
        if is_coroutine_callable(reaction):
            await reaction(run)
        else:
            error = await engine.reaction_threads.call(reaction, run)
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        error = exc
    if error is not None:
        text = "What the task %r has called after its run %s failed."
        engine.logger.error(text, task.id, run.state.value, exc_info=error)
