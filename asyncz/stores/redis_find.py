"""Pages of a query on a Redis store: by summaries, so that only the page's records are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Set
from heapq import nlargest, nsmallest
from math import inf

from asyncz.enums import TaskScheduleState
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_rows import (
    PAUSED,
    PLACE_LENGTH,
    TIME_LENGTH,
    Fields,
    encode_key,
    is_marked,
    read_pairs,
    read_rows,
    read_summary,
)
from asyncz.stores.rows import StoredRow
from asyncz.tasks.query import TaskQuery

__all__ = ["fetch_expecting", "fetch_records", "find_rows"]

SLICE = 500
"""Summaries in one call: about a millisecond for the server."""
BYTES = 1024 * 1024
"""Of records in one answer, if there is more than one."""
STATES = {False: TaskScheduleState.SCHEDULED, True: TaskScheduleState.PAUSED}
RANGES: dict[TaskScheduleState | None, tuple[bytes, bytes]] = {
    None: (b"-", b"+"),
    STATES[False]: (b"-", b"(p"),
    STATES[True]: (b"[p", b"+"),
}


Pair = tuple[bytes, bytes]
"""A member of the sorted set of run times, and a summary."""
Ranked = tuple[tuple[bytes, ...], bytes]
"""What a query sorts by, and the member."""

SORTERS: dict[str, Callable[[bytes, Fields], tuple[bytes, ...]]] = {
    "id": lambda member, summary: (summary.id,),
    "name": lambda member, summary: (summary.name, summary.id),
    "next_run_time": lambda member, summary: (_time(member), summary.name, summary.id),
    "schedule_state": lambda member, summary: (_state(member), _time(member), summary.id),
    "executor": lambda member, summary: (summary.executor, summary.id),
    "store": lambda member, summary: (summary.id,),
    "trigger": lambda member, summary: (summary.trigger, summary.id),
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
    return await fetch_records(calls, [member[PLACE_LENGTH:] for _, member in page]), total


async def fetch_records(calls: RedisCalls, keys: list[bytes]) -> list[StoredRow]:
    """The rows of those keys, without those that are gone."""
    rows: list[StoredRow] = []
    position = 0
    while position < len(keys):
        used, packed = await calls("records", BYTES, *keys[position : position + SLICE])
        rows += read_rows(packed)
        position += used
    return rows


async def fetch_expecting(
    calls: RedisCalls, after: bytes | None
) -> tuple[list[StoredRow], bytes | None]:
    """The rows with a mark in the next slice of summaries, and where the one after it begins.

    Args:
        calls: To the server.
        after: Where this one begins; None: the first.
    """
    pairs = list(read_pairs(await calls("walk", "ZRANGEBYLEX", after or b"-", b"+", SLICE)))
    keys = [member[PLACE_LENGTH:] for member, summary in pairs if is_marked(summary)]
    rows = await fetch_records(calls, keys)
    return rows, b"(" + pairs[-1][0] if len(pairs) == SLICE else None


async def _first_in_time(
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]
) -> tuple[list[Ranked], int] | None:
    """In the order that the server keeps. Of those at one time all are looked at, for a name."""
    wanted = inf if query.limit is None else query.offset + query.limit
    found: list[Pair] = []
    async for part in _walk(calls, query):
        if part is None:
            return None
        found += [pair for pair in part if pair[0][PLACE_LENGTH:] not in passed_over]
        if len(found) >= wanted and (not wanted or _ends_after(found, int(wanted))):
            break
    page = _page(query, query.offset, map(_ranker(query), found))
    return page, await _count(calls, query, passed_over)


async def _first_of_all(
    calls: RedisCalls, query: TaskQuery, passed_over: Set[bytes]
) -> tuple[list[Ranked], int] | None:
    """By looking at all summaries; of those that match, only as many as needed are kept."""
    wanted = _filter(query, calls.alias)
    rank = _ranker(query)
    page: list[Ranked] = []
    total = 0
    async for part in _walk(calls, query):
        if part is None:
            return None
        found = [
            rank(pair)
            for pair in part
            if wanted(*pair) and pair[0][PLACE_LENGTH:] not in passed_over
        ]
        total += len(found)
        page = _page(query, 0, [*page, *found])
    return page[query.offset :], total


async def _walk(calls: RedisCalls, query: TaskQuery) -> AsyncIterator[list[Pair] | None]:
    """Slices of what a query may find, in order of time; None if one has no summary."""
    low, high = RANGES[query.schedule_state]
    command = "ZREVRANGEBYLEX" if query.descending else "ZRANGEBYLEX"
    while True:
        bounds = (high, low) if query.descending else (low, high)
        pairs = list(read_pairs(await calls("walk", command, *bounds, SLICE)))
        if not all(summary for _, summary in pairs):
            yield None
            return
        yield pairs
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


def _ends_after(found: list[Pair], count: int) -> bool:
    """Whether all that are due at the time of the last one wanted have been found."""
    return _time(found[-1][0]) != _time(found[count - 1][0])


def _ranker(query: TaskQuery) -> Callable[[Pair], Ranked]:
    key = SORTERS[query.sort_by]

    def rank(pair: Pair) -> Ranked:
        return key(pair[0], read_summary(pair[1])), pair[0]

    return rank


def _page(query: TaskQuery, offset: int, rows: Iterable[Ranked]) -> list[Ranked]:
    if query.limit is None:
        return sorted(rows, reverse=query.descending)[offset:]
    best = nlargest if query.descending else nsmallest
    return best(query.offset + query.limit, rows)[offset:]


def _filter(query: TaskQuery, alias: str) -> Callable[[bytes, bytes], bool]:
    needle = query.needle.encode("utf-8", "surrogateescape")
    is_everywhere = query.needle in alias.lower()
    executor, trigger = _bytes(query.executor), _bytes(query.trigger)

    def matches(member: bytes, data: bytes) -> bool:
        in_state = is_everywhere or needle in _state(member)
        if executor is trigger is None and not data.startswith(b"\n"):
            return in_state or needle in data  # without taking it apart
        summary = read_summary(data)
        return (
            (executor is None or summary.executor == executor)
            and (trigger is None or trigger in (summary.trigger, summary.trigger_name))
            and (in_state or needle in summary.search)
        )

    return matches


def _time(member: bytes) -> bytes:
    return member[:TIME_LENGTH]


def _state(member: bytes) -> bytes:
    return STATES[member.startswith(PAUSED)].value.encode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")
