"""Attempts in MongoDB that are due, and runs that are to be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo import UpdateOne

from asyncz.enums import RunState
from asyncz.stores.cluster import RunRef
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY, WAITING
from asyncz.stores.mongo_reaping import Found
from asyncz.stores.mongo_runs import (
    ENDER,
    MARK,
    NOBODY,
    Held,
    has_ended,
    held_in,
    marks_in,
    waiting_in,
)
from asyncz.stores.mongo_waiting import (
    ATTEMPTS,
    SEEN,
    Waiting,
    WaitingRuns,
    changed_too_often,
    seen_in,
)

__all__ = ["Asked", "Changes", "MongoAttempts"]

CLAIMED, RUNNING = RunState.CLAIMED.value, RunState.RUNNING.value


class Asked(NamedTuple):
    """A run of a node's own that is to be cancelled, and the mark that says who has asked."""

    ref: RunRef
    mark: Document


class Changes(NamedTuple):
    """What is to be done about a document.

    Args:
        seen: It is done only if the document still is like this.
        take: Attempts that begin now.
        end: Attempts that are not made, and why.
        stale: Marks of what is not open any more, by claim.
    """

    seen: Waiting
    take: list[Found]
    end: list[tuple[Found, str]]
    stale: list[str]


class MongoAttempts(WaitingRuns):
    """Begins the attempts of one store, and ends what is cancelled."""

    # Attempts that are due.

    async def due(self, now: int, but: Iterable[str], limit: int, *, idle: bool) -> list[Waiting]:
        """Documents with attempts that are due, those that have waited longest first, about.

        Args:
            now: The time.
            but: Not of tasks with these keys.
            limit: At most so many.
            idle: Only those of which no run goes on, where nothing can be in the way.
        """
        wanted: Document = {"waiting": {"$elemMatch": {"retry": {"$gt": MARK, "$lte": Int64(now)}}}}
        if excluded := list(but):
            wanted["_id"] = {"$nin": excluded}
        if idle:
            wanted["active.0"] = {"$exists": False}
        # In the order of the index; asked to sort them, the server would read all there are.
        cursor = self._tasks.find(wanted, SEEN, limit=limit).hint(WAITING)
        return [seen_in(document, now) for document in await cursor.to_list(None)]

    async def marked(
        self, node_id: str, why: Callable[[str, Document], str]
    ) -> tuple[list[Asked], list[Changes]]:
        """A node's runs that are to be cancelled; and what nobody goes on with, to be ended.

        Args:
            node_id: The node's.
            why: Makes a reason of a task's key and a mark.
        """
        # What others have is theirs; what waits, or is not there any more, is anybody's.
        anybodys = [
            {"waiting": {"$elemMatch": {"retry": {"$gt": MARK}}}},
            {"active.0": {"$exists": False}},
            {"active.owner": node_id},
        ]
        cursor = self._tasks.find({"waiting.retry": MARK, "$or": anybodys}, SEEN).hint(WAITING)
        asked, changes = [], []
        for document in await cursor.to_list(None):
            seen = seen_in(document, None)
            asked += [
                Asked(held.ref, seen.marks[held.claim])
                for held, _ in held_in(document)
                if held.owner == node_id and held.claim in seen.marks
            ]
            end = [
                (found, why(seen.key, seen.marks[found.held.claim]))
                for found in seen.due
                if found.held.claim in seen.marks
            ]
            stale = [claim for claim in seen.marks if claim not in seen.claims]
            if end or stale:
                changes.append(Changes(seen, [], end, stale))
        return asked, changes

    async def make(
        self, node_id: str, now: int, wanted: Sequence[Changes]
    ) -> tuple[list[Held], list[Held]]:
        """Make changes; what was taken, as it is now, and what was ended."""
        if not wanted:
            return [], []
        call = ObjectId()
        updates = [self._change_of(node_id, now, call, each) for each in wanted]
        is_sure = await self.write(updates)
        taken = [_begun(found.held, node_id, now) for each in wanted for found in each.take]
        ended = [found.held for each in wanted for found, _ in each.end]
        if ended:
            await self._ledger.settle_notes([held.key for held in ended])
        if not is_sure:
            documents = await self.documents(each.seen.key for each in wanted)
            active = (held for each in documents.values() for held, _ in held_in(each))
            there = {(held.key, *held.element.values()) for held in active}
            taken = [held for held in taken if (held.key, *held.element.values()) in there]
            rows = await self._ledger.find((held.identity for held in ended), {"by": 1})
            ended = [held for held in ended if rows.get(held.identity, {}).get("by") == call]
        self._known.hold(taken)
        return taken, ended

    def _change_of(self, node_id: str, now: int, call: ObjectId, wanted: Changes) -> UpdateOne:
        begun = [_begin(found, node_id, now) for found in wanted.take]
        notes = [
            {**note, "by": call}
            for found, why in wanted.end
            for note in self.cancelled(found.held, why)
        ]
        claims = [found.held.claim for found in (*wanted.take, *(each for each, _ in wanted.end))]
        return UpdateOne(
            {"_id": {"$eq": wanted.seen.key}, "rev": wanted.seen.rev},
            {
                "$pull": {"waiting": {"claim": {"$in": [*claims, *wanted.stale]}}},
                "$push": {"active": {"$each": begun}, "ledger": {"$each": notes}},
                "$inc": {"rev": 1},
            },
            hint=BY_KEY,
        )

    # Being cancelled.

    async def cancel(self, key: str, at: int, why: str, mark: Document) -> RunState | None:
        """Cancel the open runs of a task and an instant, or ask their owners to.

        Args:
            key: The task's.
            at: The instant.
            why: The reason of those that end by it.
            mark: What is kept of who has asked.

        Returns:
            The state of one that goes on; `queued` if there are such only as wait behind another.
            None: there is none that is open, any more.
        """
        for _ in range(ATTEMPTS):
            document = (await self.documents([key])).get(key, {"_id": key})
            marks = marks_in(document)
            active = await self._without_rows([held for held, _ in held_in(document)])
            heads = [held for held in active if held.at == at]
            waiting = [held for held, _ in waiting_in(document) if held.at == at]
            changes = [
                self._end_change("active" if held in heads else "waiting", held, why)
                for held in (*heads, *waiting)
                if held in waiting or held.owner == NOBODY
            ]
            owned = [held for held in heads if held.owner != NOBODY]
            changes += [_mark_change(held, mark) for held in owned if held.claim not in marks]
            if changes:
                await self.write(changes)
                continue  # what has come of it, another look will tell
            if document.get("ledger"):
                await self._ledger.settle_notes([key])
            if owned:
                return RunState(owned[0].state)
            return RunState.QUEUED if any(at in held.times for held in active) else None
        raise changed_too_often(1)

    async def _without_rows(self, runs: Sequence[Held]) -> list[Held]:
        """Those that have not ended; the others are only to be taken out."""
        rows = await self._ledger.find((held.identity for held in runs), ENDER)
        return [held for held in runs if not has_ended(held, rows.get(held.identity))]

    def _end_change(self, array: str, held: Held, why: str) -> UpdateOne:
        notes = self.cancelled(held, why)
        pull: Document = {"active": held.element} if array == "active" else {}
        return UpdateOne(
            {"_id": {"$eq": held.key}, array: {"$elemMatch": held.element}},
            {
                # All of its claim in `waiting` is it, and its mark.
                "$pull": {**pull, "waiting": {"claim": held.claim}},
                "$push": {"ledger": {"$each": notes}},
                "$inc": {"rev": 1},
            },
            hint=BY_KEY,
        )


def _begun(held: Held, node_id: str, now: int) -> Held:
    """An attempt as it is when it begins."""
    state, started = (CLAIMED, None) if held.once else (RUNNING, now)
    return held._replace(
        owner=node_id, token=held.token + 1, attempt=held.attempt + 1, tried=held.tried + 1,
        state=state, claimed=now, started=started, retry=None,
    )  # fmt: skip


def _begin(found: Found, node_id: str, now: int) -> Document:
    return {**(found.kept or {}), **_begun(found.held, node_id, now).entry()}


def _mark_change(held: Held, mark: Document) -> UpdateOne:
    is_marked = {"claim": held.claim, "mark": True}
    return UpdateOne(
        {
            "_id": {"$eq": held.key},
            "active": {"$elemMatch": held.element},
            "waiting": {"$not": {"$elemMatch": is_marked}},
        },
        {"$push": {"waiting": {**mark, **is_marked, "retry": MARK}}, "$inc": {"rev": 1}},
        hint=BY_KEY,
    )
