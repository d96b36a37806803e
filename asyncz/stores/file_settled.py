"""Whether an occurrence was settled before, in any file of a file store's journal."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from asyncz.stores.file_journal import Journal
from asyncz.stores.file_ledger import Part, Row
from asyncz.stores.file_live import RunKey
from asyncz.stores.file_rows import rows_of

__all__ = ["SettledRuns"]


class SettledRuns:
    """Says of a run whether it was settled before, in any of the files.

    A run is settled after it was due. So only files that were written since are looked at, which
    is none but the last one, as a rule.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, array[int]] = {}

    def find(
        self, journal: Journal, parts: Sequence[Part], last: dict[RunKey, Row], key: RunKey
    ) -> Row | None:
        """Its row; None: it was not.

        Args:
            journal: Where to look.
            parts: The sealed files.
            last: What was settled in the last file.
            key: The run.
        """
        if row := last.get(key):
            return row
        for part in reversed(parts):
            if part.settled_until >= key[2] and self._may_have(journal, part, key):
                for row in reversed(self._ran(journal, part)):
                    if (row["task"], row["kind"], row["at"]) == key:
                        return row
        return None

    def forget(self, parts: Sequence[Part]) -> None:
        """Keep nothing in mind of other files than these."""
        for number in self._hashes.keys() - {part.number for part in parts}:
            del self._hashes[number]

    def _may_have(self, journal: Journal, part: Part, key: RunKey) -> bool:
        hashes = self._hashes.get(part.number)
        if hashes is None:
            keys = ((row["task"], row["kind"], row["at"]) for row in self._ran(journal, part))
            self._hashes[part.number] = hashes = array("q", sorted(map(hash, keys)))
        wanted = hash(key)
        place = bisect_left(hashes, wanted)
        return place < len(hashes) and hashes[place] == wanted

    def _ran(self, journal: Journal, part: Part) -> list[Row]:
        try:
            return [row for row in rows_of(journal.read_part(part.number)) if "ran" in row]
        except OSError:
            return []
