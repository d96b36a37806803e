"""What a store in a SQL database has at hand for nodes and runs while it is open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row

from asyncz.clock import Clock
from asyncz.stores.cluster import Fired
from asyncz.stores.sqlalchemy_attempts import AttemptRows
from asyncz.stores.sqlalchemy_batches import Batches
from asyncz.stores.sqlalchemy_claims import Claims
from asyncz.stores.sqlalchemy_database import OwnDatabase
from asyncz.stores.sqlalchemy_mysql import MySQLBatches
from asyncz.stores.sqlalchemy_nodes import NodeRows
from asyncz.stores.sqlalchemy_postgresql import PostgreSQLBatches
from asyncz.stores.sqlalchemy_runs import RunRows
from asyncz.stores.sqlalchemy_schema import Tables
from asyncz.stores.sqlalchemy_sqlite import SQLiteBatches
from asyncz.stores.sqlalchemy_time import StoreTime

__all__ = ["Sharing"]

BATCHES: dict[str, Callable[[Tables], Batches]] = {
    "postgresql": PostgreSQLBatches,
    "mysql": MySQLBatches,
    "sqlite": SQLiteBatches,
}
REMEMBERED = 8
"""Answers to claims that are kept, in case they are asked for again."""


class Sharing:
    """What a store that is open has for this.

    Args:
        database, tables: Where.
        clock: The scheduler's.
    """

    def __init__(self, database: OwnDatabase, tables: Tables, clock: Clock) -> None:
        self.database = database
        self.time = StoreTime(clock)
        self.nodes = NodeRows(tables, self.time)
        self.runs = RunRows(tables, self.time)
        self.batches = BATCHES[database.family](tables)
        self.attempts = AttemptRows(tables, self.time, self.runs, self.batches)
        self.attended_until: Row[Any] | None = None
        self.members: set[str] = set()
        self.answers: OrderedDict[tuple[str, str], list[Fired]] = OrderedDict()
        # For steps that are made without being a node.
        self.nobody = Claims(database, self.nodes, uuid4().hex, self.nodes.claim_as_nobody)
        self._claims: dict[str, Claims] = {}

    def claims_of(self, node_id: str) -> Claims:
        """What makes the claims of a node."""
        claims = self._claims.get(node_id)
        if claims is None:
            claims = Claims(self.database, self.nodes, node_id, self.nodes.claim)
            self._claims[node_id] = claims
        return claims

    def drop(self, node_id: str) -> None:
        """A node is not there any more."""
        self.members.discard(node_id)
        self._claims.pop(node_id, None)

    async def close(self) -> None:
        """Leave, for those that have not left."""

        def work(connection: Connection, _: bool) -> None:
            for node_id in sorted(self.members):
                self.nodes.leave(connection, node_id)
            self.nodes.remove(connection, self.nobody.node_id)

        await self.database.run(work, transaction=True)

    async def forget_nodes(self) -> None:
        """Forget nodes that are gone for long."""

        def work(connection: Connection, _: bool) -> None:
            self.nodes.forget(connection)

        await self.database.run(work)

    def remember(self, node_id: str, claim: str, answer: list[Fired]) -> None:
        """Keep an answer for a while, in case it is asked for again."""
        self.answers[node_id, claim] = answer
        if len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)
