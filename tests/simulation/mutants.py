"""The protocol with one of its guards taken out. Each of these must be found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from asyncz.schedulers.caretaker import Caretaker
from asyncz.schedulers.heartbeat import Heartbeat
from asyncz.schedulers.membership import Membership
from tests.simulation.server import Row, Server

__all__ = ["MUTANTS"]


def _yes(*args: Any, **options: Any) -> bool:
    return True


async def _nothing(*args: Any) -> None: ...


def _without_compare() -> AbstractContextManager[Any]:
    """A task is moved on whatever its next run time is by now."""
    return mock.patch.object(Server, "is_expected", _yes)


def _without_trust() -> AbstractContextManager[Any]:
    """Runs are started however long ago the lease was renewed."""
    return mock.patch.object(Membership, "is_trusted", property(_yes))


def _without_audit() -> AbstractContextManager[Any]:
    """Nobody looks for claims whose answer was lost."""
    return mock.patch.object(Caretaker, "_audit", _nothing)


def _without_grace() -> AbstractContextManager[Any]:
    """Nodes are buried right after an outage of the store."""
    return mock.patch.object(Heartbeat, "has_contact_for", _yes)


@contextmanager
def _without_token() -> Iterator[None]:
    """A run is finished by whoever says so."""

    def is_owner(server: Server, row: Row, node_id: str, token: int) -> bool:
        return True

    with mock.patch.object(Server, "is_owner", is_owner):
        yield


MUTANTS = {
    "the compare of the expected next run time": _without_compare,
    "the check of trust": _without_trust,
    "the audit": _without_audit,
    "the outage grace": _without_grace,
    "the compare of owner and token": _without_token,
}
