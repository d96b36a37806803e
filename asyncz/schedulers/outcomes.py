"""Outcomes on their way to a store: many at once, and again until the store has them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asyncz.exceptions import StoreError
from asyncz.runs.results import MAX_RESULT
from asyncz.stores.cluster import ClusterStore, RunEnd, RunOutcome, RunRef
from asyncz.stores.quarantine import reason

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["HEAVY", "Outcomes", "weight_of"]

MANY = 256
"""Outcomes that are recorded by one call: what is made of them is made in one go."""
HEAVY = 262_144
"""Characters after which no more are: to pack them takes some milliseconds, in one go too."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


def _first_of(ends: Iterable[RunEnd]) -> list[RunEnd]:
    """As many as are not too much to be written at once."""
    first: list[RunEnd] = []
    weight = 0
    for end in ends:
        weight += sum(map(_weight, end.outcomes))
        if first and weight > HEAVY:
            break
        first.append(end)
    return first


def _weight(said: RunOutcome) -> int:
    """About how many characters there are to be written."""
    weight = len(said.traceback or "") + len(said.error or "")
    return weight + (weight_of(said.notes) if said.notes else 0)


def weight_of(notes: Mapping[str, Any]) -> int:
    """The same of what a run says of itself."""
    return MAX_RESULT * ("result" in notes) + sum(map(len, notes.get("log", ())))


class Outcomes:
    """What a store has still to be told of runs that ended here.

    Args:
        engine, alias, store: Whose.
        ask: Awaits an operation of the store, within the store timeout.
    """

    def __init__(
        self,
        engine: Engine,
        alias: str,
        store: ClusterStore,
        ask: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        self._engine = engine
        self._alias = alias
        self._store = store
        self._ask = ask
        self._ended: list[tuple[str, RunEnd]] = []
        self._released: list[tuple[str, RunRef]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self._is_failing = False

    def __bool__(self) -> bool:
        return bool(self._ended or self._released)

    @property
    def is_recording(self) -> bool:
        """Whether the store is being told, and has not failed to listen."""
        return self._flusher is not None and not self._is_failing

    def note_end(self, node_id: str, end: RunEnd) -> None:
        """A run of that node has ended."""
        self._ended.append((node_id, end))
        self._flush_soon()

    def note_release(self, node_id: str, ref: RunRef) -> None:
        """A run of that node is somebody else's to finish."""
        self._released.append((node_id, ref))
        self._flush_soon()

    def runs(self) -> set[RunRef]:
        """The runs that the store takes for open still."""
        return {end.ref for _, end in self._ended} | {ref for _, ref in self._released}

    def task_ids(self) -> set[str]:
        """Their tasks."""
        return {ref.task_id for ref in self.runs()}

    async def flush(self) -> None:
        """Tell the store now."""
        if not self:
            return
        async with self._flushing:
            while self._ended:
                node_id = self._ended[0][0]
                batch = _first_of(end for node, end in self._ended[:MANY] if node == node_id)
                try:
                    await self._finish(node_id, batch)
                except (StoreError, TimeoutError, OSError):
                    raise
                except Exception:
                    await self._finish_one_by_one(node_id, batch)
            while self._released:
                node_id, ref = self._released[0]
                await self._ask(self._store.release_runs(node_id, [ref]))
                del self._released[0]

    async def _finish(self, node_id: str, ends: Sequence[RunEnd]) -> None:
        counted = await self._ask(self._store.finish_runs(node_id, ends))
        done = set(map(id, ends))
        self._ended[:] = [pair for pair in self._ended if id(pair[1]) not in done]
        if not all(counted):
            self._tell_of([end for end, counts in zip(ends, counted, strict=False) if not counts])

    def _tell_of(self, ends: Sequence[RunEnd]) -> None:
        """These do not count: while they went on here, they have become somebody else's."""
        for ref, _ in ends:
            self._engine.logger.warning(
                "The run of the task %r due %s in the store %r has ended here, but is not this "
                "scheduler's any more: how it ends is recorded by whoever has taken it over.",
                ref.task_id,
                ref.scheduled_time,
                self._alias,
            )

    async def _finish_one_by_one(self, node_id: str, ends: Sequence[RunEnd]) -> None:
        """One of several cannot be written, perhaps: it must not keep back the others for ever."""
        for end in ends:
            try:
                await self._finish(node_id, [end])
            except (StoreError, TimeoutError, OSError):
                raise
            except Exception as exc:
                bare = [said._replace(notes=None) for said in end.outcomes]
                await self._ask(self._store.finish_runs(node_id, [RunEnd(end.ref, tuple(bare))]))
                # Only now it is known that the store is not to blame.
                self._ended[:] = [pair for pair in self._ended if pair[1] is not end]
                self._engine.logger.error(
                    "What a run of the task %r returned or said cannot be kept in the store %r; "
                    "the run is recorded without it: %s: %s",
                    end.ref.task_id,
                    self._alias,
                    type(exc).__name__,
                    reason(exc),
                )

    def stop(self) -> None:
        """Do not go on in the background."""
        if self._flusher is not None:
            self._flusher.cancel()

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = self._engine.loop.create_task(
                self._flush_on(), name=f"asyncz outcomes for {self._alias}"
            )

    async def _flush_on(self) -> None:
        pause = FIRST_PAUSE
        try:
            while self:
                try:
                    await self.flush()
                    pause = FIRST_PAUSE
                    self._is_failing = False
                except Exception as exc:
                    self._is_failing = True
                    self._engine.logger.warning(
                        "Outcomes of runs cannot be recorded in the store %r yet: %s",
                        self._alias,
                        reason(exc),
                    )
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._flusher = None
            self._is_failing = False
