"""The steps of schedules on MongoDB: which were made, told for each, and undone when in doubt.

A step stamps the document with the token of its call, so that a call can look afterwards which
ones it made: others may change the document meanwhile, but leave the last few tokens in it. The
last step of a task does not remove the document but makes it not count (`next_run` false,
`ended`). It is removed a moment later, when nobody can doubt any more that the step was made.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo import UpdateMany, UpdateOne
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.stores.mongo_client import Collection, Document
from asyncz.stores.mongo_documents import NOT_THERE, long
from asyncz.stores.rows import Step

__all__ = ["MongoSteps"]

KEPT_CLAIMS = 8
DOUBT_FOR = 60.0
"""Seconds, after the server was reached again, for which a lost call may still come through."""


@dataclass
class _Doubt:
    """A call that failed, of which the server may have made steps, or may yet make some."""

    token: ObjectId
    steps: Sequence[Step]
    until: float | None = None


class MongoSteps:
    """Makes the steps of one store."""

    def __init__(self, tasks: Collection) -> None:
        self._tasks = tasks
        self._doubts: list[_Doubt] = []
        self._ended: list[tuple[ObjectId, list[str]]] = []

    @property
    def is_in_doubt(self) -> bool:
        """Whether there is something that may have to be undone."""
        return bool(self._doubts)

    @property
    def has_ended(self) -> bool:
        """Whether there is something to remove."""
        return bool(self._ended)

    async def advance(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step whose row still has the expected next run time; say which were made."""
        made = [False] * len(steps)
        for indexes in _rounds(steps):
            won = await self._make([steps[index] for index in indexes])
            for index in indexes:
                made[index] = steps[index].key in won
        return made

    async def tidy_up(self) -> None:
        """Remove the tasks that have ended."""
        while self._ended:
            token, keys = self._ended[0]
            gone = {"_id": {"$in": keys}, "next_run": NOT_THERE, "claims": token}
            await self._tasks.delete_many(gone, hint=[("_id", 1)])
            # Not popped before: a deletion that failed is repeated, by whoever comes next.
            self._ended = [item for item in self._ended if item[0] != token]

    async def undo_doubtful(self) -> None:
        """Take back what calls that failed have done: their runs were never handed over."""
        now = asyncio.get_running_loop().time()
        for doubt in list(self._doubts):
            undoing = [_undoing(doubt.token, step) for step in doubt.steps]
            await self._tasks.bulk_write(undoing, ordered=False)
            if doubt.until is None:
                doubt.until = now + DOUBT_FOR
            elif now > doubt.until and doubt in self._doubts:
                self._doubts.remove(doubt)

    async def _make(self, steps: Sequence[Step]) -> set[str]:
        """The keys of those made. They are of different rows."""
        token = ObjectId()
        try:
            won = await self._stamp(token, steps)
        except BaseException:
            self._doubts.append(_Doubt(token, steps))
            raise
        ended = [step.key for step in steps if step.next_run is None and step.key in won]
        if ended:
            self._ended.append((token, ended))
        return won

    async def _stamp(self, token: ObjectId, steps: Sequence[Step]) -> set[str]:
        keys = {step.key for step in steps}
        changes = _changes(token, steps)
        try:
            done = await self._tasks.bulk_write(changes, ordered=False)
            if done.matched_count == len(keys):
                return keys
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            # What was made does not match a second time.
            await self._tasks.bulk_write(changes, ordered=False)
        ours = self._tasks.find({"_id": {"$in": list(keys)}, "claims": token}, {"_id": 1})
        return {document["_id"] for document in await ours.to_list(len(keys))}


def _rounds(steps: Sequence[Step]) -> Iterable[list[int]]:
    """The places of steps, such that no row is in a round twice."""
    rounds: list[list[int]] = []
    times: dict[str, int] = defaultdict(int)
    for index, step in enumerate(steps):
        number = times[step.key]
        times[step.key] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(index)
    return rounds


def _changes(token: ObjectId, steps: Sequence[Step]) -> list[UpdateMany]:
    alike: dict[tuple[int, int | None], list[str]] = defaultdict(list)
    for key, expected, next_run in steps:
        alike[expected, next_run].append(key)
    return [
        UpdateMany(
            {"_id": {"$in": keys}, "next_run": Int64(expected)},
            _change(token, next_run),
            hint=[("_id", 1)],
        )
        for (expected, next_run), keys in alike.items()
    ]


def _change(token: ObjectId, next_run: int | None) -> Document:
    change: Document = {
        "$set": {"next_run": NOT_THERE if next_run is None else Int64(next_run)},
        "$inc": {"rev": 1},
        "$push": {"claims": {"$each": [token], "$slice": -KEPT_CLAIMS}},
    }
    if next_run is None:
        change["$currentDate"] = {"ended": True}
    return change


def _undoing(token: ObjectId, step: Step) -> UpdateOne:
    reached = NOT_THERE if step.next_run is None else Int64(step.next_run)
    return UpdateOne(
        {"_id": step.key, "claims": token, "next_run": reached},
        {
            "$set": {"next_run": long(step.expected)},
            "$unset": {"ended": ""},
            "$pull": {"claims": token},
            "$inc": {"rev": 1},
        },
    )
