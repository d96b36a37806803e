"""What the journal of a file store's runs adds up to: nodes, and the runs that go on.

`Ledger.apply` is the only way in which it changes, for changes of this process and for those that
are read of others alike. It never fails: who tells it of a run that it does not know is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from asyncz.enums import NodeState, RunState
from asyncz.stores.file_journal import SEAL, Change

__all__ = ["VERSION", "Ledger", "LedgerNode", "LiveRun", "Move", "Part", "Row", "RunKey"]

VERSION = 1
KEPT_CLAIMS = 2
"""Of each node: the one that may be asked for again, and one more."""
KEPT_NODES = 100
"""That are not alive any more and have no runs."""

CLAIMED, RUNNING = RunState.CLAIMED.value, RunState.RUNNING.value
ALIVE = NodeState.ALIVE.value

NOBODY: frozenset[str] = frozenset()

RunKey = tuple[str, str, int]
"""A task's id, the kind of its run, and the instant of it in microseconds."""
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
    """

    number: int
    rows: int = 0
    settled_until: int = 0
    due_until: int = 0
    damaged: bool = False


@dataclass(slots=True)
class LiveRun:
    """A run that is open. Instants in microseconds.

    Args:
        number: Of its own in this journal.
        times: The head's and its followers'.
        once: Whether it is `at_most_once`.
        record: The task's record, if the task was forgotten with this run or after it.
    """

    number: int
    task_id: str
    kind: str
    times: list[int]
    generation: int
    once: bool
    record: dict[str, Any] | str | None = None
    owner: str | None = None
    state: str = CLAIMED
    attempt: int = 1
    token: int = 1
    claimed: int = 0
    started: int | None = None

    @property
    def key(self) -> RunKey:
        """What refers to it; not its task's generation."""
        return self.task_id, self.kind, self.times[0]

    def all_keys(self) -> Iterator[RunKey]:
        """The same of each of its occurrences."""
        return ((self.task_id, self.kind, at) for at in self.times)


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
        self.open: dict[int, LiveRun] = {}
        self.owned: dict[str | None, dict[int, LiveRun]] = {}
        self.active: dict[str, int] = {}
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
        self._by_key: dict[RunKey, list[LiveRun]] = {}
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
            "forget": self._forget,
            SEAL: self._seal,
        }

    # Questions.

    def is_alive(self, node_id: str | None) -> bool:
        """Whether it is a node that has joined, and has neither left nor been buried."""
        node = self.nodes.get(node_id or "")
        return node is not None and node.state == ALIVE

    def find(self, key: RunKey, node_id: str, token: int) -> LiveRun | None:
        """The open run of that key that the node owns with that token."""
        for run in self._by_key.get(key, ()):
            if run.key == key and run.owner == node_id and run.token == token:
                return run
        return None

    def is_open(self, key: RunKey) -> bool:
        """Whether that occurrence is open, or waits behind one that is; of any generation of the
        task, since outcomes could not be told apart."""
        return key in self._by_key

    def unowned(self, gone: Set[str | None] | Set[str] = NOBODY) -> Iterator[LiveRun]:
        """The open runs of nobody, of nodes that are not alive, and of these."""
        for owner, runs in self.owned.items():
            if owner in gone or not self.is_alive(owner):
                yield from runs.values()

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
            "open": [asdict(run) for run in self.open.values()],
            "moves": [list(move) for move in self.moves],
            "parts": [list(part) for part in kept if part.number],
        }

    def _kept_nodes(self) -> list[LedgerNode]:
        gone = [
            node_id
            for node_id, node in self.nodes.items()
            if node.state != ALIVE and not self.owned.get(node_id)
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
        self.open, self.owned, self.active, self._by_key = {}, {}, {}, {}
        for run in change["open"]:
            self._enter(LiveRun(**run))
        self.moves = [Move(*move) for move in change["moves"]]
        self.parts = [Part(*part) for part in change["parts"]]
        self.part, self.settled = Part(change["number"]), {}
        self.is_sealed = False

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
            for run in self.open.values():
                if run.record is None and (run.task_id, run.generation) == (task_id, generation):
                    run.record = record
        for number, task_id, kind, times, generation, once, record in change["runs"]:
            run = LiveRun(number, task_id, kind, times, generation, once, record, owner)
            run.claimed = at
            if not once:
                run.state, run.started = RUNNING, at
            self._enter(run)
            self.last_number = max(self.last_number, number)
        self.moves = [Move(*move) for move in change["moves"]]
        self._settle(change)
        if node := self.nodes.get(owner):
            node.claims = [*node.claims, [change["claim"], change["said"]]][-KEPT_CLAIMS:]

    def _moved(self, change: Change) -> None:
        self.moves = []

    def _start(self, change: Change) -> None:
        for run in self._named(change["runs"]):
            run.state, run.started = RUNNING, change["at"]

    def _end(self, change: Change) -> None:
        for run in self._named(change["runs"]):
            self._drop(run)
        self._settle(change)

    def _free(self, change: Change) -> None:
        for run in self._named(change["runs"]):
            self._hand_over(run, None)
            run.state, run.started = CLAIMED, None
            run.attempt = max(0, run.attempt - 1)

    def _reap(self, change: Change) -> None:
        for node_id in change["dead"]:
            self._retire(node_id, NodeState.DEAD, change)
        for run in self._named(change["taken"]):
            self._hand_over(run, change["node"])
            run.token, run.attempt = run.token + 1, run.attempt + 1
            if not run.once:
                run.state, run.started = RUNNING, change["at"]
        self._end(change)

    def _forget(self, change: Change) -> None:
        self.forgotten = (change["part"], change["passed"])
        self.parts = [part for part in self.parts if part.number >= change["part"]]

    def _named(self, numbers: Sequence[int]) -> Iterable[LiveRun]:
        return filter(None, map(self.open.get, numbers))

    def _enter(self, run: LiveRun) -> None:
        self.open[run.number] = run
        self.owned.setdefault(run.owner, {})[run.number] = run
        for key in run.all_keys():
            self._by_key.setdefault(key, []).append(run)
        self.active[run.task_id] = self.active.get(run.task_id, 0) + 1

    def _drop(self, run: LiveRun) -> None:
        del self.open[run.number]
        self._disown(run)
        for key in run.all_keys():
            alike = self._by_key[key]
            alike.remove(run)
            if not alike:
                del self._by_key[key]
        left = self.active.pop(run.task_id) - 1
        if left:
            self.active[run.task_id] = left

    def _hand_over(self, run: LiveRun, owner: str | None) -> None:
        self._disown(run)
        run.owner = owner
        self.owned.setdefault(owner, {})[run.number] = run

    def _disown(self, run: LiveRun) -> None:
        runs = self.owned[run.owner]
        del runs[run.number]
        if not runs:
            del self.owned[run.owner]

    def _settle(self, change: Change) -> None:
        rows: list[Row] = change["rows"]
        if not rows:
            return
        due_until = self.part.due_until
        for row in rows:
            at = row["at"]
            due_until = max(due_until, at)
            if "ran" in row:
                self.settled[row["task"], row["kind"], at] = row
        part = self.part
        settled_until = max(part.settled_until, change["at"])
        self.part = part._replace(
            rows=part.rows + len(rows), settled_until=settled_until, due_until=due_until
        )
