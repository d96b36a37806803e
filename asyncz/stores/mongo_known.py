"""What a process knows of its store without asking: that saves it two round trips a page.

Nothing in it is relied on: what is done with it is conditional on the server.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import RunRef
from asyncz.stores.mongo_runs import Held

__all__ = ["Known"]

KEPT = 20_000
"""Of each kind; the oldest go."""


class Known:
    """The orders of tasks that were read, and the open runs that were claimed."""

    def __init__(self) -> None:
        self.orders: dict[str, int] = {}
        self._held: dict[tuple[str, str, int], Held] = {}

    def saw(self, orders: Iterable[tuple[str, int]]) -> None:
        """Tasks were read, with these orders of insertion."""
        self.orders.update(orders)
        _shorten(self.orders)

    def hold(self, runs: Iterable[Held]) -> None:
        """Runs were claimed, or looked up."""
        for held in runs:
            self._held[held.key, held.kind, held.at] = held
        _shorten(self._held)

    def find(self, node_id: str, ref: RunRef) -> Held | None:
        """The run of a reference, if it is known with that owner and token."""
        held = self._held.get((ref.task_id, ref.kind.value, to_microseconds(ref.scheduled_time)))
        if held is None or (held.owner, held.token) != (node_id, ref.token):
            return None
        return held

    def drop(self, runs: Iterable[Held]) -> None:
        """Runs have ended, or are somebody else's."""
        for held in runs:
            self._held.pop((held.key, held.kind, held.at), None)


def _shorten(
    known: dict[object, object] | dict[str, int] | dict[tuple[str, str, int], Held],
) -> None:
    if len(known) > KEPT:
        for key in list(islice(known, len(known) - KEPT // 2)):
            del known[key]  # type: ignore[arg-type]
