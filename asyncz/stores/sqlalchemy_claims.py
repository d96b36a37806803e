"""Steps whose outcome is known, even when the answer to their commit is lost."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncConnection

from asyncz.clock import Clock
from asyncz.serializers.json import to_microseconds
from asyncz.stores.records import Step
from asyncz.stores.sqlalchemy_database import Database
from asyncz.stores.sqlalchemy_rows import Rows

__all__ = ["Claims", "make_steps"]

T = TypeVar("T")

WEEK = 7 * 24 * 3600 * 1_000_000
"""Microseconds after which a store object that was not heard of is taken for killed."""
REMEMBERED = 8


@dataclass
class _Claim:
    """A batch of steps on its way.

    Args:
        id: What the node's row has as its last claim once the batch is in the database.
        made: The answer as soon as it is known; whether it holds is decided by the commit.
        committed: Whether it was committed; None: not known.
    """

    id: str
    made: list[bool] | None = None
    committed: bool | None = None


class Claims:
    """Makes batches of steps for one store object.

    Each is a claim with an id, written in the same transaction into the object's row among the
    nodes. When the answer to a commit is lost, and the same steps are asked for again, that row
    says whether they were made: so no run is lost, and none made twice.

    Args:
        database, rows: Where.
        clock: What says when a node was heard of.
    """

    def __init__(self, database: Database, rows: Rows, clock: Clock) -> None:
        self._database = database
        self._rows = rows
        self._clock = clock
        self._node = uuid4().hex
        self._turn = asyncio.Lock()
        self._unanswered: OrderedDict[tuple[Step, ...], _Claim] = OrderedDict()

    async def open(self) -> None:
        """Note down that this node is there, and forget those that were killed long ago."""
        now = self._now()

        async def work(connection: AsyncConnection, in_doubt: bool) -> None:
            await self._rows.forget_nodes(connection, now - WEEK)
            if in_doubt:
                await self._rows.close_node(connection, self._node)
            await self._rows.open_node(connection, self._node, now)

        await self._database.run(work, transaction=True)

    async def close(self) -> None:
        """This node is not there any more."""

        async def work(connection: AsyncConnection, _: bool) -> None:
            await self._rows.close_node(connection, self._node)

        await self._database.run(work)

    async def make(self, steps: Sequence[Step]) -> list[bool]:
        """Make the steps and say which were made; or say it again, if nobody heard the answer."""
        key = tuple(steps)
        async with self._turn:
            claim = self._unanswered.pop(key, None) or _Claim(uuid4().hex)

            async def work(connection: AsyncConnection, _: bool) -> list[bool]:
                return await self._make_once(connection, claim, key)

            try:
                return await self._database.run(work, transaction=True)
            except BaseException:
                if claim.made is not None:
                    self._unanswered[key] = claim
                    if len(self._unanswered) > REMEMBERED:
                        self._unanswered.popitem(last=False)
                raise

    async def _make_once(
        self, connection: AsyncConnection, claim: _Claim, steps: Sequence[Step]
    ) -> list[bool]:
        unknown = [other for other in self._unanswered.values() if other.committed is None]
        if unknown or claim.made is not None:
            last = await self._rows.last_claim(connection, self._node)
            for other in unknown:
                # Afterwards this could not be told any more.
                other.committed = other.id == last
            if claim.made is not None and (claim.committed or claim.id == last):
                return claim.made
        claim.made, claim.committed = None, None
        await self._rows.write_claim(connection, self._node, claim.id, self._now())
        claim.made = await make_steps(connection, self._rows, steps)
        return claim.made

    def _now(self) -> int:
        return to_microseconds(self._clock.now())


async def make_steps(connection: AsyncConnection, rows: Rows, steps: Sequence[Step]) -> list[bool]:
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
        won = await rows.advance(connection, [step for _, step in batch.values()])
        for key in won:
            made[batch[key][0]] = True
        left = later
    return made
