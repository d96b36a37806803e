"""The rows of runs that wait for their next attempt, or that somebody wants cancelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, case, func, literal, or_, select

from asyncz.enums import Delivery, RunState
from asyncz.stores.sqlalchemy_batches import (
    MANY,
    OPEN,
    QUEUED,
    WAITING,
    Batches,
    RunName,
)
from asyncz.stores.sqlalchemy_runs import Explain, RunRows, is_behind, is_named
from asyncz.stores.sqlalchemy_schema import Tables, family_of
from asyncz.stores.sqlalchemy_time import StoreTime

__all__ = ["AT_ONCE", "AttemptRows", "Wait"]

AT_ONCE = 0
"""What `attend_us` has for a run that is to be cancelled: before all instants there are."""

RETRYING, CANCELLED, LOST = (
    state.value for state in (RunState.RETRYING, RunState.CANCELLED, RunState.LOST)
)


class Wait(NamedTuple):
    """An occurrence that failed and is tried again, on its way to the database.

    Args:
        task, run_us, kind, token: Which.
        head_us: The first of the occurrences that one call has carried out.
        details: What is said of it.
        retry_us: When; None: now.
    """

    task: str
    run_us: int
    kind: str
    token: int
    head_us: int
    details: bytes | None
    retry_us: int | None

    @property
    def name(self) -> RunName:
        """What it is known by."""
        return RunName(self.task, self.run_us, self.kind)

    @property
    def head(self) -> RunName:
        """What the first is known by."""
        return RunName(self.task, self.head_us, self.kind)


class AttemptRows:
    """What `RunRows` and `Batches` leave to be done, since few runs come to it.

    Args:
        tables: The store's.
        time: What says what time it is.
        runs, batches: The others.
    """

    def __init__(self, tables: Tables, time: StoreTime, runs: RunRows, batches: Batches) -> None:
        self._runs = tables.runs
        self._time = time
        self._rows = runs
        self._batches = batches

    # Failed, and to be tried again.

    def wait(self, connection: Connection, node_id: str, waits: Sequence[Wait]) -> int:
        """Let runs of a node wait for their next attempt; how many there were.

        Each is a run of its own from then on. Called before their heads are ended, which have the
        records of tasks that were forgotten.
        """
        self._make_way(connection, waits)
        records = self._records(connection, node_id, waits)
        return sum(
            self._let_wait(connection, node_id, wait, records.get((wait.head, wait.token)))
            for wait in waits
        )

    def _let_wait(
        self, connection: Connection, node_id: str, wait: Wait, record: bytes | None
    ) -> bool:
        columns = self._runs.c
        this = and_(
            is_named(self._runs, wait.name),
            columns.owner == node_id,
            columns.token == wait.token,
            or_(columns.active < WAITING, columns.state == LOST),
        )
        now = self._time.expression(connection)
        at = now if wait.retry_us is None else literal(max(wait.retry_us, AT_ONCE + 1))
        kept = {} if record is None else {"record": record}
        return self._rows.change(
            connection, this,
            state=RETRYING, active=WAITING, head_us=None, followers=0, finished_us=None,
            details=wait.details, attend_us=case((columns.asked.is_not(None), AT_ONCE), else_=at),
            **kept,
        )  # fmt: skip

    def _records(
        self, connection: Connection, node_id: str, waits: Sequence[Wait]
    ) -> dict[tuple[RunName, int], bytes]:
        """The records that heads keep of tasks that are gone, for those behind them."""
        heads = {(wait.head, wait.token) for wait in waits if wait.run_us != wait.head_us}
        found = {}
        for name, token in sorted(heads):
            owned = self._rows.is_owned(node_id, name, token)
            record = connection.execute(select(self._runs.c.record).where(owned)).scalar()
            if record is not None:
                found[name, token] = bytes(record)
        return found

    def _make_way(self, connection: Connection, waits: Sequence[Wait]) -> None:
        """Cancel those that wait under the name of one that is about to.

        They are of tasks that had these ids before. `fire` sees to it that there is but one open
        run of a name; only not if the task is added anew while the run comes to its end.
        """
        names = [wait.name for wait in waits]
        for start in range(0, len(names), MANY):
            found = self._batches.find(connection, names[start : start + MANY])
            begun = {run.name for run in found if run.active in (OPEN, QUEUED)}
            for run in found:
                if run.active == WAITING and run.name in begun:
                    self._rows.settle(connection, run, CANCELLED, self._time.read(connection))

    # Taken for the next attempt.

    def due(self, connection: Connection, after: Row[Any] | None, limit: int) -> list[Row[Any]]:
        """Runs that somebody has to see to now, the most urgent first, with their tasks.

        Args:
            after: Only those behind this one.
            limit: At most so many.
        """
        columns = self._runs.c
        # No more conditions, which might be a reason not to read it by its index.
        wanted = self._rows.opened.where(columns.attend_us <= self._time.expression(connection))
        order = columns.attend_us, columns.task, columns.run_us, columns.kind, columns.added
        if after is not None:
            place = after.attend_us, after.task, after.run_us, after.kind, after.added
            wanted = wanted.where(columns.attend_us >= after.attend_us, is_behind(order, place))
        return list(connection.execute(wanted.order_by(*order).limit(limit)))

    def lock(self, connection: Connection, tasks: Iterable[str]) -> None:
        """Have what waits of tasks that are gone to oneself, until the transaction ends: there is
        no row of the task to lock."""
        if family_of(connection.dialect) == "sqlite":
            return
        columns = self._runs.c
        which = columns.active == WAITING, columns.task.in_(sorted(tasks))
        order = columns.task, columns.run_us, columns.kind, columns.added
        connection.execute(select(*order).where(*which).order_by(*order).with_for_update()).all()

    def take(self, connection: Connection, node_id: str, run: Row[Any], now: int) -> bool:
        """Make a run that waits this node's; False: somebody else was first."""
        once = run.delivery == Delivery.AT_MOST_ONCE.value
        return self._rows.change(
            connection, self._rows.is_as_it_was(run),
            state=(RunState.CLAIMED if once else RunState.RUNNING).value, active=OPEN,
            owner=node_id, token=run.token + 1, attempt=run.attempt + 1,
            retries=func.coalesce(self._runs.c.retries, 0) + 1, attend_us=None,
            claimed_us=now, started_us=None if once else now,
        )  # fmt: skip

    # To be cancelled.

    def asked(self, connection: Connection, node_id: str) -> list[Row[Any]]:
        """The open runs of a node that somebody wants cancelled."""
        columns = self._runs.c
        wanted = select(
            columns.task, columns.task_id, columns.run_us, columns.kind, columns.token,
            columns.asked,
        ).where(
            columns.attend_us == AT_ONCE,
            columns.active == OPEN,
            columns.owner == node_id,
            columns.asked.is_not(None),
        )  # fmt: skip
        return list(connection.execute(wanted.order_by(columns.run_us, columns.task)))

    def cancel(
        self, connection: Connection, run: Row[Any], by: bytes, explain: Explain
    ) -> RunState:
        """End a run that is nobody's, or ask its owner to; the state that it has then.

        Args:
            run: As it is: it is locked.
            by: Who wants it.
            explain: Says so.
        """
        if run.active == WAITING or (run.active == OPEN and run.owner is None):
            now = self._time.read(connection)
            self._rows.settle(connection, run, CANCELLED, now, explain)
            return RunState.CANCELLED
        if run.active == OPEN:
            which = self._rows.is_as_it_was(run)
            self._rows.change(connection, which, attend_us=AT_ONCE, asked=by)
        return RunState(run.state)

    def lock_named(self, connection: Connection, task: str, run_us: int) -> list[Row[Any]]:
        """Lock the runs of one instant: of each kind, and of each task that had this id."""
        columns = self._runs.c
        named: Select[Any] = select(
            columns.task, columns.run_us, columns.kind, columns.added, columns.state,
            columns.active, columns.owner, columns.token, columns.followers,
        ).where(columns.task == task, columns.run_us == run_us)  # fmt: skip
        if family_of(connection.dialect) != "sqlite":
            named = named.with_for_update()
        return list(connection.execute(named.order_by(columns.kind, columns.added)))

    # What an older release has left.

    def clear(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        """Nobody has to see to these, which have ended: a release that knows nothing of it, and
        that was running still when the tables were brought forward, has ended them."""
        for row in rows:
            self._rows.change(connection, self._rows.is_as_it_was(row), attend_us=None, asked=None)
