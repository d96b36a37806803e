"""The runs and nodes of a file store. All of it blocks, and is made on the store's own thread.

Each operation is one hold of the lock between processes, and one line of the journal. A task is
moved on after the line that claims its run was written; whoever comes next makes up for what a
process that was killed in between, or had no space left, has not done.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asyncz.enums import RunState
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Look,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
)
from asyncz.stores.file_attempts import FileAttempts
from asyncz.stores.file_claims import Claims, answers
from asyncz.stores.file_held import key_of, owned, ref_of
from asyncz.stores.file_journal import Change
from asyncz.stores.file_ledger import Ledger, Row
from asyncz.stores.file_live import CLAIMED, LiveRun
from asyncz.stores.file_members import FileMembers
from asyncz.stores.file_nodes import bury
from asyncz.stores.file_past import FilePast
from asyncz.stores.file_takeover import Fates
from asyncz.stores.file_thread import give_way

__all__ = ["FileRuns"]


class FileRuns(FileMembers, FileAttempts, FilePast):
    """What `ClusterStore` asks for, in one directory of tasks.

    Args:
        records: The tasks.
    """

    # Claims.

    def look(self) -> Look:
        with self._held() as ledger:
            moment = self._records.next_run()
            gone = {owner for owner in ledger.live.owned if self._is_gone(ledger, owner)}
            unowned = any(map(self._taking.is_worth_trying, ledger.unowned(gone)))
            attend_at = ledger.attend_at
            return Look(
                self._clock.now(),
                moment,
                unowned,
                None if attend_at is None else from_microseconds(attend_at),
            )

    def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        with self._held() as ledger:
            said = ledger.answer(node_id, claim)
            if said is None and not ledger.is_alive(node_id):
                return [Fired.FENCED] * len(firings)
            if ledger.moves:
                self._make_moves()
            if said is not None:
                return answers(said)
            claims = Claims(
                node_id,
                claim,
                self._now(),
                self._book,
                self._records.index,
                self._codec,
                self._writer,
            )
            fired = claims.settle(firings)
            change = claims.change(fired)
            if change["moves"] or change["runs"] or change["rows"]:
                self._book.commit(change)
                if change["moves"]:
                    self._make_moves(claims.entries)
            return fired

    def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        with self._held() as ledger:
            runs = [owned(ledger, node_id, ref) for ref in refs]
            waiting = [run.number for run in runs if run is not None and run.state == CLAIMED]
            if waiting:
                self._book.commit({"op": "start", "at": self._now(), "runs": waiting})
            return [run is not None for run in runs]

    def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        with self._held() as ledger:
            numbers: dict[int, None] = {}
            rows: list[Row] = []
            waits: list[list[Any]] = []
            counted = []
            for end in ends:
                give_way()
                run = owned(ledger, node_id, end.ref)
                if run is None:
                    counted.append(self._finish_late(node_id, end, rows))
                    continue
                if run.number not in numbers:
                    numbers[run.number] = None
                    self._end(run, end, rows, waits)
                counted.append(True)
            if numbers or rows:
                change: Change = {"op": "end", "at": self._now(), "runs": list(numbers)}
                change["rows"] = rows
                if waits:
                    change["waits"] = waits
                self._book.commit(change)
            return counted

    def _end(self, run: LiveRun, end: RunEnd, rows: list[Row], waits: list[list[Any]]) -> None:
        """The rows of what has ended, and what goes on waiting: see `Ledger`."""
        said = {to_microseconds(outcome.scheduled_time): outcome for outcome in end.outcomes}
        for at in run.times:
            outcome = said.get(at) or RunOutcome(from_microseconds(at), RunState.CANCELLED)
            if outcome.state is not RunState.RETRYING:
                rows.append(self._writer.settled(run, outcome))
                continue
            retry = self._now() if outcome.retry_at is None else to_microseconds(outcome.retry_at)
            number = self._book.ledger.last_number + len(waits) + 1
            waits.append([run.number, number, at, retry, self._writer.say(run.task_id, outcome)])

    def _finish_late(self, node_id: str, end: RunEnd, rows: list[Row]) -> bool:
        """Whether how a run ended that is not open counts, and the rows that say so."""
        key, token = key_of(end.ref), end.ref.token
        states = {outcome.scheduled_time: outcome.state for outcome in end.outcomes}
        state = states.get(end.ref.scheduled_time, RunState.CANCELLED)
        if self._book.ledger.waits_or_goes_on(key, node_id, token) is not None:
            return state is RunState.RETRYING  # it has said so before
        row = self._book.find_settled(key)
        if row is None or row.get("owner") != node_id or row.get("token") != token:
            return False
        if row["state"] != RunState.LOST.value:
            return bool(row["state"] == state.value)
        if state is RunState.RETRYING:
            return False  # who was given up is not tried again
        told = [outcome for outcome in end.outcomes if outcome.state is not RunState.RETRYING]
        rows.extend(self._writer.amended(row, outcome) for outcome in told)
        return True

    def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        with self._held() as ledger:
            runs = [owned(ledger, node_id, ref) for ref in refs]
            numbers = [run.number for run in runs if run is not None]
            if numbers:
                self._book.commit({"op": "free", "runs": numbers})

    # What somebody else left.

    def own_runs(self, node_id: str) -> list[OpenRun]:
        with self._held() as ledger:
            runs = sorted(ledger.live.owned.get(node_id, {}).values(), key=lambda run: run.times[0])
            return [self._taking.open_run(run, *self._taking.read_task(run)) for run in runs]

    def reap(self, node_id: str, bury: datetime | None, max_attempts: int, limit: int) -> Reaped:
        with self._held() as ledger:
            if not ledger.is_alive(node_id):
                return Reaped((), (), ())
            if ledger.moves:
                self._make_moves()
            now = self._now()
            leases = self._bury(ledger, node_id, None if bury is None else to_microseconds(bury))
            left = sorted(ledger.unowned(leases.keys()), key=lambda run: run.number)
            fates = self._taking.decide(left, max_attempts, limit)
            ended = tuple((ref_of(run), state) for run, state, _ in fates.ended)
            if leases or fates.taken or fates.ended:
                self._book.commit(self._take_over(node_id, now, leases, fates))
                for dead in leases:
                    self._holds.release(self._book.files, dead)
            taken = (self._taking.open_run(run, task, None) for run, task in fates.taken)
            return Reaped(tuple(leases), tuple(taken), ended)

    def _take_over(
        self, node_id: str, now: int, leases: dict[str, list[int]], fates: Fates
    ) -> Change:
        return {
            "op": "reap",
            "node": node_id,
            "at": now,
            "dead": list(leases),
            "leases": leases,
            "taken": [run.number for run, _ in fates.taken],
            "runs": [run.number for run, _, _ in fates.ended],
            "rows": [row for fate in fates.ended for row in self._writer.ended(*fate)],
        }

    def _bury(self, ledger: Ledger, but: str, moment: int | None) -> dict[str, list[int]]:
        """Take the leases away of those whose process has ended, and that had run out by then.

        Not of the one that is there to ask, whatever its lease says.
        """
        buried = {}
        for node_id in filter(ledger.is_alive, ledger.nodes):
            if node_id == but:
                continue
            gone = self._holds.is_gone(self._book.files, node_id)
            if gone or moment is not None:
                lease = bury(self._book.files, node_id, None if gone else moment)
                if lease is not None:
                    known = ledger.nodes[node_id].lease
                    buried[node_id] = list(lease) if lease.seen else known
        return buried

    def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        with self._held() as ledger:
            return {task_id: ledger.live.active.get(task_id, 0) for task_id in task_ids}
