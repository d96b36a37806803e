"""And what happens to a run on its way, and what is known of it afterwards. See `model_runs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from asyncz.enums import Delivery, RunState
from asyncz.runs.base import Run, RunQuery, readable_notes
from asyncz.stores.cluster import Attended, OpenRun, RunOutcome, RunRef

from .model_runs import (
    CANCELLED,
    CLAIMED,
    KEPT_KEYS,
    RETRYING,
    RUNNING,
    ModelRuns,
    OpenedRun,
    all_as,
)

__all__ = ["ModelLife"]

ALREADY = datetime(1970, 1, 1, tzinfo=UTC)


class ModelLife(ModelRuns):
    """The whole of it."""

    # What happens to a run on its way.

    def note(self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]) -> list[bool]:
        return [self._note(node_id, ref, said) for ref, said in notes]

    def _note(self, node_id: str, ref: RunRef, said: Mapping[str, Any]) -> bool:
        run = self._owned(node_id, ref)
        if run is not None:
            run.notes = deepcopy(said)
        return run is not None

    def attend_at(self) -> datetime | None:
        if self._marked:
            return ALREADY
        moments = (run.retry_at for run in self._waiting.values() if run.retry_at is not None)
        return min(moments, default=None)

    def attend(self, node_id: str, limit: int) -> Attended:
        if not self._is_alive(node_id):
            return Attended((), (), ())
        now = self._now()
        taken: list[OpenRun] = []
        ended: list[RunRef] = []
        due = [run for run in self._waiting.values() if run.retry_at and run.retry_at <= now]
        for run in sorted(due, key=lambda run: run.retry_at or now):
            if len(taken) + len(ended) >= limit:
                break
            task = self._task_of(run)
            if task is None:
                ended.append(run.ref)
                self._settle(run, all_as(run, CANCELLED, "its task was deleted"), now)
            elif self._active.get(run.key[0], 0) < task.max_instances:
                self._try_again(run, node_id, now)
                taken.append(self._open_run(run))
        asked = [
            (run.ref, run.asked)
            for run in self._marked.values()
            if run.asked is not None and run.owner == node_id and run.state is not RETRYING
        ]
        return Attended(tuple(taken), tuple(asked), tuple(ended))

    def _try_again(self, run: OpenedRun, node_id: str, now: datetime) -> None:
        del self._waiting[run.key]
        self._active[run.key[0]] = self._active.get(run.key[0], 0) + 1
        run.owner, run.retry_at = node_id, None
        run.token, run.attempt, run.again = run.token + 1, run.attempt + 1, run.again + 1
        once = run.task.delivery is Delivery.AT_MOST_ONCE
        run.state, run.started_at = (CLAIMED, None) if once else (RUNNING, now)

    def cancel(self, task_id: str, at: datetime, by: str) -> RunState | None:
        open_ = [
            run for run in self._open.values() if run.key[0] == task_id and at in run.run_times
        ]
        states = [self._cancel(run, by) for run in open_ if run.key[2] == at]
        if open_ and not states:
            return RunState.QUEUED
        for state in states:
            if state is not CANCELLED:
                return state
        known = self.runs(RunQuery(task_id, since=at, until=at))
        return known[0].state if known else None

    def _cancel(self, run: OpenedRun, by: str) -> RunState:
        if run.state is RETRYING or run.owner is None:
            self._settle(run, all_as(run, CANCELLED, f"cancelled by {by}"), self._now())
            return CANCELLED
        run.asked = run.asked or by
        self._marked[run.key] = run
        return run.state

    # History.

    def runs(self, query: RunQuery) -> list[Run]:
        return query.select(self._all_runs())

    def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        return {task_id: self._active.get(task_id, 0) for task_id in task_ids}

    def last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        wanted = set(task_ids)
        last: dict[str, Run] = {}
        for run in self._all_runs():
            if run.task_id in wanted:
                before = last.get(run.task_id)
                if before is None or before.scheduled_time <= run.scheduled_time:
                    last[run.task_id] = run
        return last

    def forget(self, before: datetime, limit: int) -> int:
        forgotten = 0
        while forgotten < limit and self._settled and self._settled[0].finished_at < before:
            run = self._settled[0].run
            times = () if run is None else run.run_times[limit - forgotten :]
            forgotten += 1 if run is None else len(run.run_times) - len(times)
            if run is None or not times:
                self._settled.popleft()
            else:
                run.run_times = times
        return forgotten

    def prune(
        self, task_id: str, states: frozenset[RunState], keep: int, before: datetime, limit: int
    ) -> int:
        query = RunQuery(task_id, states, limit=KEPT_KEYS)
        settled = [run for run in self.runs(query) if run.finished_at is not None]
        old = [
            run
            for number, run in enumerate(settled)
            if run.finished_at and (number >= keep or run.finished_at < before)
        ][:limit]
        for run in old:
            self._prune(run)
        return len(old)

    def _prune(self, run: Run) -> None:
        identity = run.task_id, run.kind, run.scheduled_time, run.token
        for place, settled in enumerate(self._settled):
            its = settled.run
            if its is None or settled.unrun is not None:
                unrun = settled.unrun
                if unrun and (settled.task_id, unrun.first) == (run.task_id, run.scheduled_time):
                    del self._settled[place]
                    return
            elif (*its.key[:2], run.scheduled_time, its.token) == identity:
                times = [at for at in its.run_times if at != run.scheduled_time]
                if len(times) < len(its.run_times):
                    its.run_times = tuple(times)
                    if not times:
                        del self._settled[place]
                    return

    def _all_runs(self) -> Iterator[Run]:
        for settled in self._settled:
            if settled.run is not None:
                yield from self._records(settled.run, settled.finished_at)
            elif settled.unrun is not None:
                unrun = settled.unrun
                yield Run(
                    task_id=settled.task_id,
                    store_alias=self._alias,
                    scheduled_time=unrun.first,
                    state=unrun.state,
                    occurrences=unrun.occurrences,
                    last_scheduled_time=unrun.last if unrun.occurrences > 1 else None,
                    owner=settled.owner,
                    claimed_at=settled.finished_at,
                    finished_at=settled.finished_at,
                    reason=unrun.reason,
                )
        for run in self._open.values():
            yield from self._records(run, None)

    def _records(self, run: OpenedRun, finished_at: datetime | None) -> Iterator[Run]:
        said = {outcome.scheduled_time: outcome for outcome in run.outcomes}
        for number, moment in enumerate(run.run_times):
            outcome = said.get(moment) or RunOutcome(moment, CANCELLED)
            if finished_at is None:
                outcome = outcome._replace(state=RunState.QUEUED if number else run.state)
                if run.notes is not None and not number:
                    outcome = outcome._replace(notes=run.notes)
            yield Run(
                task_id=run.key[0],
                store_alias=self._alias,
                kind=run.key[1],
                scheduled_time=moment,
                state=outcome.state,
                owner=run.owner,
                attempt=run.attempt,
                token=run.token,
                claimed_at=run.claimed_at,
                started_at=run.started_at,
                finished_at=finished_at,
                reason=outcome.reason,
                error=outcome.error,
                traceback=outcome.traceback,
                retry_at=run.retry_at if finished_at is None else None,
                **readable_notes(outcome.notes),
            )
