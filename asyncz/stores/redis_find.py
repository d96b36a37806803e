"""Pages of a query on a Redis store: by summaries, so that only the page's records are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Set
from heapq import nlargest, nsmallest
from math import inf
from typing import Any, NamedTuple

from asyncz.enums import TaskScheduleState
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_rows import (
    PAUSED,
    PLACE_LENGTH,
    TIME_LENGTH,
    decode_summary,
    encode_key,
    read_pairs,
    read_rows,
)
from asyncz.stores.rows import StoredRow
from asyncz.tasks.query import TaskQuery, TaskSummary

__all__ = ["fetch_records", "find_rows"]

SLICE = 1_000
"""Summaries in one call: about two milliseconds for the server."""
BYTES = 1024 * 1024
"""Of records in one answer, if there is more than one."""
STATES = {False: TaskScheduleState.SCHEDULED, True: TaskScheduleState.PAUSED}
RANGES: dict[TaskScheduleState | None, tuple[bytes, bytes]] = {
    None: (b"-", b"+"),
    STATES[False]: (b"-", b"(p"),
    STATES[True]: (b"[p", b"+"),
}


class Candidate(NamedTuple):
    """A row, as far as a query goes by it."""

    member: bytes
    summary: TaskSummary

    @property
    def key(self) -> bytes:
        return self.member[PLACE_LENGTH:]

    @property
    def time(self) -> bytes:
        return self.member[:TIME_LENGTH]

    @property
    def state(self) -> TaskScheduleState:
        return STATES[self.member.startswith(PAUSED)]


SORTERS: dict[str, Callable[[Candidate], tuple[Any, ...]]] = {
    "id": lambda row: (row.summary.id,),
    "name": lambda row: (row.summary.name, row.summary.id),
    "next_run_time": lambda row: (row.time, row.summary.name, row.summary.id),
    "schedule_state": lambda row: (row.state.value, row.time, row.summary.id),
    "executor": lambda row: (row.summary.executor, row.summary.id),
    "store": lambda row: (row.summary.id,),
    "trigger": lambda row: (row.summary.trigger, row.summary.id),
}
"""As in `asyncz.tasks.query`."""


async def find_rows(
    calls: RedisCalls, query: TaskQuery, exclude: Set[str]
) -> tuple[list[StoredRow], int] | None:
    """The page of a query and the number of rows on all pages; None: summaries cannot tell.

    Args:
        calls: To the server.
        query: Of scheduled or paused rows, or both.
        exclude: Keys to pass over.
    """
    if "\n" in query.needle:
        return None  # a summary is lines; what spans two of them is not in one text
    passed_over = {encode_key(key) for key in exclude}
    is_narrowed = query.executor or query.trigger or query.needle
    if query.sort_by == "next_run_time" and not is_narrowed:
        found = await _first_in_time(calls, query, passed_over)
    else:
        found = await _first_of_all(calls, query, passed_over)
    if found is None:
        return None
    page, total = found
    return await fetch_records(calls, [row.key for row in page]), total


async def fetch_records(calls: RedisCalls, keys: list[bytes]) -> list[StoredRow]:
    """The rows of those keys, without those that are gone."""
    rows: list[StoredRow] = []
    position = 0
    while position < len(keys):
        used, packed = await calls("records", BYTES, *keys[position : position + SLICE])
        rows += read_rows(packed)
        position += used
    return rows


async def _first_in_time(
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]
) -> tuple[list[Candidate], int] | None:
    """In the order that the server keeps. Of those at one time all are looked at, for a name."""
    wanted = inf if query.limit is None else query.offset + query.limit
    found: list[Candidate] = []
    async for part in _walk(calls, query):
        if part is None:
            return None
        found += [row for row in part if row.key not in passed_over]
        if len(found) >= wanted and (not wanted or found[-1].time != found[int(wanted) - 1].time):
            break
    return _page(query, found), await _count(calls, query, passed_over)


async def _first_of_all(
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]
) -> tuple[list[Candidate], int] | None:
    """By looking at all summaries; of those that match, only as many as needed are kept."""
    best = query.up_to_page()
    matches = _matcher(query, calls.alias)
    page: list[Candidate] = []
    total = 0
    async for part in _walk(calls, query):
        if part is None:
            return None
        wanted = [row for row in part if matches(row) and row.key not in passed_over]
        total += len(wanted)
        page = _page(best, [*page, *wanted])
    return page[query.offset :], total


async def _walk(calls: RedisCalls, query: TaskQuery) -> AsyncIterator[list[Candidate] | None]:
    """Slices of what a query may find, in order of time; None if one has no summary."""
    low, high = RANGES[query.schedule_state]
    command = "ZREVRANGEBYLEX" if query.descending else "ZRANGEBYLEX"
    while True:
        bounds = (high, low) if query.descending else (low, high)
        pairs = list(read_pairs(await calls("walk", command, *bounds, SLICE)))
        summaries = [decode_summary(data) for _, data in pairs]
        if None in summaries:
            yield None
            return
        if pairs:
            yield [
                Candidate(member, summary)
                for (member, _), summary in zip(pairs, summaries, strict=True)
                if summary is not None
            ]
        if len(pairs) < SLICE:
            return
        last = b"(" + pairs[-1][0]
        low, high = (low, last) if query.descending else (last, high)


async def _count(calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]) -> int:
    scheduled, paused = await calls("count")
    counted = {None: scheduled + paused, STATES[False]: scheduled, STATES[True]: paused}
    total: int = counted[query.schedule_state]
    if passed_over:
        times = await calls("places", *passed_over)
        states = [STATES[time == PAUSED] for time in times]
        total -= sum(query.schedule_state in (None, state) for state in states)
    return total


def _page(query: TaskQuery, rows: list[Candidate]) -> list[Candidate]:
    key = SORTERS[query.sort_by]
    if query.limit is None:
        return sorted(rows, key=key, reverse=query.descending)[query.offset :]
    best = nlargest if query.descending else nsmallest
    return best(query.offset + query.limit, rows, key=key)[query.offset :]


def _matcher(query: TaskQuery, alias: str) -> Callable[[Candidate], bool]:
    everywhere = query.needle in alias.lower()

    def matches(row: Candidate) -> bool:
        summary = row.summary
        return (
            (query.executor is None or summary.executor == query.executor)
            and (query.trigger is None or query.trigger in (summary.trigger, summary.trigger_name))
            and (everywhere or query.needle in summary.search or query.needle in row.state.value)
        )

    return matches
