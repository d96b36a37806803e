"""Runs on their way on a Redis server: tried again, cancelled, with notes; and short histories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from struct import Struct
from typing import Any, NamedTuple

from asyncz.enums import RunState
from asyncz.serializers.values import is_clean_text
from asyncz.stores.cluster import Attended, OpenRun, RunRef
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_left import Left, ReadTask, read_left
from asyncz.stores.redis_rows import encode_key, read_pairs
from asyncz.stores.redis_run_packing import in_parts, pack_attempt, pack_note
from asyncz.stores.redis_run_rows import (
    STATE_OF,
    STATES,
    RunTexts,
    encode_moment,
    read_run,
)
from asyncz.stores.rows import Slices

__all__ = ["RedisAttempts"]

ROWS = 256
"""Runs in one call that changes them."""
PAGE = 500
"""Runs in one call that reads them."""
BYTES = 1024 * 1024
"""Of runs in one call, if there is more than one."""
TASKS = 100
"""Tasks in one call that looks for attempts that are due."""
LOOKED_AT = 400
"""Tasks that one `attend` looks at, at most, if they have no place free or cannot be read here; the
next one goes on behind them."""
YES = ord("1")
TAKEN = ord("t")
CANCELLED = ord("x")

_COUNTS = Struct("<II")


class _Due(NamedTuple):
    """A task of which a run is due again.

    Args:
        group: What its waiting runs are known by.
        first: The first of them.
        active: How many runs of it go on.
        waiting: How many are due.
    """

    group: bytes
    first: Left
    active: int
    waiting: int

    def wanted(self, room: int) -> int:
        """How many of them can be given, or ended since the task is gone."""
        if self.first.task is not None:
            room = min(room, self.first.task.max_instances - self.active)
        elif not self.first.is_gone:
            room = 0
        return max(0, min(room, self.waiting))


class RedisAttempts:
    """What happens to the runs of one store between their claim and their end.

    Args:
        calls: To the server.
        now: What the scripts are to take for the time.
        texts: From what is said of a run to bytes and back.
        read: The task of a row.
    """

    def __init__(
        self,
        calls: RedisCalls,
        now: Callable[[], bytes],
        texts: RunTexts,
        read: ReadTask,
    ) -> None:
        self._calls = calls
        self._now = now
        self._texts = texts
        self._read = read
        self._behind = b""

    async def note(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        packed = [(pack_note(ref, said, self._texts), 1) for ref, said in notes]
        kept: list[bool] = []
        for part in in_parts(packed, ROWS, BYTES):
            said = await self._calls("note", encode_key(node_id), part)
            kept += [digit == YES for digit in said]
        return kept

    async def attend(self, node_id: str, limit: int) -> Attended:
        node = encode_key(node_id)
        taken: list[OpenRun] = []
        ended: list[RunRef] = []
        looked_at, began_in_front = 0, not self._behind
        while looked_at < LOOKED_AT and (room := limit - len(taken) - len(ended)) > 0:
            tasks = await self._tasks(min(room, TASKS))
            looked_at += len(tasks)
            for (run, task, error), fate in await self._take(node, await self._runs(tasks, room)):
                if fate == TAKEN:
                    taken.append(run.tried_by(node_id).opened(task, error))
                elif fate == CANCELLED:
                    ended.append(run.ref)
            if not self._behind:
                if began_in_front:
                    break
                began_in_front = True
        return Attended(tuple(taken), tuple(await self._asked(node)), tuple(ended))

    async def cancel(self, task_id: str, moment: datetime, by: str) -> RunState | None:
        if not is_clean_text(task_id):
            return None
        text = self._texts.pack(task_id, moment, {"r": f"it was cancelled by {by}", "c": by})
        time, key = encode_moment(moment), encode_key(task_id)
        letter = await self._calls("cancel", self._now(), time, key, text)
        return STATE_OF[letter] if letter else None

    async def prune(
        self, task_id: str, states: frozenset[RunState], keep: int, before: datetime, limit: int
    ) -> int:
        letters = b"".join(STATES[state] for state in states if not state.is_open)
        if not letters or not is_clean_text(task_id):
            return 0
        key, bound, behind = encode_key(task_id), encode_moment(before), b""
        forgotten, more = 0, b"1"
        while more == b"1" and forgotten < limit:
            room = limit - forgotten
            said = await self._calls("prune", key, behind, ROWS, letters, keep, bound, room)
            more, gone, kept, behind = said.split(b" ", 3)
            forgotten += int(gone)
            keep = int(kept)
        return forgotten

    async def _tasks(self, limit: int) -> list[_Due]:
        """The next tasks of which runs are due again, the earliest first."""
        said = await self._calls("due_again", self._now(), self._behind, limit, BYTES)
        self._behind, packed = said
        pairs = list(read_pairs(packed))
        runs = (pair for at, pair in enumerate(pairs) if at % 3)
        firsts = [left async for left in read_left(runs, Slices(), self._read)]
        return [
            _Due(group, first, *_COUNTS.unpack(counts))
            for (group, counts), first in zip(pairs[::3], firsts, strict=True)
        ]

    async def _runs(self, tasks: Sequence[_Due], room: int) -> list[Left]:
        """Of these tasks, the runs that can be given; at most so many."""
        runs: list[Left] = []
        for due in tasks:
            count = due.wanted(room - len(runs))
            if count == 1:
                runs.append(due.first)
            elif count:
                packed = await self._calls("due_of", self._now(), due.group, count, BYTES)
                pairs = read_pairs(packed)
                runs += [left async for left in read_left(pairs, Slices(), self._read)]
        return runs

    async def _take(self, node: bytes, runs: Sequence[Left]) -> list[tuple[Left, int]]:
        """Take those whose task has a place free, and say what became of each."""
        said = bytearray()
        known = [left for left in runs if left.letter != b"u"]
        packed = [
            (pack_attempt(run.ref, letter, task.max_instances if task else 0), 1)
            for run, task, letter in ((left.run, left.task, left.letter) for left in known)
        ]
        for part in in_parts(packed, ROWS, BYTES):
            said += await self._calls("attend", self._now(), node, part)
        return list(zip(known, said, strict=True))

    async def _asked(self, node: bytes) -> list[tuple[RunRef, str]]:
        """Which runs of a node are to be cancelled, and who has asked."""
        found: list[tuple[RunRef, str]] = []
        after, more = b"", 1
        while more:
            more, after, packed = await self._calls("asked", node, after, PAGE, BYTES)
            for ident, value in read_pairs(packed):
                run = read_run(ident, value)
                found.append((run.ref, self._texts.asker(run)))
        return found
