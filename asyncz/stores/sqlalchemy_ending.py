"""Ends of runs on their way to the database: what has ended, and what is tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from sqlalchemy import Connection

from asyncz.enums import RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import RunEnd, RunOutcome
from asyncz.stores.sqlalchemy_attempts import Wait
from asyncz.stores.sqlalchemy_batches import MANY, End, RunName, pages_of
from asyncz.stores.sqlalchemy_sharing import Sharing

__all__ = ["Ending"]

Seal = Callable[[str, RunOutcome], bytes | None]
"""What is said of a run, for the database: its task's id, its outcome."""


class Ending:
    """Some ends, in terms of rows.

    Args:
        ends: As they were told.
        key_of: From the id of a task to what it is known by.
        seal: Makes what is kept of each.
    """

    def __init__(self, ends: Sequence[RunEnd], key_of: Callable[[str], str], seal: Seal) -> None:
        self._key_of = key_of
        self._seal = seal
        self._waits: list[Wait] = []
        each = [self._rows_of(end) for end in ends]
        self._heads = [rows[0] for rows in each]
        waiting = RunState.RETRYING.value
        rows = [*chain.from_iterable(each)]
        if self._waits:
            rows = [row for row in rows if row.state != waiting]
        self._pages = pages_of(sorted(rows))

    def _rows_of(self, end: RunEnd) -> list[End]:
        """The rows of an end, first the head, which has one whatever was said."""
        (task_id, kind, moment, token), outcomes = end
        key, run_us = self._key_of(task_id), to_microseconds(moment)
        rows = [
            End(
                key,
                run_us if said.scheduled_time is moment else to_microseconds(said.scheduled_time),
                kind.value, token, said.state.value, self._seal(task_id, said),
            )
            for said in outcomes
        ]  # fmt: skip
        self._waits += [
            _wait_of(row, said, run_us)
            for row, said in zip(rows, outcomes, strict=True)
            if said.state is RunState.RETRYING
        ]
        if len(rows) != 1 or rows[0].run_us != run_us:
            rows.sort(key=lambda row: row.run_us != run_us)
            if not rows or rows[0].run_us != run_us:
                cancelled = RunState.CANCELLED.value
                rows.insert(0, End(key, run_us, kind.value, token, cancelled, None))
        return rows

    def record(self, connection: Connection, shared: Sharing, node_id: str) -> list[bool]:
        """Record them; for each, whether it counts."""
        now, heads = shared.time.given(connection), self._heads
        recorded = 0
        if self._waits:
            recorded = shared.attempts.wait(connection, node_id, sorted(self._waits))
        ended = [shared.batches.end(connection, node_id, now, page) for page in self._pages]
        if self._waits or any(page.may_leave_others for page in ended):
            names = {(head.name, head.token) for head in heads}
            shared.runs.cancel_left_out(connection, node_id, names)
        recorded += sum(page.recorded for page in ended)
        if recorded == len(self._waits) + sum(map(len, self._pages)):
            return [True] * len(heads)
        known = self._known(connection, shared, node_id)
        return [known.get((head.name, head.token)) == head.state for head in heads]

    def _known(
        self, connection: Connection, shared: Sharing, node_id: str
    ) -> dict[tuple[RunName, int], str]:
        """How those of these are recorded that a node has had; of tasks of one id, the last's."""
        names = [head.name for head in self._heads]
        pages = (names[start : start + MANY] for start in range(0, len(names), MANY))
        found = [run for page in pages for run in shared.batches.find(connection, page)]
        found.sort(key=lambda run: run.added)
        return {(run.name, run.token): run.state for run in found if run.owner == node_id}


def _wait_of(row: End, said: RunOutcome, head_us: int) -> Wait:
    retry_us = None if said.retry_at is None else to_microseconds(said.retry_at)
    return Wait(row.task, row.run_us, row.kind, row.token, head_us, row.details, retry_us)
