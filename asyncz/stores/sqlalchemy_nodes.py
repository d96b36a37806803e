"""The rows of nodes: who is there, until when its lease lasts, and what it has claimed last."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, or_, select, update

from asyncz.enums import NodeState
from asyncz.stores.cluster import Node
from asyncz.stores.sqlalchemy_dialects import can_skip_locked
from asyncz.stores.sqlalchemy_schema import Tables, family_of
from asyncz.stores.sqlalchemy_time import StoreTime

__all__ = ["WEEK", "NodeRows"]

WEEK = 7 * 24 * 3600 * 1_000_000
"""Microseconds after which a node that is not alive is forgotten."""

ALIVE, DEAD, LEFT = NodeState.ALIVE.value, NodeState.DEAD.value, NodeState.LEFT.value
GONE = (DEAD, LEFT)


class NodeRows:
    """The nodes of one store.

    Args:
        tables: The store's.
        time: What says what time it is.
    """

    def __init__(self, tables: Tables, time: StoreTime) -> None:
        self._nodes = tables.nodes
        self._runs = tables.runs
        self._time = time

    # Leases.

    def join(self, connection: Connection, node: Node, lease: float) -> None:
        """Enter a node, or enter it again."""
        nodes = self._nodes
        now = self._time.read(connection)
        values = {
            "state": ALIVE,
            "identity": node.identity,
            "host": node.host,
            "pid": node.process_id,
            "joined_us": now,
            "seen_us": now,
            "lease_until_us": now + _microseconds(lease),
            "running": 0,
        }
        if not self._change(connection, node.id, values):
            last = connection.execute(select(func.max(nodes.c.number))).scalar()
            values |= {"id": node.id, "claim": "", "number": (last or 0) + 1}
            connection.execute(insert(nodes), values)

    def renew(self, connection: Connection, node_id: str, lease: float, running: int) -> bool:
        """Renew a lease; False: the node is not alive."""
        nodes, now = self._nodes, self._time.expression(connection)
        renewed = (
            update(nodes)
            .where(nodes.c.id == node_id, nodes.c.state == ALIVE)
            .values(lease_until_us=now + _microseconds(lease), seen_us=now, running=running)
        )
        return bool(connection.execute(renewed).rowcount)

    def leave(self, connection: Connection, node_id: str) -> None:
        """Note down that a node was shut down; one that was buried stays so."""
        nodes, now = self._nodes, self._time.expression(connection)
        left = update(nodes).where(nodes.c.id == node_id, nodes.c.state == ALIVE)
        connection.execute(left.values(state=LEFT, seen_us=now, running=0))

    def all(self, connection: Connection) -> tuple[int, list[Row[Any]]]:
        """The time, and all nodes in the order in which they joined."""
        columns = self._nodes.c
        wanted = select(
            columns.id, columns.identity, columns.host, columns.pid, columns.state,
            columns.joined_us, columns.seen_us, columns.lease_until_us, columns.running,
        ).where(columns.state.is_not(None))  # fmt: skip
        rows: list[Any] = [*connection.execute(wanted.order_by(columns.number, columns.id))]
        return self._time.read(connection), rows

    def is_alive(self, connection: Connection, node_id: str) -> bool:
        """Whether nobody has buried a node, and it has not left."""
        nodes = self._nodes
        found = select(nodes.c.id).where(nodes.c.id == node_id, nodes.c.state == ALIVE)
        return connection.execute(found).scalar() is not None

    def hold_alive(self, connection: Connection, node_id: str) -> int | None:
        """Keep a node from being buried until the transaction ends. The time; None: it was."""
        nodes = self._nodes
        wanted = select(self._time.expression(connection)).where(
            nodes.c.id == node_id, nodes.c.state == ALIVE
        )
        if family_of(connection.dialect) != "sqlite":
            wanted = wanted.with_for_update(read=True)
        return connection.execute(wanted).scalar()

    def bury(self, connection: Connection, moment: int, but: str) -> list[str]:
        """Note down which nodes are dead: alive until now, but their lease had run out.

        Args:
            moment: By then.
            but: Not this one, which is there to ask.
        """
        nodes = self._nodes
        overdue = and_(nodes.c.state == ALIVE, nodes.c.lease_until_us < moment, nodes.c.id != but)
        # One by one: a search that locks would also wait for those that it does not want.
        found = connection.execute(select(nodes.c.id).where(overdue).order_by(nodes.c.id))
        buried = []
        for node_id in found.scalars().all():
            if not self._is_free(connection, node_id):
                continue  # a claim of its hangs; its server ends that soon
            dead = update(nodes).where(nodes.c.id == node_id, overdue).values(state=DEAD)
            if connection.execute(dead).rowcount:
                buried.append(node_id)
        return buried

    def _is_free(self, connection: Connection, node_id: str) -> bool:
        """Lock the row of a node, unless somebody else has."""
        if not can_skip_locked(connection.dialect):
            return True
        nodes = self._nodes
        row = select(nodes.c.id).where(nodes.c.id == node_id).with_for_update(skip_locked=True)
        return connection.execute(row).scalar() is not None

    def forget(self, connection: Connection) -> None:
        """Forget those that are gone for a week and have no open runs."""
        nodes, runs = self._nodes, self._runs
        before = self._time.read(connection) - WEEK
        has_runs = exists().where(runs.c.active.is_not(None), runs.c.owner == nodes.c.id)
        is_gone = or_(nodes.c.state.is_(None), nodes.c.state.in_(GONE))
        connection.execute(delete(nodes).where(nodes.c.seen_us < before, is_gone, ~has_runs))

    # Claims.

    def last_claim(self, connection: Connection, node_id: str) -> str | None:
        """The last claim that a node made; waits for one that is being made."""
        nodes = self._nodes
        claim = select(nodes.c.claim).where(nodes.c.id == node_id)
        if family_of(connection.dialect) != "sqlite":
            claim = claim.with_for_update()
        return connection.execute(claim).scalar()

    def claim(self, connection: Connection, node_id: str, claim: str) -> int | None:
        """A node that is alive makes a claim, if the transaction ends well.

        Returns:
            The time; None: it is not alive.
        """
        nodes, now = self._nodes, self._time.expression(connection)
        claimed = update(nodes).where(nodes.c.id == node_id, nodes.c.state == ALIVE)
        claimed = claimed.values(claim=claim)
        if family_of(connection.dialect) == "mysql":
            if not connection.execute(claimed).rowcount:
                return None
            return self._time.read(connection)
        return connection.execute(claimed.returning(now)).scalar()

    def claim_as_nobody(self, connection: Connection, node_id: str, claim: str) -> int:
        """A store object makes a claim that has not joined."""
        now = self._time.read(connection)
        if not self._change(connection, node_id, {"claim": claim, "seen_us": now}):
            values = {"id": node_id, "claim": claim, "seen_us": now}
            connection.execute(insert(self._nodes), values)
        return now

    def remove(self, connection: Connection, node_id: str) -> None:
        """Such a store object is closed."""
        nodes = self._nodes
        connection.execute(delete(nodes).where(nodes.c.id == node_id, nodes.c.state.is_(None)))

    def _change(self, connection: Connection, node_id: str, values: dict[str, Any]) -> bool:
        nodes = self._nodes
        changed = update(nodes).where(nodes.c.id == node_id).values(**values)
        return bool(connection.execute(changed).rowcount)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
