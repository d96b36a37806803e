"""Where in a sealed file of a file store's journal the occurrences of a task are, or of a time.

The index of a file is made by who looks through it first, and kept beside it: a file that is sealed
does not change. It is no more than a help: without it, the file is read.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

from asyncz.enums import RunState
from asyncz.stores.file_journal import Change, Journal
from asyncz.stores.file_ledger import Row

__all__ = ["Block", "PartIndex", "PartIndexes", "hash_of", "mask_of"]

BLOCK_BYTES = 32 * 1024
"""A block ends with the line that makes it as long as that."""
FORMAT = f"asyncz-index 1 {sys.byteorder}"
STATES = {
    state: 1 << place
    for place, state in enumerate(
        (
            RunState.SUCCEEDED, RunState.FAILED, RunState.LOST, RunState.ABANDONED, RunState.MISSED,
            RunState.COALESCED, RunState.SKIPPED, RunState.CANCELLED,
        )
    )
}  # fmt: skip
"""A bit for each; their places stand in the files."""
ANY_STATE = 0x7FFF


def hash_of(task_id: str) -> int:
    """By what a task's occurrences are found; others may have the same."""
    return crc32(task_id.encode(errors="surrogatepass"))


def mask_of(states: Sequence[RunState] | frozenset[RunState]) -> int:
    """The bits of states."""
    return sum(STATES.get(state, 0) for state in states) if states else ANY_STATE


class Block(NamedTuple):
    """Some lines of a file.

    Args:
        start: Where they begin.
        first: The number, in the file, of the first occurrence in them.
        low, high: The first and the last instant that any of them was due.
        states: The bits of theirs; all, if there are some that take the place of others.
        due_until: The last instant that any of them was due, or of those before them.
    """

    start: int
    first: int
    low: int
    high: int
    states: int
    due_until: int


class PartIndex:
    """The index of one file.

    Args:
        size: Of the file.
        blocks: Of it.
        hashes, rows: Of each occurrence that of its task, in order, and its number.
    """

    def __init__(
        self, size: int, blocks: list[Block], hashes: array[int], rows: array[int]
    ) -> None:
        self.size = size
        self.blocks = blocks
        self._hashes = hashes
        self._rows = rows

    @classmethod
    def of(cls, size: int, lines: Iterator[tuple[int, Change]]) -> PartIndex:
        """That of a file with these lines."""
        blocks: list[Block] = []
        keys: list[int] = []
        rows: list[Row] = []
        begun = 0
        for start, change in lines:
            if rows and start - begun >= BLOCK_BYTES:
                blocks.append(_block(begun, len(keys) - len(rows), rows, blocks[-1:]))
                rows = []
            if settled := change.get("rows"):
                begun = begun if rows else start
                rows += settled
                keys += (
                    hash_of(row["task"]) << 32 | number
                    for number, row in enumerate(settled, len(keys))
                )
        if rows:
            blocks.append(_block(begun, len(keys) - len(rows), rows, blocks[-1:]))
        keys.sort()
        hashes = array("I", (key >> 32 for key in keys))
        return cls(size, blocks, hashes, array("I", (key & 0xFFFFFFFF for key in keys)))

    def rows_of(self, wanted: int) -> Sequence[int]:
        """The numbers of the occurrences of the tasks with that hash, in order."""
        first = bisect_left(self._hashes, wanted)
        if first == len(self._hashes) or self._hashes[first] != wanted:
            return ()
        return self._rows[first : bisect_right(self._hashes, wanted, first)]

    def until(self, place: int) -> int:
        """Where that block ends."""
        return self.blocks[place + 1].start if place + 1 < len(self.blocks) else self.size

    def to_bytes(self) -> bytes:
        """As it is kept."""
        columns = [array("q", column) for column in zip(*self.blocks, strict=True)]
        data = b"".join(each.tobytes() for each in (*columns, self._hashes, self._rows))
        counts = f"{self.size} {len(self.blocks)} {len(self._rows)}"
        return f"{FORMAT} {counts} {crc32(data):08x}\n".encode() + data

    @classmethod
    def from_bytes(cls, kept: bytes, size: int) -> PartIndex | None:
        """The reverse; None if it is not as it was written, or of a file of another size."""
        head, _, data = kept.partition(b"\n")
        words = head.decode("ascii", "replace").rsplit(" ", 4)
        try:
            is_right = words[0] == FORMAT and (int(words[1]), int(words[4], 16)) == (
                size, crc32(data),
            )  # fmt: skip
            blocks, rows = int(words[2]), int(words[3])
        except (ValueError, IndexError):
            return None
        if not is_right or len(data) != 8 * len(Block._fields) * blocks + 8 * rows:
            return None
        numbers, hashes, places = array("q"), array("I"), array("I")
        middle = 8 * len(Block._fields) * blocks
        numbers.frombytes(data[:middle])
        hashes.frombytes(data[middle : middle + 4 * rows])
        places.frombytes(data[middle + 4 * rows :])
        columns = (numbers[place : place + blocks] for place in range(0, len(numbers), blocks or 1))
        return cls(size, [Block(*each) for each in zip(*columns, strict=True)], hashes, places)


def _block(start: int, first: int, rows: Sequence[Row], before: Sequence[Block]) -> Block:
    moments = [row["at"] for row in rows]
    states = 0
    for row in rows:
        # Whoever looks for what it takes the place of has to see it.
        states |= ANY_STATE if "again" in row else STATES.get(row["state"], 0)
    low, high = min(moments), max(moments)
    until = max([high, *(block.due_until for block in before)])
    return Block(start, first, low, high, states, until)


class PartIndexes:
    """The indexes of the files, as far as they have been asked for."""

    def __init__(self) -> None:
        self._indexes: dict[int, PartIndex] = {}

    def of(self, journal: Journal, number: int) -> PartIndex:
        """That of a sealed file. OSError if the file is gone."""
        index = self._indexes.get(number)
        if index is None:
            size = journal.size_of(number)
            kept = journal.read_beside(number)
            index = None if kept is None else PartIndex.from_bytes(kept, size)
            if index is None:
                index = PartIndex.of(size, journal.read_span(number, 0))
                with suppress(OSError):
                    journal.put_beside(number, index.to_bytes())
            self._indexes[number] = index
        return index

    def forget(self, numbers: Set[int]) -> None:
        """Keep nothing in mind of other files than these."""
        for number in self._indexes.keys() - numbers:
            del self._indexes[number]
