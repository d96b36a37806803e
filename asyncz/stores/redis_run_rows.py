"""How runs look on a Redis server, and on the way to its scripts. See `redis_run_lua`."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple

from asyncz.enums import Delivery, NodeState, RunKind, RunState
from asyncz.exceptions import UnreadableRecordError
from asyncz.runs.base import Run, readable_notes
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import Node, NodeRecord, OpenRun, RunOutcome, RunRef
from asyncz.stores.redis_rows import (
    NEVER,
    TIME_LENGTH,
    decode_time,
    encode_key,
    encode_time,
)
from asyncz.stores.redis_run_lua import HEAD, MORE, NODE_HEAD

__all__ = [
    "KINDS",
    "STATES",
    "STATE_OF",
    "RunTexts",
    "StoredRun",
    "encode_moment",
    "ident_of",
    "info_of",
    "moment_of",
    "prefix_of",
    "read_node",
    "read_run",
]

STATES = {
    RunState.QUEUED: b"q",
    RunState.CLAIMED: b"c",
    RunState.RUNNING: b"r",
    RunState.RETRYING: b"w",
    RunState.SUCCEEDED: b"s",
    RunState.FAILED: b"f",
    RunState.LOST: b"l",
    RunState.ABANDONED: b"a",
    RunState.CANCELLED: b"x",
    RunState.MISSED: b"m",
    RunState.COALESCED: b"o",
    RunState.SKIPPED: b"k",
}
"""The letter of each, as the scripts know it."""
STATE_OF = {letter: state for state, letter in STATES.items()}
KINDS = {RunKind.SCHEDULED: b"s", RunKind.MANUAL: b"m"}
KIND_OF = {b"s": RunKind.SCHEDULED, b"m": RunKind.MANUAL}
DELIVERIES = {Delivery.AT_LEAST_ONCE: b"l", Delivery.AT_MOST_ONCE: b"o"}
DELIVERY_OF = {letter: delivery for delivery, letter in DELIVERIES.items()}
NODE_STATES = {b"a": NodeState.ALIVE, b"d": NodeState.DEAD, b"l": NodeState.LEFT}
EARLIER = 1 + 18
"""Letters at the end of the ident of a run whose task's id belongs to another one since."""

_MORE = Struct(MORE.replace("I4", "I"))


class StoredRun(NamedTuple):
    """A run as it lies on the server; times in the form of its bytes.

    Args:
        key: Of its task.
        time: When it was due.
        kind: Its letter.
        attempt: How often it was claimed.
        finished: When it was, or, while it waits, when it is tried again.
        followers: The times of those that follow it.
        text: What was said of it when it ended, or when its last attempt did.
        mark: Who has asked to cancel it.
        notes: What it has said of itself since.
    """

    key: str
    time: bytes
    kind: bytes
    state: RunState
    delivery: Delivery
    token: int
    attempt: int
    claimed: bytes
    started: bytes
    finished: bytes
    owner: str
    followers: tuple[bytes, ...]
    text: bytes
    mark: bytes = b""
    notes: bytes = b""

    @property
    def ref(self) -> RunRef:
        """What its owner knows of it."""
        return RunRef(self.key, KIND_OF[self.kind], moment_of(self.time), self.token)

    @property
    def run_times(self) -> tuple[datetime, ...]:
        """Its own and its followers', oldest first."""
        return tuple(map(moment_of, (self.time, *self.followers)))

    def taken_by(self, node_id: str) -> StoredRun:
        """What it becomes when that node takes it over."""
        once = self.delivery is Delivery.AT_MOST_ONCE
        return self._replace(
            owner=node_id, token=self.token + 1, attempt=self.attempt + 1,
            state=self.state if once else RunState.RUNNING,
        )  # fmt: skip

    def tried_by(self, node_id: str) -> StoredRun:
        """What it becomes when that node takes its next attempt."""
        once = self.delivery is Delivery.AT_MOST_ONCE
        return self._replace(
            owner=node_id, token=self.token + 1, attempt=self.attempt + 1,
            state=RunState.CLAIMED if once else RunState.RUNNING,
        )  # fmt: skip

    def opened(self, task: Any, error: str | None) -> OpenRun:
        """It, with what it is to be carried out by."""
        return OpenRun(
            self.ref, self.state, self.attempt, self.run_times, self.delivery, task, error
        )

    def each(self) -> Iterator[StoredRun]:
        """It and those that wait behind it."""
        yield self
        for time in self.followers:
            yield self._replace(time=time, state=RunState.QUEUED, followers=())


@dataclass(frozen=True)
class RunTexts:
    """What people are told of a run, as bytes.

    What the store keeps secret is encrypted, bound to the task's id and the instant.

    Args:
        alias: Of the store.
        keeps_secret: Whether reasons and errors are encrypted.
        encrypt, decrypt: As for records.
    """

    alias: str
    keeps_secret: bool
    encrypt: Callable[[bytes], bytes]
    decrypt: Callable[[bytes], bytes]

    def pack(self, task_id: str, moment: datetime, facts: dict[str, Any], **clear: Any) -> bytes:
        """As bytes; those that are None are left out.

        Args:
            task_id, moment: Of the run.
            facts: `r` reason, `e` error, `t` traceback, `o` notes, `c` who has asked to cancel it.
            clear: `n` occurrences, `l` the last of them: in clear as all times are.
        """
        known = {name: value for name, value in facts.items() if value is not None}
        if known and self.keeps_secret:
            bound = {"v": 1, "id": task_id, "at": to_microseconds(moment), **known}
            known = {"x": b64encode(self.encrypt(_json(bound))).decode()}
        known |= clear
        return _json(known) if known else b""

    def unpack(self, task_id: str, moment: datetime, text: bytes) -> dict[str, Any]:
        """The facts; none, if somebody else encrypted them."""
        facts: dict[str, Any] = json.loads(text) if text else {}
        sealed = facts.get("x")
        if sealed is None:
            return facts
        try:
            found: dict[str, Any] = json.loads(self.decrypt(b64decode(sealed)))
        except (UnreadableRecordError, ValueError):
            found = {}
        is_its_own = found.get("id") == task_id and found.get("at") == to_microseconds(moment)
        return facts | found if is_its_own else facts

    def outcome(self, task_id: str, outcome: RunOutcome) -> bytes:
        """What an outcome says beside its state."""
        notes = outcome.notes
        if outcome.reason is outcome.error is outcome.traceback is None and notes is None:
            return b""
        facts: dict[str, Any] = {"r": outcome.reason, "e": outcome.error, "t": outcome.traceback}
        if notes is not None:
            facts["o"] = dict(notes)
        return self.pack(task_id, outcome.scheduled_time, facts)

    def asker(self, stored: StoredRun) -> str:
        """Who has asked to cancel a run; nobody's name, if somebody else encrypted it."""
        return str(self.unpack(stored.key, moment_of(stored.time), stored.mark).get("c", ""))

    def run(self, stored: StoredRun) -> Run:
        """A run for people."""
        moment = moment_of(stored.time)
        facts, is_waiting = self._facts(stored, moment), stored.state is RunState.RETRYING
        several = facts.get("n", 1) > 1
        return Run(
            task_id=stored.key,
            store_alias=self.alias,
            kind=KIND_OF[stored.kind],
            scheduled_time=moment,
            state=stored.state,
            occurrences=facts.get("n", 1),
            last_scheduled_time=moment_of(facts["l"].encode()) if several else None,
            owner=stored.owner or None,
            attempt=stored.attempt,
            token=stored.token,
            claimed_at=moment_of(stored.claimed),
            started_at=_moment_or_none(stored.started),
            finished_at=None if is_waiting else _moment_or_none(stored.finished),
            retry_at=moment_of(stored.finished) if is_waiting else None,
            reason=facts.get("r"),
            error=facts.get("e"),
            traceback=facts.get("t"),
            **readable_notes(facts.get("o")),
        )

    def _facts(self, stored: StoredRun, moment: datetime) -> dict[str, Any]:
        """What is known of a run. One that follows another looks like it, but nothing is said."""
        if stored.state is RunState.QUEUED:
            return {}
        facts = self.unpack(stored.key, moment, stored.text)
        if stored.notes:
            facts["o"] = self.unpack(stored.key, moment, stored.notes).get("o")
        return facts


def encode_moment(moment: datetime) -> bytes:
    """A time as the scripts know it."""
    return encode_time(to_microseconds(moment))


def moment_of(time: bytes) -> datetime:
    """The reverse of `encode_moment`."""
    return from_microseconds(_microseconds(time))


def ident_of(ref: RunRef) -> bytes:
    """What a run is known by on the server."""
    return encode_moment(ref.scheduled_time) + encode_key(ref.task_id) + KINDS[ref.kind]


def prefix_of(text: bytes) -> bytes:
    """What members of a task or an owner begin with."""
    return b"%08d" % len(text) + text


def read_run(ident: bytes, value: bytes) -> StoredRun:
    """A run of the server's."""
    letter, delivery = ident[-1:], value[1:2]
    end = -EARLIER if letter.isupper() else -1
    owner = HEAD + int(value[93:96])
    times = owner + TIME_LENGTH * int(value[96:HEAD])
    retries, text, mark, notes = 0, value[times:], b"", b""
    if delivery.isupper():
        delivery = delivery.lower()
        retries, text, mark, notes = _read_more(value, times)
    return StoredRun(
        ident[TIME_LENGTH:end].decode("utf-8", "surrogateescape"),
        ident[:TIME_LENGTH],
        letter.lower(),
        STATE_OF[value[:1]],
        DELIVERY_OF[delivery],
        int(value[2:14]),
        int(value[14:18]) + retries,
        value[18:37],
        value[37:56],
        value[56:75],
        value[HEAD:owner].decode("utf-8", "surrogateescape"),
        tuple(value[at : at + TIME_LENGTH] for at in range(owner, times, TIME_LENGTH)),
        text,
        mark,
        notes,
    )


def _read_more(value: bytes, start: int) -> tuple[int, bytes, bytes, bytes]:
    """Retries, text, mark and notes of a run that has them; see `MORE`."""
    text = start + _MORE.size
    if len(value) >= text:
        retries, mark, notes = _MORE.unpack_from(value, start)
        middle, end = text + mark, text + mark + notes
        if len(value) >= end:
            return retries, value[end:], value[text:middle], value[middle:end]
    return 0, value[start:], b"", b""


def info_of(node: Node) -> bytes:
    """What a node says of itself."""
    return _json(node[1:])


def read_node(name: bytes, value: bytes, now: bytes) -> tuple[bytes, NodeRecord]:
    """A node of the server's, and its number."""
    identity, host, process_id = json.loads(value[NODE_HEAD:])
    state, lease = NODE_STATES[value[:1]], value[49:68]
    if state is NodeState.ALIVE and _microseconds(lease) < _microseconds(now):
        state = NodeState.STALE
    node = Node(name.decode("utf-8", "surrogateescape"), identity, host, process_id)
    joined, seen = moment_of(value[11:30]), moment_of(value[30:49])
    record = NodeRecord(node, state, joined, seen, moment_of(lease), int(value[68:NODE_HEAD]))
    return value[1:11], record


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _microseconds(time: bytes) -> int:
    return decode_time(time) or 0


def _moment_or_none(time: bytes) -> datetime | None:
    return None if time == NEVER else moment_of(time)
