"""Attempts in MongoDB that failed: from then on they wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymongo import UpdateOne

from asyncz.enums import RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import RunEnd, RunOutcome, RunRef
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_documents import BY_KEY
from asyncz.stores.mongo_runs import MARK, Held, has_of, held_in, rows_of, waiting_in
from asyncz.stores.mongo_waiting import ATTEMPTS, WaitingRuns, changed_too_often, noted

__all__ = ["MongoPuttingOff"]

RETRYING = RunState.RETRYING.value


class MongoPuttingOff(WaitingRuns):
    """Ends runs of one store, some of which are tried again."""

    async def finish(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        """See `ClusterStore.finish_runs`."""
        waits = [any(said.state is RunState.RETRYING for said in end.outcomes) for end in ends]
        if not any(waits):
            return await self._ending.finish(node_id, ends)
        pairs = list(zip(ends, waits, strict=True))
        plain = [end for end, it_waits in pairs if not it_waits]
        plainly = iter(await self._ending.finish(node_id, plain) if plain else ())
        put_off = await self._put_off(node_id, [end for end, it_waits in pairs if it_waits])
        return [put_off[end.ref] if it_waits else next(plainly) for end, it_waits in pairs]

    async def _put_off(self, node_id: str, ends: Sequence[RunEnd]) -> dict[RunRef, bool]:
        """Let attempts wait; for each, whether it was the owner's, with its token, to say so."""
        answers: dict[RunRef, bool] = {}
        left = {end.ref: end for end in ends}
        late: list[RunEnd] = []
        for _ in range(ATTEMPTS):
            changes = {}
            documents = await self.documents(ref.task_id for ref in left)
            for ref, end in left.items():
                document = documents.get(ref.task_id, {"_id": ref.task_id})
                entry = _own(held_in(document), node_id, ref)
                if entry is not None:
                    changes[ref] = self._put_off_change(document, *entry, end)
                elif _own(waiting_in(document), node_id, ref) is not None:
                    answers[ref] = True  # by the first try
                else:
                    late.append(end)
            left = {ref: left[ref] for ref in changes}
            self._known.drop(held for ref in changes if (held := self._known.find(node_id, ref)))
            if not changes or await self.write(list(changes.values())):
                break
        else:
            raise changed_too_often(len(left))
        answers |= dict.fromkeys(left, True)
        await self._ledger.settle_notes(list({end.ref.task_id for end in ends}))
        for end in late:
            answers[end.ref] = await self._ending.finish_late(node_id, _for_good(end))
        return answers

    def _put_off_change(
        self, document: Mapping[str, Any], held: Held, entry: Document, end: RunEnd
    ) -> UpdateOne:
        rows = rows_of(held, end.outcomes, self._clock.estimate(), self._seal)
        kept = {name: entry[name] for name in ("order", "record") if name in entry}
        waiting = [
            {**_put_off(held, outcome).entry(), **kept}
            for outcome in end.outcomes
            if outcome.state is RunState.RETRYING
            and to_microseconds(outcome.scheduled_time) in held.times
        ]
        # Of a new task in its place, what is kept of its own would have to be put there.
        it = {"_id": {"$eq": held.key}, "order": document.get("order")}
        return UpdateOne(
            {**it, "active": {"$elemMatch": held.element}},
            {
                "$pull": {"active": held.element},
                "$push": {
                    "waiting": {"$each": waiting},
                    "ledger": {"$each": noted(held, rows)},
                },
                "$unset": {"ended": ""},
                "$inc": {"rev": 1},
            },
            hint=BY_KEY,
        )


def _own(
    runs: Iterable[tuple[Held, Document]], node_id: str, ref: RunRef
) -> tuple[Held, Document] | None:
    """The one that a reference of a node means, with its token."""
    for held, entry in runs:
        if has_of(held, ref) and (held.owner, held.token) == (node_id, ref.token):
            return held, entry
    return None


def _put_off(held: Held, outcome: RunOutcome) -> Held:
    """One occurrence of a run as it waits. Without a time, it is due at once."""
    at = to_microseconds(outcome.scheduled_time)
    retry = at if outcome.retry_at is None else to_microseconds(outcome.retry_at)
    # Of several occurrences, each is known by a claim of its own from now on.
    claim = held.claim if at == held.at else f"{held.claim}:{at}"
    return held._replace(
        times=(at,), claim=claim, state=RETRYING, retry=max(retry, MARK + 1), is_last=False
    )


def _for_good(end: RunEnd) -> RunEnd:
    """How a run ended that is not open any more: there is no other attempt at it."""
    outcomes = (
        said._replace(state=RunState.FAILED) if said.state is RunState.RETRYING else said
        for said in end.outcomes
    )
    return RunEnd(end.ref, tuple(outcomes))
