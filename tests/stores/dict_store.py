"""A server store whose server is a dictionary: what all of them inherit, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncz.stores.records import Place, RecordStore, Row, Step, StoredRow

FAR = float("inf")


class DictStore(RecordStore):
    """Keeps its rows in `server`, which outlives it."""

    def __init__(self, server: dict[str, Row] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._server: dict[str, Row] = {} if server is None else server
        self._aside: list[StoredRow] = []

    @property
    def server(self) -> dict[str, Row]:
        """What another store object has to be given to have the same tasks."""
        return self._server

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    async def _insert(self, rows: Sequence[Row]) -> str | None:
        for row in rows:
            if row.key in self.server:
                return row.key
        self.server.update((row.key, row) for row in rows)
        return None

    async def _replace(self, row: Row, before: StoredRow | None = None) -> bool:
        known = self.server.get(row.key)
        if known is None or (before is not None and known.next_run != before.next_run):
            return False
        self.server[row.key] = row._replace(order=self.server[row.key].order)
        return True

    async def _remove(self, keys: Sequence[str]) -> int:
        return sum(self.server.pop(key, None) is not None for key in keys)

    async def _set_aside(self, row: StoredRow) -> bool:
        if self.server[row.key].data != row.data:
            return False
        del self.server[row.key]
        self._aside.append(row)
        return True

    async def _fetch(self, key: str) -> StoredRow | None:
        return _stored(self.server[key]) if key in self.server else None

    async def _fetch_page(
        self, after: Place | None, limit: int, until: int | None = None
    ) -> list[StoredRow]:
        rows = sorted(map(_stored, self.server.values()), key=lambda row: _sort_key(row.place))
        if after is not None:
            rows = [row for row in rows if _sort_key(row.place) > _sort_key(after)]
        if until is not None:
            rows = [row for row in rows if row.next_run is not None and row.next_run <= until]
        return rows[:limit]

    async def _advance(self, steps: Sequence[Step]) -> list[bool]:
        return [self._step(step) for step in steps]

    def _step(self, step: Step) -> bool:
        row = self.server.get(step.key)
        if row is None or row.next_run != step.expected:
            return False
        if step.next_run is None:
            del self.server[step.key]
        else:
            self.server[step.key] = row._replace(next_run=step.next_run)
        return True

    async def _count(self) -> tuple[int, int]:
        paused = sum(row.next_run is None for row in self.server.values())
        return len(self.server) - paused, paused


def _stored(row: Row) -> StoredRow:
    return StoredRow(row.key, row.next_run, row.order, row.data)


def _sort_key(place: Place) -> tuple[float, int, str]:
    moment = FAR if place.next_run is None else place.next_run
    return moment, place.order, place.key
