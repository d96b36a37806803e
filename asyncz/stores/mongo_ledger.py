"""The rows of what is settled, in MongoDB: one for each occurrence, and never an older word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError

from asyncz.enums import RunState
from asyncz.stores.mongo_client import Document, repeated
from asyncz.stores.mongo_documents import BY_KEY, HAS_NOTHING_OPEN, IS_GONE, NOTES
from asyncz.stores.mongo_rows import Collections
from asyncz.stores.mongo_runs import NOBODY, Identity, identity_of, row_id, row_of_note

__all__ = ["MongoLedger"]

DUPLICATE_KEY = 11000
LOST, RETRYING = RunState.LOST.value, RunState.RETRYING.value
NOTED = {"ledger": 1, "order": 1}
MANY = 500


class MongoLedger:
    """Writes and finds the rows of one store."""

    def __init__(self, collections: Collections) -> None:
        self._tasks = collections.tasks
        self._runs = collections.runs

    async def find(
        self, identities: Iterable[Identity], fields: Document | None = None
    ) -> dict[Identity, Document]:
        """The rows there are of these."""
        ids = [row_id(identity) for identity in identities]
        if not ids:
            return {}
        found = await self._runs.find({"_id": {"$in": ids}}, fields).to_list(None)
        return {identity_of(row): row for row in found}

    async def write(
        self,
        rows: Sequence[Document],
        guessed: Collection[Identity] = (),
        yielding: Sequence[str] = (LOST,),
    ) -> dict[Identity, Document]:
        """Write rows, but not over what was written with a later token, or with the same.

        `lost` gives way to how it ended after all. Written again, nothing is changed.

        Args:
            rows: Which.
            guessed: Those of which nothing was said: `lost` does not give way to them.
            yielding: States that give way to all others with the same token, the weakest first.

        Returns:
            The rows that were there and have stayed.
        """
        try:
            await repeated(lambda: self._runs.insert_many(rows, ordered=False))
        except BulkWriteError as exc:
            errors: list[dict[str, Any]] = exc.details["writeErrors"]
            if exc.details["writeConcernErrors"] or any(
                error["code"] != DUPLICATE_KEY for error in errors
            ):
                raise
            refused = [rows[error["index"]] for error in errors]
            return await self._write_over(refused, guessed, yielding)
        return {}

    async def _write_over(
        self, rows: Sequence[Document], guessed: Collection[Identity], yielding: Sequence[str]
    ) -> dict[Identity, Document]:
        there = await self.find(map(identity_of, rows))
        kept = {}
        better = {}
        for row in rows:
            identity, token = identity_of(row), row["token"]
            found = there.get(identity)
            is_guess = identity in guessed and found is not None and found["token"] == token
            weaker = _weaker(row["state"], yielding)
            if found is not None and (is_guess or _has_precedence(found, row, weaker)):
                kept[identity] = found
                continue
            worse = [{"token": {"$lt": token}}, {"token": token, "state": {"$in": weaker}}]
            if row["owner"] == NOBODY:
                worse.append({"token": token, "owner": {"$ne": NOBODY}})
            better[identity] = ReplaceOne({"_id": row["_id"], "$or": worse}, row)
        if better:
            changes = list(better.values())
            done = await repeated(lambda: self._runs.bulk_write(changes, ordered=False))
            if done.matched_count != len(changes):
                there = await self.find(better)
                kept |= there
                # Whoever had written them too early has taken them back meanwhile.
                gone = [row for row in rows if identity_of(row) in better.keys() - there.keys()]
                if gone:
                    kept |= await self.write(gone, guessed, yielding)
        return kept

    async def withdraw(self, rows: Sequence[Document]) -> None:
        """Take rows back that somebody wrote who was not the owner any more."""
        for row in rows:
            its = {name: row[name] for name in ("_id", "token", "owner")}
            await self._runs.delete_one(its)

    # What is to be rows.

    async def settle_notes(self, keys: Sequence[str]) -> None:
        """Make rows of the notes in these tasks' documents."""
        noted = {"_id": {"$in": list(keys)}, "ledger.0": {"$exists": True}}
        found = await self._tasks.find(noted, NOTED).hint(BY_KEY).to_list(None)
        rows, claims, notes = [], set(), set()
        for document in found:
            for note in document["ledger"]:
                rows.append(row_of_note(document["_id"], document.get("order") or 0, note))
                if "note" in note:
                    notes.add(note["note"])
                else:
                    claims.add(note["claim"])
        if not rows:
            return
        # What waited for an attempt may have been ended by another than its owner since.
        await self.write(rows, yielding=(LOST, RETRYING))
        those = {"_id": {"$in": [document["_id"] for document in found]}}
        # A run has one claim, and may leave another note before these are taken out.
        of_fires = {"claim": {"$in": sorted(claims)}, "note": {"$exists": False}}
        these = {"$or": [of_fires, {"note": {"$in": sorted(notes)}}]}
        taken_out = {"$pull": {"ledger": these}, "$inc": {"rev": 1}}
        await repeated(lambda: self._tasks.update_many(those, taken_out, hint=BY_KEY))
        gone = {**those, **IS_GONE, **HAS_NOTHING_OPEN}
        await repeated(lambda: self._tasks.delete_many(gone, hint=BY_KEY))

    async def settle_left_notes(self) -> None:
        """The same for notes whose writers were killed."""
        noted = {"ledger.claim": {"$gte": ""}}
        cursor = self._tasks.find(noted, {"_id": 1}, limit=MANY).hint(NOTES)
        if keys := [document["_id"] for document in await cursor.to_list(None)]:
            await self.settle_notes(keys)


def _weaker(state: str, yielding: Sequence[str]) -> Sequence[str]:
    """The states that give way to this one, of the same token."""
    return yielding[: yielding.index(state)] if state in yielding else yielding


def _has_precedence(found: Document, row: Document, weaker: Sequence[str]) -> bool:
    if found["token"] == row["token"]:
        # Who has given a run back has no say in how it ends, until it is taken over.
        is_ousted = row["owner"] == NOBODY != found["owner"]
        return found["state"] not in weaker and not is_ousted
    return bool(found["token"] > row["token"])
