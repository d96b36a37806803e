"""What the journal of a file store's runs adds up to: nodes, and the runs that go on.

`Ledger.apply` is the only way in which it changes, for changes of this process and for those that
are read of others alike. It never fails: who tells it of a run that it does not know is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from asyncz.enums import NodeState
from asyncz.stores.file_journal import SEAL, Change
from asyncz.stores.file_live import CLAIMED, RETRYING, RUNNING, LiveRun, LiveRuns, RunKey

__all__ = ["OLD_VERSIONS", "VERSION", "Ledger", "LedgerNode", "Move", "Part", "Row"]

VERSION = 2
OLD_VERSIONS = frozenset({1})
"""Which are read too, and gone on with as this one. Who writes those does not know of runs that
wait, and would lose them."""
KEPT_CLAIMS = 2
"""Of each node: the one that may be asked for again, and one more."""
KEPT_NODES = 100
"""That are not alive any more and have no runs."""

ALIVE = NodeState.ALIVE.value

NOBODY: frozenset[str] = frozenset()
UNKNOWN = -(2**62)
"""An instant before all others."""

Row = dict[str, Any]
"""An occurrence that is settled, as it stands in the journal. See `Ledger._settle`."""


class Move(NamedTuple):
    """A step of a task's schedule, which is made after it was written down.

    Args:
        task_id: Whose.
        generation: The order of insertion of the task that is meant.
        expected, next_run: Microseconds; None: paused.
        forget: Whether the task is forgotten.
    """

    task_id: str
    generation: int
    expected: int | None
    next_run: int | None
    forget: bool


class Part(NamedTuple):
    """What is known of a file of the journal without reading it.

    Args:
        number: The file's.
        rows: How many settled occurrences are in it.
        settled_until: When the last of them was settled, in microseconds.
        due_until: The last instant that any of them was due.
        damaged: Whether there are lines in it that cannot be read.
        due_from: The first instant that any of them was due.
        gone: Those of them that are forgotten while others behind them are not: hexadecimal digits
            of a number with a bit for each, counted from the first one in the file.
    """

    number: int
    rows: int = 0
    settled_until: int = 0
    due_until: int = 0
    damaged: bool = False
    due_from: int = UNKNOWN
    gone: str = ""

    @property
    def bits(self) -> int:
        """That number."""
        return int(self.gone or "0", 16)

    def without(self, rows: int) -> Part:
        """The same, with these forgotten too, a bit for each."""
        return self._replace(gone=f"{self.bits | rows:x}")

    def left(self, passed: int) -> int:
        """How many are not forgotten, if those before this one are."""
        return max(0, self.rows - passed - (self.bits >> passed).bit_count())


@dataclass(slots=True)
class LedgerNode:
    """A node.

    Args:
        about: Its id, identity, host and process id.
        joined, changed: When it joined, and when its state changed last.
        lease: The last known one if it has no lease file any more: when it was heard of last,
            how long it was to last, and how many runs went on there.
        claims: The last ones, and what was said to each.
    """

    about: list[Any]
    joined: int
    lease: list[int]
    state: str = ALIVE
    changed: int = 0
    claims: list[list[str]] = field(default_factory=list)


class Ledger:
    """Nodes and open runs, and what was settled since the file of the journal was begun."""

    def __init__(self) -> None:
        self.nodes: dict[str, LedgerNode] = {}
        self.live = LiveRuns()
        self.rows: list[Row] = []
        self.due_until: list[int] = []
        """What was settled in the file, in order, and the last instant that was due up to each."""
        self.settled: dict[RunKey, Row] = {}
        self.moves: list[Move] = []
        """Steps that are written down, but perhaps not made."""
        self.parts: list[Part] = []
        """The sealed files, oldest first, without those that are forgotten."""
        self.part = Part(0)
        self.forgotten = (0, 0)
        """The number of the first file that is not forgotten, and how many of its rows are."""
        self.last_number = 0
        self.is_sealed = False
        self._verbs: dict[str, Callable[[Change], None]] = {
            "head": self._begin,
            "join": self._join,
            "leave": self._leave,
            "fire": self._fire,
            "moved": self._moved,
            "start": self._start,
            "end": self._end,
            "free": self._free,
            "reap": self._reap,
            "note": self._note,
            "ask": self._ask,
            "attend": self._attend,
            "forget": self._forget,
            "prune": self._prune,
            SEAL: self._seal,
        }

    # Questions.

    def is_alive(self, node_id: str | None) -> bool:
        """Whether it is a node that has joined, and has neither left nor been buried."""
        node = self.nodes.get(node_id or "")
        return node is not None and node.state == ALIVE

    def find(self, key: RunKey, node_id: str, token: int) -> LiveRun | None:
        """The open run of that key that the node owns with that token."""
        found = self.waits_or_goes_on(key, node_id, token)
        return None if found is None or found.state == RETRYING else found

    def waits_or_goes_on(self, key: RunKey, node_id: str, token: int) -> LiveRun | None:
        """Likewise; or the one that it owned, which waits for its next attempt."""
        for run in self.live.having(key):
            if run.key == key and run.owner == node_id and run.token == token:
                return run
        return None

    def is_open(self, key: RunKey) -> bool:
        """Whether that occurrence is open, or waits behind one that is; of any generation of the
        task, since outcomes could not be told apart."""
        return bool(self.live.having(key))

    def unowned(self, gone: Set[str | None] | Set[str] = NOBODY) -> Iterator[LiveRun]:
        """The open runs of nobody, of nodes that are not alive, and of these; none that waits."""
        for owner, runs in self.live.owned.items():
            if owner in gone or not self.is_alive(owner):
                yield from runs.values()

    @property
    def attend_at(self) -> int | None:
        """From when on somebody is to see to runs that wait, or that are to be cancelled."""
        return 0 if self.live.marked else self.live.waiting.first()

    def answer(self, node_id: str, claim: str) -> str | None:
        """What was said to a claim before."""
        node = self.nodes.get(node_id)
        return None if node is None else dict(node.claims).get(claim)

    def head(self, number: int) -> Change:
        """The first line of the next file: all that is needed of this one."""
        kept = [*self.parts, self.part]
        return {
            "op": "head",
            "v": VERSION,
            "number": number,
            "last_number": self.last_number,
            "forgotten": list(self.forgotten),
            "nodes": [asdict(node) for node in self._kept_nodes()],
            "open": [asdict(run) for run in self.live.by_number.values()],
            "moves": [list(move) for move in self.moves],
            "parts": [list(part) for part in kept if part.number],
        }

    def _kept_nodes(self) -> list[LedgerNode]:
        gone = [
            node_id
            for node_id, node in self.nodes.items()
            if node.state != ALIVE and not self.live.owned.get(node_id)
        ]
        for node_id in gone[:-KEPT_NODES]:
            del self.nodes[node_id]
        return list(self.nodes.values())

    # Changes.

    def apply(self, change: Change) -> None:
        """Take a change in."""
        verb = self._verbs.get(change.get("op", ""))
        if verb is not None:
            verb(change)

    def _begin(self, change: Change) -> None:
        self.last_number = change["last_number"]
        self.forgotten = (change["forgotten"][0], change["forgotten"][1])
        self.nodes = {node["about"][0]: LedgerNode(**node) for node in change["nodes"]}
        self.live = LiveRuns()
        for run in change["open"]:
            self.live.enter(LiveRun(**run))
        self.moves = [Move(*move) for move in change["moves"]]
        self.parts = [Part(*part) for part in change["parts"]]
        self.settled = {}
        self.begin_part(Part(change["number"]))
        self.is_sealed = False

    def begin_part(self, part: Part) -> None:
        """What is settled from now on is in that file."""
        self.part, self.rows, self.due_until = part, [], []

    def _seal(self, change: Change) -> None:
        self.is_sealed = True

    def _join(self, change: Change) -> None:
        at = change["at"]
        node = LedgerNode(change["node"], at, change["lease"], changed=at)
        self.nodes[node.about[0]] = node

    def _leave(self, change: Change) -> None:
        self._retire(change["node"], NodeState.LEFT, change)

    def _retire(self, node_id: str, state: NodeState, change: Change) -> None:
        if node := self.nodes.get(node_id):
            node.state, node.changed = state.value, change["at"]
            node.lease = change["leases"].get(node_id, node.lease)

    def _fire(self, change: Change) -> None:
        owner, at = change["node"], change["at"]
        for task_id, generation, record in change.get("kept", ()):
            for run in self.live.by_number.values():
                if run.record is None and (run.task_id, run.generation) == (task_id, generation):
                    run.record = record
        for number, task_id, kind, times, generation, once, record in change["runs"]:
            run = LiveRun(number, task_id, kind, times, generation, once, record, owner)
            run.claimed = at
            if not once:
                run.state, run.started = RUNNING, at
            self._number(run)
        self.moves = [Move(*move) for move in change["moves"]]
        self._settle(change)
        if node := self.nodes.get(owner):
            node.claims = [*node.claims, [change["claim"], change["said"]]][-KEPT_CLAIMS:]

    def _moved(self, change: Change) -> None:
        self.moves = []

    def _number(self, run: LiveRun) -> None:
        self.live.enter(run)
        self.last_number = max(self.last_number, run.number)

    def _start(self, change: Change) -> None:
        for run in self.live.named(change["runs"]):
            run.state, run.started = RUNNING, change["at"]

    def _end(self, change: Change) -> None:
        waits = [
            replace(
                run, number=number, times=[at], state=RETRYING, retry=retry, said=said, noted=None,
                asked=run.asked if at == run.times[0] else None,
            )
            for ended, number, at, retry, said in change.get("waits", ())
            for run in self.live.named([ended])
        ]  # fmt: skip
        for run in self.live.named(change["runs"]):
            self.live.drop(run)
        for run in waits:
            self._number(run)
        self._settle(change)

    def _free(self, change: Change) -> None:
        for run in self.live.named(change["runs"]):
            self.live.hand_over(run, None)
            run.state, run.started = CLAIMED, None
            run.attempt = max(0, run.attempt - 1)

    def _reap(self, change: Change) -> None:
        for node_id in change["dead"]:
            self._retire(node_id, NodeState.DEAD, change)
        for run in self.live.named(change["taken"]):
            self._take(run, change)
            if not run.once:
                run.state, run.started = RUNNING, change["at"]
        self._end(change)

    def _attend(self, change: Change) -> None:
        for run in self.live.named(change["taken"]):
            self._take(run, change)
            run.again += 1
            run.state, run.started = (CLAIMED, None) if run.once else (RUNNING, change["at"])
        self._end(change)

    def _take(self, run: LiveRun, change: Change) -> None:
        self.live.hand_over(run, change["node"])
        run.token, run.attempt = run.token + 1, run.attempt + 1

    def _note(self, change: Change) -> None:
        for number, noted in change["notes"]:
            for run in self.live.named([number]):
                run.noted = noted

    def _ask(self, change: Change) -> None:
        for run in self.live.named([change["run"]]):
            self.live.mark(run, change["by"])

    def _forget(self, change: Change) -> None:
        self.forgotten = (change["part"], change["passed"])
        self.parts = [part for part in self.parts if part.number >= change["part"]]

    def _prune(self, change: Change) -> None:
        gone = {number: int(rows, 16) for number, rows in change["gone"]}
        first, passed = self.forgotten
        for place, part in enumerate(self.parts):
            if part.number in gone:
                self.parts[place] = part.without(gone[part.number])
        self.parts = [
            part
            for part in self.parts
            if part.damaged or part.left(passed if part.number == first else 0)
        ]
        if self.part.number in gone:
            self.part = self.part.without(gone[self.part.number])

    def _settle(self, change: Change) -> None:
        rows: list[Row] = change["rows"]
        if not rows:
            return
        due_until = self.part.due_until
        due_from = self.part.due_from if self.part.rows else rows[0]["at"]
        for row in rows:
            at = row["at"]
            due_until, due_from = max(due_until, at), min(due_from, at)
            row["finished"] = change["at"]
            self.rows.append(row)
            self.due_until.append(due_until)
            if "ran" in row:
                self.settled[row["task"], row["kind"], at] = row
        part = self.part
        settled_until = max(part.settled_until, change["at"])
        self.part = part._replace(
            rows=part.rows + len(rows), settled_until=settled_until, due_until=due_until,
            due_from=due_from,
        )  # fmt: skip
