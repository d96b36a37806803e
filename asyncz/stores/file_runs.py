"""The runs and nodes of a file store. All of it blocks, and is made on the store's own thread.

Each operation is one hold of the lock between processes, and one line of the journal. A task is
moved on after the line that claims its run was written; whoever comes next makes up for what a
process that was killed in between, or had no space left, has not done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from time import sleep

from asyncz.clock import SystemClock
from asyncz.enums import NodeState, RunKind, RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Pulse,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
)
from asyncz.stores.file_book import RunBook
from asyncz.stores.file_claims import Claims, answers
from asyncz.stores.file_entries import Entry
from asyncz.stores.file_history import HistorySearch, LatestSearch, RowWriter, rows_of
from asyncz.stores.file_journal import Change
from asyncz.stores.file_ledger import CLAIMED, Ledger, LedgerNode, LiveRun, Row, RunKey
from asyncz.stores.file_nodes import (
    PAUSE,
    FilePulse,
    Holds,
    Lease,
    LeaseInUseError,
    bury,
    read_lease,
    renew,
    write_lease,
)
from asyncz.stores.file_records import FileRecords
from asyncz.stores.file_takeover import Fates, TakeOver
from asyncz.stores.file_thread import give_way

__all__ = ["FileRuns"]

RENEWING = 1.0
"""Seconds for which `renew_node` tries again while somebody else looks at the lease."""


class FileRuns:
    """What `ClusterStore` asks for, in one directory of tasks.

    Args:
        records: The tasks.
    """

    def __init__(self, records: FileRecords) -> None:
        self._records = records
        self._codec = codec = records.codec
        self._clock = codec.host.clock
        self._writer = RowWriter(codec)
        self._book = RunBook(records.files, codec.alias, records.logger)
        self._taking = TakeOver(records.index, codec)
        self._holds = Holds()

    def remove(self) -> None:
        """Remove all of it, unless a node is alive."""
        with self._held():
            self._book.remove()

    def close(self) -> None:
        """Let go of the files, and of the nodes that have not left."""
        self._holds.release_all()
        self._book.close()

    # Nodes.

    def join(self, node: Node, lease: float) -> None:
        given = Lease.starting(self._clock, lease)
        with self._held(make=True) as ledger:
            self._holds.take(self._book.files, node.id)
            write_lease(self._book.files, node.id, given)
            self._book.commit(
                {"op": "join", "node": list(node), "at": given.seen, "lease": list(given)}
            )
            if ledger.moves:
                self._make_moves()
        self._records.is_joined = True

    def renew(self, node_id: str, lease: float, running: int) -> bool:
        with self._held() as ledger:
            if not ledger.is_alive(node_id):
                return False
            for _ in range(int(RENEWING / PAUSE)):
                try:
                    given = Lease.starting(self._clock, lease, running)
                    return renew(self._book.files, node_id, given)
                except LeaseInUseError:
                    sleep(PAUSE)
            raise LeaseInUseError(f"the lease of {node_id!r} is in use")

    def leave(self, node_id: str) -> None:
        with self._held() as ledger:
            if ledger.is_alive(node_id):
                lease = bury(self._book.files, node_id, None)
                leases = {} if lease is None else {node_id: list(lease)}
                self._book.commit(
                    {"op": "leave", "node": node_id, "at": self._now(), "leases": leases}
                )
                self._holds.release(self._book.files, node_id)

    def nodes(self) -> list[NodeRecord]:
        with self._held() as ledger:
            now = self._now()
            return [self._node_record(node, now) for node in ledger.nodes.values()]

    def _node_record(self, node: LedgerNode, now: int) -> NodeRecord:
        lease, state = Lease(*node.lease), NodeState(node.state)
        if state is NodeState.ALIVE:
            lease = read_lease(self._book.files, node.about[0]) or lease
            if lease.until < now or self._holds.is_gone(self._book.files, node.about[0]):
                state = NodeState.STALE
        return NodeRecord(
            Node(*node.about),
            state,
            from_microseconds(node.joined),
            from_microseconds(lease.seen),
            from_microseconds(lease.until),
            lease.running,
        )

    def pulse(self, node_id: str) -> Pulse | None:
        """The heartbeat of a node; None if the time is not the machine's."""
        if not isinstance(self._clock, SystemClock):
            return None
        return FilePulse((self._records.files.path, self._book.path), node_id, self._clock)

    # Claims.

    def look(self) -> Look:
        with self._held() as ledger:
            moment = self._records.next_run()
            gone = {owner for owner in ledger.owned if self._is_gone(ledger, owner)}
            unowned = any(map(self._taking.is_worth_trying, ledger.unowned(gone)))
            return Look(self._clock.now(), moment, unowned)

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

    def _make_moves(self, entries: Mapping[str, Entry] | None = None) -> None:
        self._records.move_all(self._book.ledger.moves, entries or {})
        # Without haste: to make them again changes nothing.
        self._book.commit({"op": "moved"}, sync=False)

    def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        with self._held() as ledger:
            runs = [_owned(ledger, node_id, ref) for ref in refs]
            waiting = [run.number for run in runs if run is not None and run.state == CLAIMED]
            if waiting:
                self._book.commit({"op": "start", "at": self._now(), "runs": waiting})
            return [run is not None for run in runs]

    def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        with self._held() as ledger:
            numbers: dict[int, None] = {}
            rows: list[Row] = []
            counted = []
            for end in ends:
                give_way()
                run = _owned(ledger, node_id, end.ref)
                if run is None:
                    counted.append(self._finish_late(node_id, end, rows))
                    continue
                if run.number not in numbers:
                    numbers[run.number] = None
                    rows += self._rows(run, end)
                counted.append(True)
            if rows:
                self._book.commit(
                    {"op": "end", "at": self._now(), "runs": list(numbers), "rows": rows}
                )
            return counted

    def _rows(self, run: LiveRun, end: RunEnd) -> Iterator[Row]:
        said = {to_microseconds(outcome.scheduled_time): outcome for outcome in end.outcomes}
        for at in run.times:
            outcome = said.get(at) or RunOutcome(from_microseconds(at), RunState.CANCELLED)
            yield self._writer.settled(run, outcome)

    def _finish_late(self, node_id: str, end: RunEnd, rows: list[Row]) -> bool:
        """Whether how a run ended that is not open counts, and the rows that say so."""
        row = self._book.find_settled(_key(end.ref))
        if row is None or row.get("owner") != node_id or row.get("token") != end.ref.token:
            return False
        head = next(
            (said for said in end.outcomes if said.scheduled_time == end.ref.scheduled_time),
            RunOutcome(end.ref.scheduled_time, RunState.CANCELLED),
        )
        if row["state"] == RunState.LOST.value:
            rows.extend(self._writer.amended(row, outcome) for outcome in end.outcomes)
            return True
        return bool(row["state"] == head.state.value)

    def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        with self._held() as ledger:
            runs = [_owned(ledger, node_id, ref) for ref in refs]
            numbers = [run.number for run in runs if run is not None]
            if numbers:
                self._book.commit({"op": "free", "runs": numbers})

    # What somebody else left.

    def own_runs(self, node_id: str) -> list[OpenRun]:
        with self._held() as ledger:
            runs = sorted(ledger.owned.get(node_id, {}).values(), key=lambda run: run.times[0])
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
            ended = tuple((_ref(run), state) for run, state, _ in fates.ended)
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
            "rows": [
                self._writer.settled(run, RunOutcome(from_microseconds(at), state, reason=why))
                for run, state, why in fates.ended
                for at in run.times
            ],
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

    def _is_gone(self, ledger: Ledger, node_id: str | None) -> bool:
        """Whether a node that is alive in the journal has no process any more."""
        if node_id is None or not ledger.is_alive(node_id):
            return False
        return self._holds.is_gone(self._book.files, node_id)

    # History.

    def begin_search(self, wanted: RunQuery | Sequence[str]) -> HistorySearch:
        """What `HistorySearch.read_next` and `result` go on with.

        Args:
            wanted: What is asked for, or the tasks whose latest runs are.
        """
        with self._held() as ledger:
            parts = [part for part in [*ledger.parts, ledger.part] if part.rows]
            until = self._book.journal.end if ledger.part.rows else None
            runs = ledger.open.values()
            if isinstance(wanted, RunQuery):
                return HistorySearch(wanted, runs, parts[::-1], until, ledger.forgotten)
            return LatestSearch(wanted, runs, parts[::-1], until, ledger.forgotten)

    def go_on(self, search: HistorySearch) -> list[Run] | None:
        """Look through one more file; the runs when that was the last one."""
        if search.goes_on:
            with self._held():
                journal = self._book.journal
            search.read_next(journal)
        return None if search.goes_on else search.result(self._writer)

    def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        with self._held() as ledger:
            return {task_id: ledger.active.get(task_id, 0) for task_id in task_ids}

    def forget(self, before: datetime, limit: int) -> int:
        bound = to_microseconds(before)
        with self._held() as ledger:
            first, forgotten = ledger.forgotten, 0
            number, passed = first
            for part in [*ledger.parts, ledger.part]:
                skip = first[1] if part.number == first[0] else 0
                left, most = part.rows - skip, limit - forgotten
                if part.settled_until < bound and left <= most:
                    old = left
                else:
                    old = self._count_old(part.number, skip, bound, most)
                forgotten += old
                if old < left or part is ledger.part:
                    number, passed = part.number, skip + old
                    break
                number, passed = part.number + 1, 0
            if forgotten:
                self._book.forget_until(number, passed)
            return forgotten

    def _count_old(self, part: int, skip: int, bound: int, most: int) -> int:
        rows = list(rows_of(self._book.journal.read_part(part)))[skip : skip + most]
        young = (place for place, row in enumerate(rows) if row["finished"] >= bound)
        return next(young, len(rows))

    def _now(self) -> int:
        return to_microseconds(self._clock.now())

    @contextmanager
    def _held(self, *, make: bool = False) -> Iterator[Ledger]:
        with self._records.locked():
            try:
                self._book.open(make=make)
                yield self._book.ledger
            except BaseException:
                # Whatever it was, what is on the disk is right.
                self._book.close()
                raise


def _key(ref: RunRef) -> RunKey:
    return ref.task_id, ref.kind.value, to_microseconds(ref.scheduled_time)


def _owned(ledger: Ledger, node_id: str, ref: RunRef) -> LiveRun | None:
    return ledger.find(_key(ref), node_id, ref.token)


def _ref(run: LiveRun) -> RunRef:
    return RunRef(run.task_id, RunKind(run.kind), from_microseconds(run.times[0]), run.token)
