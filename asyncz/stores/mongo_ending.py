"""How runs in MongoDB go on and end: started, given back, settled.

A run ends in two steps: first its rows are written, then it is taken out of its task's document.
Killed in between, it is open and has a row with its token: whoever comes across it does the rest.
A node that was taken for dead may still write its row, but it has an older token, which the rows
of the new owner replace; and it does not take the run out, so it is told that it does not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bson.int64 import Int64
from bson.max_key import MaxKey
from pymongo import DeleteMany, UpdateMany, UpdateOne
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from asyncz.enums import RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import RunEnd, RunOutcome, RunRef
from asyncz.stores.mongo_client import Document, repeated
from asyncz.stores.mongo_documents import BY_KEY, HAS_NOTHING_OPEN, IS_GONE
from asyncz.stores.mongo_known import Known
from asyncz.stores.mongo_ledger import LOST, MongoLedger
from asyncz.stores.mongo_nodes import StoreClock
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import (
    ENDER,
    NOBODY,
    Held,
    Identity,
    Seal,
    has_ended,
    has_of,
    held_in,
    rows_of,
    sealed_notes,
)

__all__ = ["SEEN_RUNS", "MongoEnding"]

CLAIMED, RUNNING = RunState.CLAIMED.value, RunState.RUNNING.value
SEEN_RUNS = {"active": 1, "order": 1, "next_run": 1}


class MongoEnding:
    """Sees to the open runs of one store."""

    def __init__(
        self, collections: Collections, ledger: MongoLedger, known: Known, clock: StoreClock,
        seal: Seal,
    ) -> None:  # fmt: skip
        self._tasks = collections.tasks
        self._runs = collections.runs
        self._ledger = ledger
        self._known = known
        self._clock = clock
        self._seal = seal

    async def start(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        """See `ClusterStore.start_runs`."""
        now = self._clock.estimate()
        change = {
            "$set": {"active.$.state": RUNNING, "active.$.started": Int64(now)},
            "$inc": {"rev": 1},
        }
        claimed = [
            UpdateOne(_owned(node_id, ref, state=CLAIMED), change, hint=BY_KEY) for ref in refs
        ]
        done = await repeated(lambda: self._tasks.bulk_write(claimed, ordered=False))
        for ref in refs:
            if held := self._known.find(node_id, ref):
                self._known.hold([held._replace(state=RUNNING, started=held.started or now)])
        if done.matched_count == len(refs):
            return [True] * len(refs)
        found = await self._look_up(node_id, refs)
        return [(held := found[ref]) is not None and held.state == RUNNING for ref in refs]

    async def release(self, node_id: str, refs: Sequence[RunRef]) -> None:
        """See `ClusterStore.release_runs`."""
        change = {
            "$set": {
                "active.$.owner": NOBODY,
                "active.$.state": CLAIMED,
                "active.$.started": None,
            },
            "$inc": {"active.$.attempt": -1, "rev": 1},
        }
        released = [UpdateOne(_owned(node_id, ref), change, hint=BY_KEY) for ref in refs]
        if released:
            await repeated(lambda: self._tasks.bulk_write(released, ordered=False))
        self._known.drop(held for ref in refs if (held := self._known.find(node_id, ref)))

    async def note(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        """See `ClusterStore.note_runs`."""
        changes = []
        for ref, said in notes:
            noted = {"active.$.noted": sealed_notes(ref.task_id, said, self._seal)}
            change = {"$set": noted, "$inc": {"rev": 1}}
            changes.append(UpdateOne(_owned(node_id, ref), change, hint=BY_KEY))
        done = await repeated(lambda: self._tasks.bulk_write(changes, ordered=True))
        if done.matched_count == len(notes):
            return [True] * len(notes)
        found = await self._look_up(node_id, [ref for ref, _ in notes])
        return [found[ref] is not None for ref, _ in notes]

    async def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        """See `ClusterStore.finish_runs`."""
        held = {end.ref: self._known.find(node_id, end.ref) for end in ends}
        unknown = [ref for ref, known in held.items() if known is None]
        if unknown:
            held |= await self._look_up(node_id, unknown)
        open_ = [(known, end.outcomes) for end in ends if (known := held[end.ref]) is not None]
        settled = iter(await self.settle(open_))
        counts = []
        for end in ends:
            is_open = held[end.ref] is not None
            counts.append(next(settled) if is_open else await self.finish_late(node_id, end))
        return counts

    async def settle(self, ends: Sequence[tuple[Held, Sequence[RunOutcome]]]) -> list[bool]:
        """End open runs; for each, whether it was the owner's, with its token, to end so."""
        if not ends:
            return []
        now, seal = self._clock.estimate(), self._seal
        rows = {held.identity: rows_of(held, said, now, seal) for held, said in ends}
        guessed = {each for held, said in ends for each in _left_out(held, said)}
        all_rows = [row for of_run in rows.values() for row in of_run]
        kept = await self._ledger.write(all_rows, guessed)
        ours = {held.identity: held for held, _ in ends}
        lost = {
            identity
            for identity, held in ours.items()
            if identity in kept and kept[identity]["token"] > held.token
        }
        taken_over = await self.close([held for each, held in ours.items() if each not in lost])
        if taken_over:
            await self._ledger.withdraw([row for each in taken_over for row in rows[each]])
        self._known.drop(ours.values())
        counts = {
            each: each not in lost
            and each not in taken_over
            and (each not in kept or kept[each]["state"] == of_run[0]["state"])
            for each, of_run in rows.items()
        }
        return [counts[held.identity] for held, _ in ends]

    async def close(self, runs: Sequence[Held]) -> set[Identity]:
        """Take runs that have rows out of their tasks. Returns which were somebody else's."""
        if not runs or await self._take_out(runs) == len(runs):
            return set()
        keys = list({held.key for held in runs})
        found = await self._tasks.find({"_id": {"$in": keys}}, SEEN_RUNS).to_list(None)
        there = {(held.key, held.claim): held for each in found for held, _ in held_in(each)}
        still = [held for held in runs if _is_same(there.get((held.key, held.claim)), held)]
        others = {held.identity for held in runs if (held.key, held.claim) in there} - {
            held.identity for held in still
        }
        if still:
            # There was more in these documents.
            await self._take_out([held._replace(is_last=False) for held in still])
            gone = {"_id": {"$in": keys}, **IS_GONE, **HAS_NOTHING_OPEN}
            await repeated(lambda: self._tasks.delete_many(gone, hint=BY_KEY))
        taken_out = [held for held in runs if (held.key, held.claim) not in there]
        if taken_out:
            # Others may have noted how they end there, and not made rows of that yet.
            await self._ledger.settle_notes(list({held.key for held in taken_out}))
        rows = await self._ledger.find((held.identity for held in taken_out), ENDER)
        return others | {
            held.identity
            for held in taken_out
            if held.identity in rows and not has_ended(held, rows[held.identity])
        }

    async def _take_out(self, runs: Sequence[Held]) -> int:
        """Take runs out; how many were, or -1 if nobody knows."""
        groups: dict[tuple[Any, ...], list[Held]] = defaultdict(list)
        for held in runs:
            groups[held.is_last, held.claim, held.owner, held.token].append(held)
        changes: list[DeleteMany | UpdateMany] = []
        for group in groups.values():
            element = group[0].element
            those: Document = {
                "_id": {"$in": [held.key for held in group]},
                "active": {"$elemMatch": element},
            }
            if group[0].is_last:
                alone = {**HAS_NOTHING_OPEN, "active.0": {"$exists": True}}
                alone["active.1"] = {"$exists": False}
                changes.append(DeleteMany({**those, **IS_GONE, **alone}, hint=BY_KEY))
            else:
                mark = {"claim": group[0].claim, "mark": True}
                change = {"$pull": {"active": element, "waiting": mark}, "$inc": {"rev": 1}}
                changes.append(UpdateMany(those, change, hint=BY_KEY))
        try:
            done = await self._tasks.bulk_write(changes, ordered=False)
            return done.matched_count + done.deleted_count
        except ServerSelectionTimeoutError:
            raise
        except AutoReconnect:
            await self._tasks.bulk_write(changes, ordered=False)
            return -1

    async def _look_up(self, node_id: str, refs: Iterable[RunRef]) -> dict[RunRef, Held | None]:
        """The open runs of references, those with that owner and token."""
        refs = list(refs)
        keys = list({ref.task_id for ref in refs})
        found = await self._tasks.find({"_id": {"$in": keys}}, SEEN_RUNS).to_list(None)
        open_ = [held for document in found for held, _ in held_in(document)]
        by_key: dict[str, list[Held]] = defaultdict(list)
        for held in open_:
            by_key[held.key].append(held)
        return {
            ref: next(
                (
                    held
                    for held in by_key[ref.task_id]
                    if has_of(held, ref) and (held.owner, held.token) == (node_id, ref.token)
                ),
                None,
            )
            for ref in refs
        }

    async def finish_late(self, node_id: str, end: RunEnd) -> bool:
        """Say how a run ended that is not open any more."""
        ref = end.ref
        at = Int64(to_microseconds(ref.scheduled_time))
        first = {"task": ref.task_id, "at": at, "kind": ref.kind.value}
        theirs = {
            "_id": {"$gte": first, "$lt": {**first, "order": MaxKey()}},
            "owner": node_id,
            "token": ref.token,
        }
        found = await self._runs.find(theirs).sort([("_id", -1)]).to_list(1)
        if not found or not end.outcomes:
            return False
        said = {to_microseconds(outcome.scheduled_time): outcome for outcome in end.outcomes}
        state = said[int(at)].state if int(at) in said else RunState.CANCELLED
        if found[0]["state"] != LOST or state is RunState.LOST:
            return bool(found[0]["state"] == state.value)
        await self._ledger.write(await self._late_rows(found[0], end))
        return True

    async def _late_rows(self, head: Mapping[str, Any], end: RunEnd) -> list[Document]:
        """The rows of a lost run, as far as it is known now how it ended."""
        task, order = head["_id"]["task"], int(head["_id"]["order"])
        of_run = {
            "_id": {
                "$gte": {"task": task, "at": head["at"]},
                "$lt": {"task": task, "at": MaxKey()},
            },
            "claim": head["claim"],
            "token": head["token"],
        }
        rows = await self._runs.find(of_run, {"at": 1}).sort([("_id", 1)]).to_list(None)
        started = head["started"]
        said = {to_microseconds(outcome.scheduled_time) for outcome in end.outcomes}
        times = [at for row in rows if (at := int(row["at"])) in said or at == int(head["at"])]
        held = Held(
            task, order, head["_id"]["kind"], tuple(times),
            head["claim"], head["owner"], int(head["token"]), int(head["attempt"]), RUNNING, True,
            int(head["claimed"]), None if started is None else int(started),
        )  # fmt: skip
        return rows_of(held, end.outcomes, self._clock.estimate(), self._seal)


def _owned(node_id: str, ref: RunRef, **more: Any) -> Document:
    """A condition on a task's document: it has this open run of this owner."""
    element = {
        "at": Int64(to_microseconds(ref.scheduled_time)),
        "kind": ref.kind.value,
        "owner": node_id,
        "token": ref.token,
        **more,
    }
    return {"_id": {"$eq": ref.task_id}, "active": {"$elemMatch": element}}


def _left_out(held: Held, outcomes: Sequence[RunOutcome]) -> Iterator[Identity]:
    """What waited behind a run, and of which nothing is said."""
    if len(outcomes) < len(held.times):
        said = {to_microseconds(outcome.scheduled_time) for outcome in outcomes}
        for at in held.times[1:]:
            if at not in said:
                yield held.key, at, held.kind, held.order


def _is_same(found: Held | None, held: Held) -> bool:
    return found is not None and (found.owner, found.token) == (held.owner, held.token)
