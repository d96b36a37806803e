"""What is left to a store with a server: changes of rows, each an atomic one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence, Set

from asyncz.stores.rows import Place, Row, Step, StoredRow
from asyncz.stores.serializing import SerializingStore
from asyncz.tasks.query import TaskQuery

__all__ = ["RowStore"]


class RowStore(SerializingStore):
    """The operations that `RecordStore` is made of."""

    @abstractmethod
    async def _open(self) -> None:
        """Connect and make what is missing on the server; safe when many do so at once."""

    @abstractmethod
    async def _close(self) -> None:
        """Close what this store made; also after an `_open` that failed half-way."""

    @abstractmethod
    async def _insert(self, rows: Sequence[Row]) -> str | None:
        """Insert all, or none and return a key that is taken."""

    @abstractmethod
    async def _replace(self, row: Row, before: StoredRow | None = None) -> bool:
        """Put a row in the place of the one with its key, which keeps its order. False: none.

        Args:
            before: Only while the next run time is that of this row.
        """

    @abstractmethod
    async def _remove(self, keys: Sequence[str]) -> int:
        """Remove the rows of those keys. Returns how many there were."""

    @abstractmethod
    async def _set_aside(self, row: StoredRow) -> bool:
        """Move a row out of the way, to where it is kept. False: it is not what it was."""

    @abstractmethod
    async def _fetch(self, key: str) -> StoredRow | None:
        """The row of that key."""

    @abstractmethod
    async def _fetch_page(
        self, after: Place | None, limit: int, until: int | None = None
    ) -> list[StoredRow]:
        """Rows in the order of `Place`.

        Args:
            after: Only those behind this place.
            limit: At most so many.
            until: Only those with a next run time up to this one; None: all, paused ones too.
        """

    async def _find_place(self, number: int, until: int) -> Place | None:
        """The place of the row of this number, from 1; None: it is not due, or not known."""
        return None

    @abstractmethod
    async def _advance(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step whose row still has the expected next run time; say which were made."""

    @abstractmethod
    async def _count(self) -> tuple[int, int]:
        """How many rows are scheduled and how many are paused."""

    async def _find(
        self, query: TaskQuery, exclude: Set[str]
    ) -> tuple[list[StoredRow], int] | None:
        """The page of rows of a query and the number on all pages; None: this store cannot.

        Args:
            query: See `TaskSummary` for what its filters and orders go by. Its state is None,
                scheduled or paused.
            exclude: Keys to pass over.
        """
        return None
