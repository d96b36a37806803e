"""Claims on MongoDB: a schedule moves on and its run is somebody's by one change of one document.

Those that can be fired without a question are changed many at a time, by conditions. Whatever did
not match is looked at, decided, and changed on the condition that it still is as it was seen. A
change stamps the document with its call's claim, so that a call whose answer was lost, asked
again, finds what it has done: the claim in the document, in its open run or in a row.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bson.int64 import Int64
from pymongo import UpdateMany, UpdateOne
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.enums import RunKind, RunState
from asyncz.exceptions import StoreError
from asyncz.stores.cluster import Fired
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY, NOT_THERE
from asyncz.stores.mongo_known import Known
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.stores.mongo_nodes import MongoNodes, StoreClock
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import Held, Identity, Note, Seal, held_in, note_of

__all__ = ["MongoFiring", "Wanted"]

KEPT_CLAIMS = 8
ATTEMPTS = 20
JUST_NOW = 5_000_000
"""Microseconds: rows are asked for instants that are longer ago. They are a second guard, against
tasks that come out of a backup; the first, `last` in the document, is for all."""
SEEN = {
    "next_run": 1, "order": 1, "rev": 1, "claims": 1, "active": 1, "ledger": 1,
    **{f"waiting.{name}": 1 for name in ("at", "kind", "claim", "mark")},
}  # fmt: skip
MANUAL, SCHEDULED = RunKind.MANUAL.value, RunKind.SCHEDULED.value
SKIPPED = RunState.SKIPPED


class Wanted(NamedTuple):
    """A `Firing` in terms of documents; times in microseconds."""

    key: str
    expected: int | None
    next_run: int | None
    forget: bool
    kind: str
    times: tuple[int, ...]
    limit: int
    once: bool
    notes: tuple[Note, ...]

    @property
    def alike(self) -> tuple[Any, ...]:
        """Equal for those that can be changed by the same command."""
        return self[1:8] if not self.notes else tuple(self)


class _Call(NamedTuple):
    """A call of `fire`."""

    claim: str
    node_id: str
    now: int


class MongoFiring:
    """Fires the tasks of one store."""

    def __init__(
        self, collections: Collections, clock: StoreClock, nodes: MongoNodes, ledger: MongoLedger,
        known: Known, seal: Seal,
    ) -> None:  # fmt: skip
        self._tasks = collections.tasks
        self._clock = clock
        self._nodes = nodes
        self._ledger = ledger
        self._known = known
        self._seal = seal

    async def fire(self, node_id: str, claim: str, wanted: Sequence[Wanted]) -> list[Fired]:
        """See `ClusterStore.fire`."""
        orders = await self._orders_of([each.key for each in wanted])
        before = self._clock.estimate() - JUST_NOW
        old = [
            head
            for each in wanted
            if each.times and each.times[0] < before and (head := _head(each, orders))
        ]
        now, rows = await asyncio.gather(
            self._nodes.time_if_alive(node_id), self._ledger.find(old, {"_id": 1})
        )
        if now is None:
            return [Fired.FENCED] * len(wanted)
        call = _Call(claim, node_id, now)
        plain = [
            each
            for each in wanted
            if each.key in orders and not (rows and _head(each, orders) in rows)
        ]
        won = await self._claim(call, plain, orders)
        rest = {each.key: each for each in wanted if each.key not in won}
        decided = await self._decide(call, rest, orders) if rest else {}
        noted = [
            each.key
            for each in wanted
            if each.notes or (decided.get(each.key) is Fired.SKIPPED and each.kind != MANUAL)
        ]
        if noted:
            await self._ledger.settle_notes(noted)
        return [decided.get(each.key, Fired.WON) for each in wanted]

    async def _orders_of(self, keys: Sequence[str]) -> Mapping[str, int]:
        """The orders of insertion of tasks that are perhaps there."""
        known = self._known.orders
        unknown = [key for key in keys if key not in known]
        if unknown:
            cursor = self._tasks.find({"_id": {"$in": unknown}}, {"order": 1})
            found = await cursor.to_list(None)
            self._known.saw((each["_id"], int(each.get("order") or 0)) for each in found)
        return {key: known[key] for key in keys if key in known}

    # Those that can be fired without a question.

    async def _claim(
        self, call: _Call, wanted: Sequence[Wanted], orders: Mapping[str, int]
    ) -> set[str]:
        """The keys of those that are won."""
        if not wanted:
            return set()
        groups: dict[tuple[Any, ...], list[Wanted]] = defaultdict(list)
        for each in wanted:
            groups[each.alike].append(each)
        changes = [self._change_all(call, group, orders) for group in groups.values()]
        matched = await self._write(changes)
        won = {each.key for each in wanted}
        if matched != len(wanted):
            ours = self._tasks.find({"_id": {"$in": list(won)}, "active.claim": call.claim}, SEEN)
            found = await ours.to_list(None)
            runs = [held for each in found for held, _ in held_in(each)]
            self._known.hold(held for held in runs if _is_new(held, call))
            return {held.key for held in runs if held.claim == call.claim}
        self._known.hold(_held(call, each, orders[each.key]) for each in wanted if each.times)
        return won

    def _change_all(
        self, call: _Call, group: Sequence[Wanted], orders: Mapping[str, int]
    ) -> UpdateMany | UpdateOne:
        first = group[0]
        wanted: Document = {
            "next_run": None if first.expected is None else Int64(first.expected),
            "claims": {"$ne": call.claim},
        }
        if first.times:
            at = Int64(first.times[0])
            same = {"kind": first.kind, "times": at}
            wanted["active"] = {"$not": {"$elemMatch": same}}
            wanted["waiting"] = {"$not": {"$elemMatch": {"kind": first.kind, "at": at}}}
            wanted[f"active.{first.limit - 1}"] = {"$exists": False}
            if first.kind != MANUAL:
                wanted["last"] = {"$not": {"$gte": at}}
        change = self._change(call, first, runs=bool(first.times))
        if len(group) == 1:
            is_it = {"_id": {"$eq": first.key}, "order": Int64(orders[first.key])}
            return UpdateOne({**is_it, **wanted}, change, hint=BY_KEY)
        keys = [each.key for each in group]
        # Of a new task in the place of one of these, none of these is the order.
        are_these = {"_id": {"$in": keys}, "order": {"$in": [Int64(orders[key]) for key in keys]}}
        return UpdateMany({**are_these, **wanted}, change, hint=BY_KEY)

    def _change(
        self, call: _Call, wanted: Wanted, *, runs: bool, notes: Sequence[Note] = ()
    ) -> Document:
        """How a task's document is changed.

        Args:
            runs: Whether with a run.
            notes: What is recorded beside what is wanted.
        """
        push: Document = {"claims": {"$each": [call.claim], "$slice": -KEPT_CLAIMS}}
        change: Document = {"$inc": {"rev": 1}, "$push": push}
        if wanted.forget:
            change["$set"] = {"next_run": NOT_THERE}
        else:
            moved = wanted.next_run
            change["$set"] = {"next_run": None if moved is None else Int64(moved)}
        if runs:
            push["active"] = _held(call, wanted, 0).entry()
        moments = [*wanted.times] if wanted.kind != MANUAL else []
        if moments := [*moments, *(note.first for note in wanted.notes)]:
            change["$max"] = {"last": Int64(max(moments))}
        if notes := [*wanted.notes, *notes]:
            stamp = {"claim": call.claim, "owner": call.node_id, "claimed": Int64(call.now)}
            sealed = [note_of(wanted.key, SCHEDULED, note, self._seal) for note in notes]
            push["ledger"] = {"$each": [{**note, **stamp} for note in sealed]}
        elif wanted.forget and not runs:
            change["$currentDate"] = {"ended": True}
        return change

    async def _write(self, changes: Sequence[UpdateMany | UpdateOne]) -> int:
        """Make changes; how many documents matched, or -1 if nobody knows."""
        try:
            return (await self._tasks.bulk_write(changes, ordered=False)).matched_count
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            # What was changed does not match a second time.
            await self._tasks.bulk_write(changes, ordered=False)
            return -1

    # Those that have to be looked at.

    async def _decide(
        self, call: _Call, rest: Mapping[str, Wanted], orders: Mapping[str, int]
    ) -> dict[str, Fired]:
        for _ in range(ATTEMPTS):
            decided: dict[str, Fired] = {}
            changes = []
            for key, seen in (await self._look_at(rest, orders)).items():
                answer = seen.answer_of(call.claim)
                change = None
                if answer is None:
                    answer, change = self._verdict(call, rest[key], seen)
                if change is not None:
                    is_same = {"_id": {"$eq": key}, "rev": seen.rev}
                    changes.append(UpdateOne(is_same, change, hint=BY_KEY))
                decided[key] = answer
            if not changes or await self._write(changes) == len(changes):
                return decided
            # Some were changed meanwhile; which ones, another look will tell.
        raise StoreError(
            f"{len(rest)} task(s) were changed by others again and again while they were fired."
        )

    async def _look_at(
        self, rest: Mapping[str, Wanted], orders: Mapping[str, int]
    ) -> dict[str, _Seen]:
        found = await self._tasks.find({"_id": {"$in": list(rest)}}, SEEN).to_list(None)
        documents = {document["_id"]: document for document in found}
        # A task may have been added anew under its id: asked again, the claim has to be found.
        self._known.saw((key, int(each.get("order") or 0)) for key, each in documents.items())
        order_of = {
            key: int(documents[key].get("order") or 0) if key in documents else orders.get(key, 0)
            for key in rest
        }
        asked = [one for key, each in rest.items() for one in _all(each, order_of[key])]
        rows = await self._ledger.find(asked, {"state": 1, "claim": 1})
        return {
            key: _Seen(each, documents.get(key), order_of[key], rows) for key, each in rest.items()
        }

    def _verdict(self, call: _Call, wanted: Wanted, seen: _Seen) -> tuple[Fired, Document | None]:
        """What becomes of one, and the change that makes it so."""
        if not seen.is_as_expected:
            return Fired.LOST, None
        is_busy = seen.active >= wanted.limit and bool(wanted.times)
        if is_busy and wanted.kind == MANUAL:
            return Fired.SKIPPED, None
        if not wanted.times:
            return Fired.WON, self._change(call, wanted, runs=False)
        if seen.was_run:
            return Fired.REPEATED, self._change(call, wanted, runs=False)
        if is_busy:
            times = wanted.times
            why = f"{wanted.limit} run(s) went on, as many as max_instances allows"
            note = Note(SKIPPED, times[0], times[-1], len(times), why)
            return Fired.SKIPPED, self._change(call, wanted, runs=False, notes=[note])
        return Fired.WON, self._change(call, wanted, runs=True)


class _Seen:
    """A task's document as it was seen, and the rows of what is wanted of it."""

    def __init__(
        self, wanted: Wanted, document: Document | None, order: int,
        rows: Mapping[Identity, Document],
    ) -> None:  # fmt: skip
        self._wanted = wanted
        self._document = document or {"_id": wanted.key}
        self._order = order
        self._rows = rows
        self._held = [held for held, _ in held_in(self._document)]
        waiting: Sequence[Document] = self._document.get("waiting") or ()
        self._waiting = [entry for entry in waiting if "mark" not in entry]

    @property
    def rev(self) -> Any:
        """The count of its changes."""
        return self._document.get("rev")

    @property
    def is_as_expected(self) -> bool:
        """Whether it has the next run time that was expected."""
        missing = object()
        found = self._document.get("next_run", missing)
        # Python takes False, which says that it is not there, for a number.
        return found is not missing and type(found) is not bool and found == self._wanted.expected

    @property
    def active(self) -> int:
        """How many runs of it go on."""
        return len(self._held)

    @property
    def was_run(self) -> bool:
        """Whether what is to be run has been, or is open."""
        if _head(self._wanted, {self._wanted.key: self._order}) in self._rows:
            return True
        at, kind = self._wanted.times[0], self._wanted.kind
        return any(at in held.times and held.kind == kind for held in self._held) or any(
            (entry["at"], entry["kind"]) == (at, kind) for entry in self._waiting
        )

    def answer_of(self, claim: str) -> Fired | None:
        """What an earlier try of the same call has come to; None: it did nothing here."""
        if any(held.claim == claim for held in self._held):
            return Fired.WON
        ours = [
            row
            for one in _all(self._wanted, self._order)
            if (row := self._rows.get(one)) is not None and row.get("claim") == claim
        ]
        ours += [note for note in self._document.get("ledger") or () if note["claim"] == claim]
        if not ours and claim not in (self._document.get("claims") or ()):
            return None
        if any(row["state"] == SKIPPED.value for row in ours):
            return Fired.SKIPPED
        # It was run to its end meanwhile, by who found that it was claimed, or was before.
        return Fired.REPEATED if self._wanted.times else Fired.WON


def _head(wanted: Wanted, orders: Mapping[str, int]) -> Identity | None:
    """What its row would be of; None if it has no run or is not there."""
    order = orders.get(wanted.key)
    if order is None or not wanted.times:
        return None
    return wanted.key, wanted.times[0], wanted.kind, order


def _all(wanted: Wanted, order: int) -> list[Identity]:
    """What its rows are of: the head's, and those of what is not run."""
    head = [(wanted.key, moment, wanted.kind, order) for moment in wanted.times[:1]]
    return [*head, *((wanted.key, note.first, SCHEDULED, order) for note in wanted.notes)]


def _held(call: _Call, wanted: Wanted, order: int) -> Held:
    """The run that is claimed."""
    state = RunState.CLAIMED if wanted.once else RunState.RUNNING
    return Held(
        wanted.key, order, wanted.kind, wanted.times, call.claim, call.node_id, 1, 1,
        state.value, wanted.once, call.now, None if wanted.once else call.now, wanted.forget,
    )  # fmt: skip


def _is_new(held: Held, call: _Call) -> bool:
    return (held.claim, held.owner, held.token) == (call.claim, call.node_id, 1)
