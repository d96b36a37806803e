"""Pages of a query on a Redis store: by summaries, so that only the page's records are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from heapq import nlargest, nsmallest
from math import inf
from typing import Any, NamedTuple

from asyncz.enums import TaskScheduleState
from asyncz.stores.records import StoredRow
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_rows import (
    PAUSED,
    PLACE_LENGTH,
    TIME_LENGTH,
    decode_summary,
    encode_key,
    encode_place,
    read_pairs,
    read_rows,
)
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
NOTHING = TaskSummary("", "", "", "", "", "")

Describe = Callable[[StoredRow], TaskSummary | None]


class Candidate(NamedTuple):
    """A row, as far as a query goes by it."""

    member: bytes
    summary: TaskSummary | None

    @property
    def key(self) -> bytes:
        return self.member[PLACE_LENGTH:]

    @property
    def time(self) -> bytes:
        return self.member[:TIME_LENGTH]

    @property
    def state(self) -> TaskScheduleState:
        return STATES[self.member.startswith(PAUSED)]

    @property
    def text(self) -> TaskSummary:
        return self.summary or NOTHING


SORTERS: dict[str, Callable[[Candidate], tuple[Any, ...]]] = {
    "id": lambda row: (row.text.id,),
    "name": lambda row: (row.text.name, row.text.id),
    "next_run_time": lambda row: (row.time, row.text.name, row.text.id),
    "schedule_state": lambda row: (row.state.value, row.time, row.text.id),
    "executor": lambda row: (row.text.executor, row.text.id),
    "store": lambda row: (row.text.id,),
    "trigger": lambda row: (row.text.trigger, row.text.id),
}
"""As in `asyncz.tasks.query`."""


async def find_rows(
    calls: RedisCalls, query: TaskQuery, exclude: Set[str], describe: Describe
) -> tuple[list[StoredRow], int] | None:
    """The page of a query and the number of rows on all pages; None: summaries cannot tell.

    Args:
        calls: To the server.
        query: Of scheduled or paused rows, or both.
        exclude: Keys to pass over.
        describe: Makes the summary of a row that is stored without one.
    """
    if "\n" in query.needle:
        return None  # a summary is lines; what spans two of them is not in one text
    passed_over = {encode_key(key) for key in exclude}
    is_narrowed = query.executor or query.trigger or query.needle
    page: list[Candidate] | None
    if query.sort_by == "next_run_time" and not is_narrowed:
        page, total = await _first_in_time(calls, query, passed_over, describe)
    else:
        page, total = await _first_of_all(calls, query, passed_over)
    if page is None:
        return None
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
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes], describe: Describe
) -> tuple[list[Candidate], int]:
    """In the order that the server keeps. Of those at one time all are looked at, for a name."""
    wanted = inf if query.limit is None else query.offset + query.limit
    found: list[Candidate] = []
    async for part in _walk(calls, query):
        found += [row for row in part if row.key not in passed_over]
        if len(found) >= wanted and (not wanted or found[-1].time != found[int(wanted) - 1].time):
            break
    page = _page(query, await _described(calls, found, describe))
    return page, await _count(calls, query, passed_over)


async def _first_of_all(
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]
) -> tuple[list[Candidate] | None, int]:
    """By looking at all summaries; of those that match, only as many as needed are kept."""
    best = query.up_to_page()
    matches = _matcher(query, calls.alias)
    page: list[Candidate] = []
    total = 0
    async for part in _walk(calls, query):
        if any(row.summary is None for row in part):
            return None, 0
        wanted = [row for row in part if matches(row) and row.key not in passed_over]
        total += len(wanted)
        page = _page(best, [*page, *wanted])
    return page[query.offset :], total


async def _walk(calls: RedisCalls, query: TaskQuery) -> AsyncIterator[list[Candidate]]:
    low, high = RANGES[query.schedule_state]
    command = "ZREVRANGEBYLEX" if query.descending else "ZRANGEBYLEX"
    while True:
        bounds = (high, low) if query.descending else (low, high)
        packed = await calls("walk", command, *bounds, SLICE)
        part = [Candidate(member, decode_summary(data)) for member, data in read_pairs(packed)]
        if part:
            yield part
        if len(part) < SLICE:
            return
        last = b"(" + part[-1].member
        low, high = (low, last) if query.descending else (last, high)


async def _described(
    calls: RedisCalls, found: list[Candidate], describe: Describe
) -> list[Candidate]:
    if all(row.summary is not None for row in found):
        return found
    known = {row.key: row for row in found if row.summary is not None}
    keys = [row.key for row in found if row.key not in known]
    for first in range(0, len(keys), SLICE):
        for row in await fetch_records(calls, keys[first : first + SLICE]):
            await asyncio.sleep(0)  # reading an encrypted record takes its time
            key = encode_key(row.key)
            known[key] = Candidate(encode_place(row.next_run, row.order) + key, describe(row))
    return list(known.values())


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
        summary = row.text
        return (
            (query.executor is None or summary.executor == query.executor)
            and (query.trigger is None or query.trigger in (summary.trigger, summary.trigger_name))
            and (everywhere or query.needle in summary.search or query.needle in row.state.value)
        )

    return matches
