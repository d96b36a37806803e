"""The steps of schedules on MongoDB: which were made, told for each, also after a lost answer.

A step stamps the document with the token of its call, so that a call can look afterwards which
ones it made: others may change the document meanwhile, but leave the last few tokens in it. The
last step of a task does not remove the document but makes it not count (`next_run` false,
`ended`). It is removed a moment later, when the call has been answered.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence

from bson.int64 import Int64
from bson.objectid import ObjectId
from pymongo import UpdateMany
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.stores.mongo_client import Collection, Document
from asyncz.stores.mongo_documents import BY_KEY, HAS_NOTHING_OPEN, IS_GONE, NOT_THERE
from asyncz.stores.rows import Step

__all__ = ["MongoSteps"]

KEPT_CLAIMS = 8
REMEMBERED = 8


class MongoSteps:
    """Makes the steps of one store."""

    def __init__(self, tasks: Collection) -> None:
        self._tasks = tasks
        # The tokens of calls that got no answer, of which the server may have made steps.
        self._unanswered: OrderedDict[tuple[Step, ...], ObjectId] = OrderedDict()
        self._ended: dict[ObjectId, list[str]] = {}

    @property
    def has_ended(self) -> bool:
        """Whether there is something to remove."""
        return bool(self._ended)

    async def advance(self, steps: Sequence[Step]) -> list[bool]:
        """Make each step whose row still has the expected next run time; say which were made.

        The same steps asked for again after an error get the answer that got lost.
        """
        batch = tuple(steps)
        known = self._unanswered.pop(batch, None)
        token = known or ObjectId()
        try:
            return await self._make(batch, token, known is not None)
        except BaseException:
            self._unanswered[batch] = token
            if len(self._unanswered) > REMEMBERED:
                self._unanswered.popitem(last=False)
            raise

    async def remove_ended(self) -> None:
        """Remove the tasks that have ended."""
        for token, keys in list(self._ended.items()):
            gone = {"_id": {"$in": keys}, **IS_GONE, **HAS_NOTHING_OPEN, "claims": token}
            await self._tasks.delete_many(gone, hint=BY_KEY)
            self._ended.pop(token, None)

    async def _make(self, steps: Sequence[Step], token: ObjectId, again: bool) -> list[bool]:
        # Of two steps on one row, the second would have to see the first.
        first = {step.key: step for step in reversed(steps)}
        won = await self._stamp(list(first.values()), token, again)
        ended = [key for key in won if first[key].next_run is None]
        made = [first[step.key] is step and step.key in won for step in steps]
        if len(first) < len(steps):
            places = [place for place, step in enumerate(steps) if first[step.key] is not step]
            later = await self.advance([steps[place] for place in places])
            for place, was_made in zip(places, later, strict=True):
                made[place] = was_made
        if ended:
            self._ended[token] = ended
        return made

    async def _stamp(self, steps: Sequence[Step], token: ObjectId, again: bool) -> set[str]:
        """The keys of the steps that this call has made. They are of different rows."""
        keys = [step.key for step in steps]
        changes = _changes(steps, token)
        try:
            done = await self._tasks.bulk_write(changes, ordered=False)
            if done.matched_count == len(keys):
                return set(keys)
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            # What was made does not match a second time.
            await self._tasks.bulk_write(changes, ordered=False)
            again = True
        if not again and not done.matched_count:
            return set()
        ours = self._tasks.find({"_id": {"$in": keys}, "claims": token}, {"_id": 1})
        return {document["_id"] for document in await ours.to_list(len(keys))}


def _changes(steps: Sequence[Step], token: ObjectId) -> list[UpdateMany]:
    alike: dict[tuple[int, int | None], list[str]] = defaultdict(list)
    for key, expected, next_run in steps:
        alike[expected, next_run].append(key)
    return [
        UpdateMany(
            {"_id": {"$in": keys}, "next_run": Int64(expected)},
            _change(token, next_run),
            hint=BY_KEY,
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
