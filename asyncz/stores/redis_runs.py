"""Runs and nodes on a Redis server: the protocol of `ClusterStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from struct import Struct
from typing import NamedTuple

from asyncz.clock import Clock, SystemClock
from asyncz.enums import RunState
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.serializers.values import is_clean_text
from asyncz.stores.cluster import (
    Fired,
    Firing,
    Node,
    NodeRecord,
    OpenRun,
    Reaped,
    RunEnd,
    RunRef,
)
from asyncz.stores.redis_attempts import RedisAttempts
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_left import Left, ReadTask, read_left
from asyncz.stores.redis_rows import encode_key, encode_time, read_pairs
from asyncz.stores.redis_run_packing import in_parts, pack_end, pack_firing, pack_ref
from asyncz.stores.redis_run_rows import (
    STATE_OF,
    STATES,
    RunTexts,
    StoredRun,
    encode_moment,
    info_of,
    moment_of,
    prefix_of,
    read_node,
    read_run,
)
from asyncz.stores.rows import Slices

__all__ = ["RedisRuns", "Sight"]

ROWS = 256
"""Runs in one call that changes them: two milliseconds for the server. A firing counts for one
more than it enters."""
PAGES = 20
"""Such calls, at most, in search of what is old."""
PAGE = 500
"""Runs in one call that reads them."""
BYTES = 1024 * 1024
"""Of runs in one call, if there is more than one."""
FIRED = {
    ord("W"): Fired.WON,
    ord("S"): Fired.SKIPPED,
    ord("R"): Fired.REPEATED,
    ord("L"): Fired.LOST,
    ord("F"): Fired.FENCED,
}
YES = ord("1")
TAKEN = ord("t")
LEFT_ALONE = ord("0")
OPEN_STATES = frozenset(state for state in RunState if state.is_open)
WAITING = frozenset({RunState.RETRYING})
UNLUCKY_STATES = frozenset(RunState) - OPEN_STATES - {RunState.SUCCEEDED}

_LENGTH = Struct("<I")


class Sight(NamedTuple):
    """What a look finds.

    Args:
        now, next_run_time: As `Look` has them.
        unowned: How many open runs nobody has.
        has_batches: Whether tasks are being added in parts.
        attend_at: As `Look` has it.
    """

    now: datetime
    next_run_time: datetime | None
    unowned: int
    has_batches: bool
    attend_at: datetime | None


class RedisRuns:
    """The runs and nodes of one store.

    Args:
        calls: To the server.
        clock: The host's.
        texts: From what is said of a run to bytes and back.
        read: The task of a row. Raises UnreadableRecordError.
        is_unreadable: Whether a task's record is known not to be readable here.
    """

    def __init__(
        self,
        calls: RedisCalls,
        clock: Clock,
        texts: RunTexts,
        read: ReadTask,
        is_unreadable: Callable[[str], bool],
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._forgotten_until = b""
        self._texts = texts
        self._read = read
        self._is_unreadable = is_unreadable
        self.attempts = RedisAttempts(calls, self._now, texts, read)

    # Nodes.

    async def join(self, node: Node, lease: float) -> None:
        await self._calls("join", self._now(), encode_key(node.id), _span(lease), info_of(node))

    async def renew(self, node_id: str, lease: float, running: int) -> bool:
        return await renew(self._calls, self._now(), node_id, lease, running)

    async def leave(self, node_id: str) -> None:
        await self._calls("leave", encode_key(node_id))

    async def nodes(self) -> list[NodeRecord]:
        now, found = await self._calls("nodes", self._now())
        pairs = zip(found[::2], found[1::2], strict=True)
        numbered = sorted(read_node(name, value, now) for name, value in pairs)
        return [record for _, record in numbered]

    async def look(self) -> Sight:
        now, due, unowned, batches, again, asked = await self._calls("look", self._now())
        moment = moment_of(now)
        attend_at = moment if asked else moment_of(again) if again else None
        next_run_time = moment_of(due) if due else None
        return Sight(moment, next_run_time, unowned, bool(batches), attend_at)

    # Claims and outcomes.

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        packed = [
            pack_firing(firing, not self._is_unreadable(str(firing.task.id)), self._texts)
            for firing in firings
        ]
        answers: list[Fired] = []
        for number, part in enumerate(in_parts(packed, 2 * ROWS, BYTES)):
            said = await self._calls(
                "fire", self._now(), encode_key(node_id), part, claim=f"{claim}-{number}"
            )
            answers += [FIRED[letter] for letter in said]
        return answers

    async def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        packed = [(pack_ref(ref), 1) for ref in refs]
        started: list[bool] = []
        for part in in_parts(packed, ROWS, BYTES):
            said = await self._calls("start", self._now(), encode_key(node_id), part)
            started += [digit == YES for digit in said]
        return started

    async def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        packed = [pack_end(end, self._texts) for end in ends]
        counted: list[bool] = []
        for part in in_parts(packed, ROWS, BYTES):
            said = await self._calls("finish", self._now(), encode_key(node_id), part)
            counted += [digit == YES for digit in said]
        return counted

    async def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        for part in in_parts([(pack_ref(ref), 1) for ref in refs], ROWS, BYTES):
            await self._calls("release", encode_key(node_id), part)

    # What somebody else left.

    async def own_runs(self, node_id: str) -> list[OpenRun]:
        return [
            left.run.opened(left.task, left.error)
            async for page in self._pages_of(encode_key(node_id), PAGE)
            for left in page
        ]

    async def reap(
        self, node_id: str, bury: datetime | None, max_attempts: int, limit: int
    ) -> Reaped:
        node = encode_key(node_id)
        packed = await self._calls(
            "bury", self._now(), node, b"" if bury is None else encode_moment(bury)
        )
        dead, owners = _named(packed)
        taken: list[OpenRun] = []
        ended: list[tuple[RunRef, RunState]] = []
        async for page in self._pages_of_all(owners, min(limit, ROWS)):
            fates = await self._take(node, max_attempts, page[: limit - len(taken) - len(ended)])
            for (run, task, error), fate in fates:
                if fate == TAKEN:
                    taken.append(run.taken_by(node_id).opened(task, error))
                elif fate != LEFT_ALONE:
                    ended.append((run.ref, STATE_OF[bytes([fate])]))
            if len(taken) + len(ended) >= limit:
                break
        names = tuple(name.decode("utf-8", "surrogateescape") for name in dead)
        return Reaped(names, tuple(taken), tuple(ended))

    async def _take(
        self, node: bytes, max_attempts: int, page: Sequence[Left]
    ) -> list[tuple[Left, int]]:
        """Take over what can be, and say what became of each."""
        packed = [(pack_ref(left.run.ref, left.letter), len(left.run.run_times)) for left in page]
        said = bytearray()
        for part in in_parts(packed, ROWS, BYTES):
            said += await self._calls("take", self._now(), node, max_attempts, part)
        return list(zip(page, said, strict=True))

    async def _pages_of_all(self, owners: Sequence[bytes], limit: int) -> AsyncIterator[list[Left]]:
        for owner in owners:
            async for page in self._pages_of(owner, limit):
                yield page

    async def _pages_of(self, owner: bytes, limit: int) -> AsyncIterator[list[Left]]:
        """The open runs of an owner, oldest first, with their tasks."""
        after, more = b"", 1
        pause = Slices()
        while more and limit > 0:
            more, after, packed = await self._calls("owned", owner, after, limit, BYTES)
            yield [left async for left in read_left(read_pairs(packed), pause, self._read)]

    # History.

    async def runs(self, query: RunQuery) -> list[Run]:
        """As `ClusterStore.get_runs`. Those that are open are found without looking at others."""
        if query.states and query.states <= OPEN_STATES:
            return await self._open_runs(query)
        if query.states and query.states <= UNLUCKY_STATES:
            found = await self._unlucky_runs(query)
            if found is not None:
                return found
        return await self._all_runs(query)

    async def _unlucky_runs(self, query: RunQuery) -> list[Run] | None:
        """Those wanted, state by state.

        None: an older release has had these tasks, so that some may lie among the others only.
        """
        name = "unlucky" if query.task_id is None else "unlucky_of"
        since = encode_moment(query.since) if query.since else b""
        until = encode_time(to_microseconds(query.until) + 1) if query.until else b"\xff"
        found: list[Run] = []
        for state in sorted(query.states):
            start = STATES[state]
            if query.task_id is not None:
                start = start.upper() + prefix_of(encode_key(query.task_id))
            high, low, count = b"(" + start + until, b"[" + start + since, 0
            size = min(PAGE, query.limit)
            try:
                async for page in self._history(name, high, low, b"", size):
                    found += map(self._texts.run, page)
                    count += len(page)
                    if count >= query.limit:
                        break
            except LookupError:
                return None
        return query.select(found)

    async def _all_runs(self, query: RunQuery) -> list[Run]:
        name, start = "by_time", b""
        if query.task_id is not None:
            name, start = "by_task", prefix_of(encode_key(query.task_id))
        since = encode_moment(query.since) if query.since else b""
        low = b"[" + start + since if start or since else b"-"
        until = encode_time(to_microseconds(query.until) + 1) if query.until else b"\xff"
        letters = b"".join(STATES[state] for state in query.states)
        found: list[Run] = []
        size = PAGE if letters else min(PAGE, query.limit)
        async for page in self._history(name, b"(" + start + until, low, letters, size):
            found += map(self._texts.run, page)
            if len(found) >= query.limit:
                break
        return query.select(found)

    async def _open_runs(self, query: RunQuery) -> list[Run]:
        found: list[Run] = []
        for name in ("owned", "waits"):
            if not query.states - WAITING if name == "owned" else not query.states & WAITING:
                continue
            async for page in self._history(name, b"(\xff", b"-", b""):
                runs = [self._texts.run(run) for head in page for run in head.each()]
                found = query.select([*found, *runs])
        return found

    async def _history(
        self, name: str, high: bytes, low: bytes, letters: bytes, size: int = PAGE
    ) -> AsyncIterator[list[StoredRun]]:
        """Runs in one of these states, page by page, the latest first."""
        more = 1
        pause = Slices()
        while more and size > 0:
            more, last, packed = await self._calls("history", name, high, low, size, letters, BYTES)
            await pause()
            if more < 0:
                raise LookupError(name)
            yield [read_run(ident, value) for ident, value in read_pairs(packed)]
            high = b"(" + last

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for first in range(0, len(task_ids), PAGE):
            asked = task_ids[first : first + PAGE]
            found = await self._calls("count_active", *map(encode_key, asked))
            counts |= zip(asked, found, strict=True)
        return counts

    async def last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """As `ClusterStore.get_last_runs`, by one call for many."""
        names = filter(is_clean_text, dict.fromkeys(task_ids))
        asked, found = [*map(encode_key, names)], {}
        pause = Slices()
        while asked:
            used, packed = await self._calls("last", BYTES, *asked[:PAGE])
            del asked[:used]
            for ident, value in read_pairs(packed):
                await pause()
                run = self._texts.run(read_run(ident, value))
                found[run.task_id] = run
        return found

    async def forget(self, before: datetime, limit: int) -> int:
        bound, forgotten = encode_moment(before), 0
        for _ in range(PAGES):
            room = limit - forgotten
            said = await self._calls("forget", bound, ROWS, room, self._forgotten_until)
            more, gone, behind = said.split(b" ", 2)
            self._forgotten_until = behind if more == b"1" else b""
            forgotten += int(gone)
            if forgotten >= limit or more != b"1":
                break
        await self._calls("forget_nodes", bound)
        return forgotten

    def _now(self) -> bytes:
        """What the scripts are to take for the time; nothing: the server's own."""
        return b"" if isinstance(self._clock, SystemClock) else encode_moment(self._clock.now())


async def renew(calls: RedisCalls, now: bytes, node_id: str, lease: float, running: int) -> bool:
    """Renew a node's lease. False: it is not alive any more."""
    return bool(await calls("renew", now, encode_key(node_id), _span(lease), running))


def _span(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _named(packed: bytes) -> tuple[list[bytes], list[bytes]]:
    """The names of nodes that are dead now, and of owners whose runs are anybody's."""
    names: dict[bytes, list[bytes]] = {b"d": [], b"o": []}
    position = 0
    while position < len(packed):
        start = position + 1 + _LENGTH.size
        (length,) = _LENGTH.unpack_from(packed, position + 1)
        names[packed[position : position + 1]].append(packed[start : start + length])
        position = start + length
    return names[b"d"], names[b"o"]
