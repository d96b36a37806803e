"""The nodes of a file store."""

from __future__ import annotations

from time import sleep

from asyncz.clock import SystemClock
from asyncz.enums import NodeState
from asyncz.serializers.json import from_microseconds
from asyncz.stores.cluster import Node, NodeRecord, Pulse
from asyncz.stores.file_held import RunsUnderLock
from asyncz.stores.file_ledger import LedgerNode
from asyncz.stores.file_nodes import (
    PAUSE,
    FilePulse,
    Lease,
    LeaseInUseError,
    bury,
    read_lease,
    renew,
    write_lease,
)

__all__ = ["FileMembers"]

RENEWING = 1.0
"""Seconds for which `renew_node` tries again while somebody else looks at the lease."""


class FileMembers(RunsUnderLock):
    """Who has joined, and is alive."""

    def join(self, node: Node, lease: float) -> None:
        given = Lease.starting(self._clock, lease)
        with self._held(make=True) as ledger:
            self._holds.take(self._book.files, node.id)
            write_lease(self._book.files, node.id, given)
            self._book.commit(
                {"op": "join", "node": list(node), "at": given.seen, "lease": list(given)}
            )
            if ledger.moves:
                self._make_moves()
        self._records.is_joined = True

    def renew(self, node_id: str, lease: float, running: int) -> bool:
        with self._held() as ledger:
            if not ledger.is_alive(node_id):
                return False
            for _ in range(int(RENEWING / PAUSE)):
                try:
                    given = Lease.starting(self._clock, lease, running)
                    return renew(self._book.files, node_id, given)
                except LeaseInUseError:
                    sleep(PAUSE)
            raise LeaseInUseError(f"the lease of {node_id!r} is in use")

    def leave(self, node_id: str) -> None:
        with self._held() as ledger:
            if ledger.is_alive(node_id):
                lease = bury(self._book.files, node_id, None)
                leases = {} if lease is None else {node_id: list(lease)}
                self._book.commit(
                    {"op": "leave", "node": node_id, "at": self._now(), "leases": leases}
                )
                self._holds.release(self._book.files, node_id)

    def nodes(self) -> list[NodeRecord]:
        with self._held() as ledger:
            now = self._now()
            return [self._node_record(node, now) for node in ledger.nodes.values()]

    def _node_record(self, node: LedgerNode, now: int) -> NodeRecord:
        lease, state = Lease(*node.lease), NodeState(node.state)
        if state is NodeState.ALIVE:
            lease = read_lease(self._book.files, node.about[0]) or lease
            if lease.until < now or self._holds.is_gone(self._book.files, node.about[0]):
                state = NodeState.STALE
        return NodeRecord(
            Node(*node.about),
            state,
            from_microseconds(node.joined),
            from_microseconds(lease.seen),
            from_microseconds(lease.until),
            lease.running,
        )

    def pulse(self, node_id: str) -> Pulse | None:
        """The heartbeat of a node; None if the time is not the machine's."""
        if not isinstance(self._clock, SystemClock):
            return None
        return FilePulse((self._records.files.path, self._book.path), node_id, self._clock)
