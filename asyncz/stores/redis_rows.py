"""How rows look on a Redis server: places that order as bytes, summaries, packed lists of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from asyncz.stores.rows import Place, Row, Step, StoredRow
from asyncz.tasks.query import TaskSummary

__all__ = [
    "PAUSED",
    "PLACE_LENGTH",
    "TIME_LENGTH",
    "Fields",
    "encode_key",
    "encode_place",
    "encode_summary",
    "encode_time",
    "first_behind",
    "is_marked",
    "pack_row",
    "pack_step",
    "read_pairs",
    "read_row",
    "read_rows",
    "read_summary",
]

TIME_LENGTH = 19
PLACE_LENGTH = TIME_LENGTH + 20
PAUSED = b"paused".ljust(TIME_LENGTH, b"-")
"""In the place of a time. It comes behind all times, which begin with a digit or a minus."""
BEFORE_EPOCH = 10**18
NEVER = b" " * TIME_LENGTH
LINES = 8
"""Of the `search` of a summary, unless a text in it has a line break of its own."""


class Fields(NamedTuple):
    """A `TaskSummary` in UTF-8, whose bytes order as the texts do."""

    id: bytes
    name: bytes
    executor: bytes
    trigger: bytes
    trigger_name: bytes
    search: bytes


_LENGTHS = Struct("<III")
_PAIR = Struct("<II")
_LENGTH = Struct("<I")


def encode_key(key: str) -> bytes:
    """The bytes of a row's key. What somebody else put there need not be UTF-8."""
    return key.encode("utf-8", "surrogateescape")


def encode_time(microseconds: int | None) -> bytes:
    """A time as bytes of one length, whose order is that of the times; exact, unlike a double."""
    if microseconds is None:
        return PAUSED
    if microseconds >= 0:
        return b"%019d" % microseconds
    return b"-%018d" % (microseconds + BEFORE_EPOCH)


def decode_time(field: bytes) -> int | None:
    """The reverse of `encode_time`."""
    if field == PAUSED:
        return None
    if field.startswith(b"-"):
        return int(field[1:]) - BEFORE_EPOCH
    return int(field)


def encode_place(next_run: int | None, order: int) -> bytes:
    """What stands before the key in the sorted set of run times."""
    return b"%b:%018d:" % (encode_time(next_run), order)


def first_behind(place: Place | None) -> bytes:
    """The lower bound of a range by bytes: what comes behind a place; None: everything."""
    if place is None:
        return b"-"
    if place.order < 0:
        return b"[" + encode_time(place.next_run)
    return b"(" + encode_place(place.next_run, place.order) + encode_key(place.key)


def pack_row(row: Row) -> bytes:
    """A row for the scripts: three lengths, then key, place with summary, record."""
    key = encode_key(row.key)
    place = encode_place(row.next_run, row.order) + encode_summary(row.summary)
    return b"".join((_LENGTHS.pack(len(key), len(place), len(row.data)), key, place, row.data))


def pack_step(step: Step) -> bytes:
    """A step for the scripts: the length of the key, the key, both times."""
    key = encode_key(step.key)
    following = NEVER if step.next_run is None else encode_time(step.next_run)
    return b"".join((_LENGTH.pack(len(key)), key, encode_time(step.expected), following))


def read_pairs(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What a script answered: members of the sorted set, each with something."""
    position, end = 0, len(packed)
    lengths = _PAIR.unpack_from
    while position < end:
        first, second = lengths(packed, position)
        middle = position + 8 + first
        yield packed[position + 8 : middle], packed[middle : middle + second]
        position = middle + second


def read_row(member: bytes, data: bytes) -> StoredRow:
    """The row of a member of the sorted set and a record."""
    return StoredRow(
        member[PLACE_LENGTH:].decode("utf-8", "surrogateescape"),
        decode_time(member[:TIME_LENGTH]),
        int(member[TIME_LENGTH + 1 : PLACE_LENGTH - 1]),
        data,
    )


def read_rows(packed: bytes) -> list[StoredRow]:
    """The rows that a script answered."""
    return [read_row(member, data) for member, data in read_pairs(packed)]


def encode_summary(summary: TaskSummary | None) -> bytes:
    """A summary as bytes; none are none.

    Mostly all of it is in the lines of its `search`; for the rest there is JSON, behind which a
    line break says that the task has `expect_every`.
    """
    if summary is None:
        return b""
    texts = summary.texts
    fields = Fields(*(text.encode("utf-8", "surrogateescape") for text in texts))
    if summary.expects:
        return b"\n" + json.dumps(texts).encode() + b"\n"
    if fields.search.count(b"\n") == LINES - 1 and _of_lines(fields.search) == fields:
        return fields.search
    return b"\n" + json.dumps(texts).encode()


def is_marked(data: bytes) -> bool:
    """Whether an encoded summary is that of a task that has `expect_every`."""
    return data.startswith(b"\n") and data.endswith(b"\n")


def read_summary(data: bytes) -> Fields:
    """The fields of an encoded summary."""
    if data.startswith(b"\n"):
        return Fields(*(text.encode("utf-8", "surrogateescape") for text in json.loads(data)))
    return _of_lines(data)


def _of_lines(search: bytes) -> Fields:
    task_id, name, _, _, alias, trigger_name, _, executor = search.split(b"\n")
    return Fields(task_id, name, executor, alias or trigger_name, trigger_name, search)
