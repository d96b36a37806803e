"""What waits in a task's document in MongoDB: attempts, and marks of what is to be cancelled.

Each thing that happens to it is one change of that document: an attempt that failed goes from
`active` to `waiting`, and back when it is due; one that is cancelled goes away. What is to be
known of it goes to `ledger` in the same change, and is made a row afterwards, by who comes across
it if its writer was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import UpdateOne
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.serializers.json import from_microseconds
from asyncz.stores.cluster import RunOutcome
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_ending import MongoEnding
from asyncz.stores.mongo_known import Known
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.stores.mongo_nodes import StoreClock
from asyncz.stores.mongo_reaping import WITH_RECORDS, Found, row_of_task
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import Held, Seal, held_in, marks_in, note_of_row, rows_of, waiting_in

__all__ = ["ATTEMPTS", "SEEN", "Waiting", "WaitingRuns", "changed_too_often", "noted", "seen_in"]

ATTEMPTS = 20
SEEN = {**WITH_RECORDS, "waiting": 1, "rev": 1, "ledger.claim": 1}


class Waiting(NamedTuple):
    """A task's document as it was seen.

    Args:
        active: How many runs of it go on.
        due: Its attempts that are due, the earliest first.
        marks: Of those that are to be cancelled, by claim.
        claims: Of all its open runs.
    """

    key: str
    rev: Any
    active: int
    due: list[Found]
    marks: dict[str, Document]
    claims: frozenset[str]


class WaitingRuns:
    """How what waits in one store is looked at and changed."""

    def __init__(
        self, collections: Collections, ledger: MongoLedger, ending: MongoEnding,
        known: Known, clock: StoreClock, seal: Seal,
    ) -> None:  # fmt: skip
        self._tasks = collections.tasks
        self._ledger = ledger
        self._ending = ending
        self._known = known
        self._clock = clock
        self._seal = seal

    def cancelled(self, held: Held, why: str) -> list[Document]:
        """What is recorded of one that is ended by who does not own it."""
        state = RunState.CANCELLED
        said = [RunOutcome(from_microseconds(at), state, reason=why) for at in held.times]
        rows = rows_of(held, said, self._clock.estimate(), self._seal)
        # Its owner may have left notes with its token already, of what was tried again.
        return noted(held._replace(token=held.token + 1), rows)

    async def documents(self, keys: Iterable[str]) -> dict[str, Document]:
        found = await self._tasks.find({"_id": {"$in": list(set(keys))}}, SEEN).to_list(None)
        return {document["_id"]: document for document in found}

    async def write(self, changes: Sequence[UpdateOne]) -> bool:
        """Make changes; whether it is sure that all were made."""
        try:
            done = await self._tasks.bulk_write(changes, ordered=False)
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            # What was changed does not match a second time.
            await self._tasks.bulk_write(changes, ordered=False)
            return False
        return bool(done.matched_count == len(changes))


def noted(held: Held, rows: Iterable[Document]) -> list[Document]:
    """Elements of `ledger`. A run does only one such thing with one token."""
    return [note_of_row(row, f"{held.key}/{held.claim}/{held.token}") for row in rows]


def seen_in(document: Mapping[str, Any], now: int | None) -> Waiting:
    """A document as it was seen; what is due by a time, or all that waits."""
    runs = list(waiting_in(document))
    due = [
        Found(held, row_of_task(document, entry, held), kept_of(entry))
        for held, entry in runs
        if now is None or (held.retry or 0) <= now
    ]
    due.sort(key=lambda found: (found.held.retry or 0, found.held.at))
    active = [held.claim for held, _ in held_in(document)]
    claims = frozenset([*active, *(held.claim for held, _ in runs)])
    return Waiting(
        document["_id"], document.get("rev"), len(active), due, marks_in(document), claims
    )


def kept_of(entry: Mapping[str, Any]) -> Document:
    return {name: entry[name] for name in ("order", "record", "noted") if name in entry}


def changed_too_often(count: int) -> StoreError:
    return StoreError(
        f"{count} run(s) were changed by others again and again while they were changed here."
    )
