"""A MongoDB store that several schedulers share: what they ask, in terms of documents."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from asyncz.clock import Clock
from asyncz.enums import Delivery, RunState
from asyncz.exceptions import StoreError, UnreadableRecordError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.serializers.values import is_clean_text
from asyncz.stores.cluster import (
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Reaped,
    RunEnd,
    RunOutcome,
    RunRef,
)
from asyncz.stores.fates import DELETED, why_ended
from asyncz.stores.mongo_attempts import MongoAttempts
from asyncz.stores.mongo_client import Document
from asyncz.stores.mongo_ending import MongoEnding
from asyncz.stores.mongo_firing import MongoFiring, Wanted
from asyncz.stores.mongo_history import History, MongoHistory
from asyncz.stores.mongo_known import Known
from asyncz.stores.mongo_ledger import MongoLedger
from asyncz.stores.mongo_nodes import MongoNodes, StoreClock
from asyncz.stores.mongo_notices import MongoNotices
from asyncz.stores.mongo_putting_off import MongoPuttingOff
from asyncz.stores.mongo_reaping import Found, MongoReaping
from asyncz.stores.mongo_rows import Collections, MongoRows
from asyncz.stores.mongo_runs import Held, Note, Seal
from asyncz.stores.mongo_shown import open_runs_of, run_of
from asyncz.stores.quarantine import reason
from asyncz.stores.records import RecordStore
from asyncz.stores.rows import Slices
from asyncz.tasks.base import Task

__all__ = ["ROUNDS", "MongoCluster", "Parts", "open_run"]

T = TypeVar("T")

TEXTS = ("reason", "error", "traceback", "notes", "asked")
ASKED = 200
"""Tasks whose last runs are asked for at once."""
ROUNDS = 20
"""Pages of runs that are looked at by one `reap`, if none of a page can be taken here."""


class Parts:
    """What a started store works with to be shared."""

    def __init__(self, collections: Collections, clock: Clock, seal: Seal) -> None:
        self.clock = StoreClock(clock)
        self.known = Known()
        self.rows = MongoRows(collections)
        self.nodes = MongoNodes(collections.nodes, self.clock)
        self.notices = MongoNotices(collections.notices)
        self.ledger = MongoLedger(collections)
        self.history = MongoHistory(collections)
        self.firing = MongoFiring(
            collections, self.clock, self.nodes, self.ledger, self.known, seal
        )
        self.ending = MongoEnding(collections, self.ledger, self.known, self.clock, seal)
        given = collections, self.ledger, self.ending, self.known, self.clock, seal
        self.attempts, self.putting_off = MongoAttempts(*given), MongoPuttingOff(*given)
        self.reaping = MongoReaping(collections, self.nodes, self.ledger, self.ending, self.known)


class MongoCluster(RecordStore, ClusterStore):
    """The operations of `ClusterStore`. A subclass has the way to the server.

    If the serializer encrypts, so are the texts of rows: reason, error and traceback.
    """

    # What a subclass writes.

    @abstractmethod
    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()` where the client belongs, with the driver's errors as ours."""

    @abstractmethod
    async def _look_after(self) -> None:
        """What a pass does beside looking for what is due."""

    @property
    @abstractmethod
    def _parts(self) -> Parts:
        """What it works with; raises if it is not started."""

    # Nodes.

    async def join_node(self, node: Node, lease: float) -> None:
        await self._call(lambda: self._parts.nodes.join(node, lease))

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        return await self._call(lambda: self._parts.nodes.renew(node_id, lease, running))

    async def leave_node(self, node_id: str) -> None:
        await self._call(lambda: self._parts.nodes.leave(node_id))

    async def get_nodes(self) -> list[NodeRecord]:
        return await self._call(lambda: self._parts.nodes.records())

    @property
    def announces(self) -> bool:
        return True

    async def announce(self, node_id: str) -> None:
        await self._call(lambda: self._parts.notices.announce(node_id))

    async def look(self) -> Look:
        parts = self._parts

        async def ask() -> tuple[int, int | None, int | None, set[str]]:
            first, attempt, (ownerless, now) = await asyncio.gather(
                parts.rows.first(), parts.rows.first_attempt(), parts.reaping.ownerless()
            )
            return await parts.nodes.time() if now is None else now, first, attempt, ownerless

        await self._look_after()
        now, first, attempt, ownerless = await self._call(ask)
        moments = (None if at is None else from_microseconds(at) for at in (now, first, attempt))
        time, next_run_time, attend_at = moments
        return Look(time or self.host.clock.now(), next_run_time, bool(ownerless), attend_at)

    # Claims.

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        if not firings:
            return []
        await asyncio.sleep(0)  # they were planned in one go
        wanted = [self._wanted(firing) for firing in firings]
        if any(each.forget for each in wanted):
            self._count_again_at = float("-inf")
        # On a record that cannot be read no step is made.
        bad = {each.key for each in wanted if self._quarantine and each.key in self._quarantine}
        sound = [each for each in wanted if each.key not in bad]
        firing = self._parts.firing
        fired = iter(await self._call(lambda: firing.fire(node_id, claim, sound)))
        return [Fired.LOST if each.key in bad else next(fired) for each in wanted]

    def _wanted(self, firing: Firing) -> Wanted:
        task = firing.task
        notes = tuple(
            Note(
                unrun.state, to_microseconds(unrun.first), to_microseconds(unrun.last),
                unrun.occurrences, unrun.reason,
            )
            for unrun in firing.unrun
        )  # fmt: skip
        return Wanted(
            self.key_of(str(task.id)),
            None if firing.expected is None else to_microseconds(firing.expected),
            None if firing.next_run_time is None else to_microseconds(firing.next_run_time),
            firing.forget,
            firing.kind.value,
            tuple(map(to_microseconds, firing.run_times)),
            task.max_instances,
            task.delivery is Delivery.AT_MOST_ONCE,
            notes,
        )

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        ending = self._parts.ending
        return await self._call(lambda: ending.start(node_id, refs)) if refs else []

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        ending = self._parts.putting_off
        return await self._call(lambda: ending.finish(node_id, ends)) if ends else []

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        await self._call(lambda: self._parts.ending.release(node_id, refs))

    # What somebody else left.

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        found = await self._call(lambda: self._parts.reaping.own(node_id))
        self._parts.known.hold(each.held for each in found)
        runs = [open_run(each.held, *self._task_of(each)) for each in found]
        return sorted(runs, key=lambda run: run.ref.scheduled_time)

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        parts = self._parts
        if await self._call(lambda: parts.nodes.time_if_alive(node_id)) is None:
            return Reaped((), (), ())
        dead: tuple[str, ...] = ()
        if bury is not None:
            dead = await self._call(lambda: parts.nodes.bury(bury, node_id))
            await self._call(parts.ledger.settle_left_notes)
        taken: list[OpenRun] = []
        ended: list[tuple[RunRef, RunState]] = []
        passed_over: set[str] = set()
        for _ in range(ROUNDS):
            room = limit - len(taken) - len(ended)
            found = await self._call(lambda: parts.reaping.left(passed_over, room))  # noqa: B023
            if not found:
                break
            passed_over |= {each.held.key for each in found}
            taken += await self._take(node_id, found, max_attempts)
            ended += await self._end(found, max_attempts)
            if len(taken) + len(ended) >= limit:
                break
        return Reaped(dead, tuple(taken), tuple(ended))

    async def _take(self, node_id: str, found: Sequence[Found], max_attempts: int) -> list[OpenRun]:
        pause = Slices()
        tasks: dict[Held, Task] = {}
        for each in found:
            await pause()
            if _fate(each, max_attempts) is None:
                task, _ = self._task_of(each)
                if task is not None:
                    tasks[each.held] = task
        parts = self._parts
        taken = await self._call(lambda: parts.reaping.take(node_id, list(tasks)))
        by_claim = {(held.key, held.claim): task for held, task in tasks.items()}
        return [open_run(held, by_claim[held.key, held.claim], None) for held in taken]

    async def _end(
        self, found: Sequence[Found], max_attempts: int
    ) -> Iterator[tuple[RunRef, RunState]]:
        ends = []
        for each in found:
            state = _fate(each, max_attempts)
            if state is not None:
                ends.append((each.held, _all_as(each.held, state, self._notes_of(each))))
        ending = self._parts.ending
        settled = await self._call(lambda: ending.settle(ends))
        pairs = zip(ends, settled, strict=True)
        return ((held.ref, said[0].state) for (held, said), was_made in pairs if was_made)

    def _notes_of(self, found: Found) -> dict[str, Any] | None:
        """What a run that others end has said of itself."""
        if found.noted is None:
            return None
        said = self._texts_of(found.held.key, found.noted).get("notes")
        notes = json.loads(said) if said else None
        return notes if isinstance(notes, dict) else None

    def _task_of(self, found: Found) -> tuple[Task | None, str | None]:
        """The task of a run, or why there is none."""
        if found.row is None:
            return None, DELETED
        try:
            return self._started_codec.build(self._unpack(found.row)), None
        except UnreadableRecordError as exc:
            return None, reason(exc)

    # History.

    async def get_runs(self, query: RunQuery) -> list[Run]:
        return query.select(await self._shown(lambda: self._parts.history.find(query)))

    async def _shown(self, ask: Callable[[], Awaitable[History]]) -> list[Run]:
        """The runs of a history."""
        history = await self._call(ask)
        runs: list[Run] = []
        pause = Slices()
        for held, noted, row in history.open:
            await pause()
            texts = {} if row is None else self._texts_of(held.key, row)
            if noted is not None:
                said = self._texts_of(held.key, noted)
                texts = {name: text for name, text in texts.items() if name != "notes"} | said
            runs += open_runs_of(held, self.alias, texts)
        for row in history.rows:
            await pause()
            runs.append(run_of(row, self.alias, self._texts_of(row["_id"]["task"], row)))
        return runs

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """As `ClusterStore.get_last_runs`, by one question to the server for many."""
        names = filter(is_clean_text, dict.fromkeys(task_ids))
        keys = [*map(self.key_of, names)]
        last: dict[str, Run] = {}
        for start in range(0, len(keys), ASKED):
            page = keys[start : start + ASKED]
            for run in await self._shown(lambda: self._parts.history.last(page)):  # noqa: B023
                before = last.get(run.task_id)
                if before is None or before.scheduled_time <= run.scheduled_time:
                    last[run.task_id] = run
        return last

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        keys = {task_id: self.key_of(task_id) for task_id in task_ids}
        active = await self._call(lambda: self._parts.history.active(list(keys.values())))
        return {task_id: active.get(key, 0) for task_id, key in keys.items()}

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        parts = self._parts

        async def forget() -> int:
            await parts.nodes.forget(await parts.reaping.owners())
            return await parts.history.forget(before, limit)

        return await self._call(forget)

    # Secrets.

    def _seal(self, key: str, texts: Mapping[str, str]) -> Document:
        """What is kept of the texts of a row."""
        if not texts or not self.keeps_secret:
            # Half of a surrogate pair, which an error's text may have, is no text on the server.
            return {
                name: text.encode(errors="backslashreplace").decode()
                for name, text in texts.items()
            }
        said = json.dumps({"id": key, **texts}).encode()
        return {"sealed": self._started_codec.encrypt(said)}

    def _texts_of(self, key: str, fields: Mapping[str, object]) -> dict[str, str]:
        """The reverse; what cannot be read here is left out."""
        sealed = fields.get("sealed")
        texts: Mapping[str, object] = fields
        if isinstance(sealed, bytes):
            try:
                texts = json.loads(self._started_codec.decrypt(sealed))
            except (UnreadableRecordError, ValueError):
                return {"reason": "What is known of it is encrypted, and cannot be read here."}
            if texts.get("id") != key:
                return {"reason": "What is known of it is another task's."}
        return {name: text for name in TEXTS if isinstance(text := texts.get(name), str)}

    def _not_started(self) -> StoreError:
        return StoreError(f"The store {self.alias!r} (MongoDBStore) is not started.")


def _fate(found: Found, max_attempts: int) -> RunState | None:
    """What a run that nobody has ends as; None: it can be taken over."""
    held = found.held
    if held.once and held.state == RunState.RUNNING.value:
        return RunState.LOST
    if held.attempt - held.tried >= max_attempts:
        return RunState.ABANDONED
    return RunState.CANCELLED if found.row is None else None


def _all_as(held: Held, state: RunState, notes: dict[str, Any] | None) -> tuple[RunOutcome, ...]:
    why = why_ended(state, held.owner, held.attempt)
    head, *others = (RunOutcome(from_microseconds(at), state, reason=why) for at in held.times)
    return (head._replace(notes=notes), *others)


def open_run(held: Held, task: Task | None, error: str | None) -> OpenRun:
    return OpenRun(
        held.ref,
        RunState(held.state),
        held.attempt,
        tuple(map(from_microseconds, held.times)),
        Delivery.AT_MOST_ONCE if held.once else Delivery.AT_LEAST_ONCE,
        task,
        error,
    )
