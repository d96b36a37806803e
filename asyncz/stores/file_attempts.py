"""What happens to a file store's run on its way: notes, attempts, being cancelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncz.enums import RunKind, RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import Attended, RunRef
from asyncz.stores.file_held import RunsUnderLock, owned, ref_of
from asyncz.stores.file_live import CLAIMED, RETRYING, LiveRun

__all__ = ["FileAttempts"]


class FileAttempts(RunsUnderLock):
    """Between a run's claim and its end."""

    def note(self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]) -> list[bool]:
        with self._held() as ledger:
            runs = [owned(ledger, node_id, ref) for ref, _ in notes]
            noted = [
                [run.number, self._writer.note(run.task_id, said)]
                for run, (_, said) in zip(runs, notes, strict=True)
                if run is not None
            ]
            if noted:
                # Without haste: it outlives the process, and there will be a next one.
                self._book.commit({"op": "note", "notes": noted}, sync=False)
            return [run is not None for run in runs]

    def attend(self, node_id: str, limit: int) -> Attended:
        with self._held() as ledger:
            if not ledger.is_alive(node_id):
                return Attended((), (), ())
            if ledger.moves:
                self._make_moves()
            now = self._now()
            fates = self._taking.decide_attempts(ledger.live, now, limit)
            ended = tuple(ref_of(run) for run, _, _ in fates.ended)
            if fates.taken or fates.ended:
                self._book.commit(
                    {
                        "op": "attend",
                        "node": node_id,
                        "at": now,
                        "taken": [run.number for run, _ in fates.taken],
                        "runs": [run.number for run, _, _ in fates.ended],
                        "rows": [row for fate in fates.ended for row in self._writer.ended(*fate)],
                    }
                )
            taken = tuple(self._taking.open_run(run, task, None) for run, task in fates.taken)
            asked = tuple(
                (ref_of(run), str(run.asked))
                for run in ledger.live.marked.values()
                if run.owner == node_id and run.state != RETRYING
            )
            return Attended(taken, asked, ended)

    def cancel(self, task_id: str, at: datetime, by: str) -> RunState | None:
        """As `ClusterStore.cancel_run` for what is open; None: nothing is."""
        moment = to_microseconds(at)
        with self._held() as ledger:
            keys = [(task_id, kind.value, moment) for kind in RunKind]
            runs = [run for key in keys for run in ledger.live.having(key)]
            heads = [run for run in runs if run.times[0] == moment]
            if not heads:
                return RunState.QUEUED if runs else None
            states = [self._cancel(run.number, by) for run in heads]
            return next(
                (state for state in states if state is not RunState.CANCELLED), RunState.CANCELLED
            )

    def _cancel(self, number: int, by: str) -> RunState:
        who = by.encode(errors="backslashreplace").decode()
        run: LiveRun = self._book.ledger.live.by_number[number]
        if run.state == RETRYING or run.owner is None:
            rows = [*self._writer.ended(run, RunState.CANCELLED, f"cancelled by {who}")]
            self._book.commit({"op": "end", "at": self._now(), "runs": [number], "rows": rows})
            return RunState.CANCELLED
        if run.asked is None:
            self._book.commit({"op": "ask", "run": number, "by": who})
        return RunState.CLAIMED if run.state == CLAIMED else RunState.RUNNING
