"""Changes whose outcome is known, even when the answer to their commit is lost."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import uuid4

from sqlalchemy import Connection

from asyncz.stores.records import Step
from asyncz.stores.sqlalchemy_database import Database
from asyncz.stores.sqlalchemy_nodes import NodeRows
from asyncz.stores.sqlalchemy_rows import Rows

__all__ = ["Claims", "make_steps"]

A = TypeVar("A")

Enter = Callable[[Connection, str, str], int | None]
"""`NodeRows.claim` or `NodeRows.claim_as_nobody`."""
REMEMBERED = 8


@dataclass
class _Claim(Generic[A]):
    """A change on its way.

    Args:
        id: What the node's row has as its last claim once the change is in the database.
        answer: It, as soon as it is known; whether it holds is decided by the commit.
        committed: Whether it was committed; None: not known.
    """

    id: str
    answer: A | None = None
    committed: bool | None = None


class Claims:
    """Makes changes for one node, one after the other.

    Each is a claim with an id, written in the same transaction into the node's row. When the
    answer to a commit is lost, and the same change is asked for again, that row says whether it
    was made: so no run is lost, and none made twice.

    Args:
        database, nodes: Where.
        node_id: The node's.
        enter: Writes a claim into its row.
    """

    def __init__(self, database: Database, nodes: NodeRows, node_id: str, enter: Enter) -> None:
        self._database = database
        self._nodes = nodes
        self._enter = enter
        self._turn = asyncio.Lock()
        self._unanswered: OrderedDict[Hashable, _Claim[Any]] = OrderedDict()
        self.node_id = node_id

    async def make(self, key: Hashable, work: Callable[[Connection, int | None], A]) -> A:
        """Make a change and return what it returns; or say it again, if nobody heard it.

        Args:
            key: The same when the same change is asked for again.
            work: Makes it, at a time of the store's; None: the node may not make any.
        """
        async with self._turn:
            claim: _Claim[A]
            claim = self._unanswered.pop(key) if key in self._unanswered else _Claim(uuid4().hex)

            def once(connection: Connection, _: bool) -> A:
                return self._make_once(connection, claim, work)

            try:
                return await self._database.run(once, transaction=True)
            except BaseException:
                if claim.answer is not None:
                    self._unanswered[key] = claim
                    if len(self._unanswered) > REMEMBERED:
                        self._unanswered.popitem(last=False)
                raise

    def _make_once(
        self, connection: Connection, claim: _Claim[A], work: Callable[[Connection, int | None], A]
    ) -> A:
        unknown = [other for other in self._unanswered.values() if other.committed is None]
        if unknown or claim.answer is not None:
            last = self._nodes.last_claim(connection, self.node_id)
            for other in unknown:
                # Afterwards this could not be told any more.
                other.committed = other.id == last
            if claim.answer is not None and (claim.committed or claim.id == last):
                return claim.answer
        claim.answer, claim.committed = None, None
        now = self._enter(connection, self.node_id, claim.id)
        claim.answer = work(connection, now)
        return claim.answer


def make_steps(connection: Connection, rows: Rows, steps: Sequence[Step]) -> list[bool]:
    """Make steps and say which were made. Of two on one row, the second sees the first."""
    made = [False] * len(steps)
    left = list(enumerate(steps))
    while left:
        batch: dict[str, tuple[int, Step]] = {}
        later = []
        for number, step in left:
            if step.key in batch:
                later.append((number, step))
            else:
                batch[step.key] = (number, step)
        won = rows.advance(connection, [step for _, step in batch.values()])
        for key in won:
            made[batch[key][0]] = True
        left = later
    return made
