"""Whose turn a due task is, where several schedulers share a store; and when the next is ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import heappop, heappush

from asyncz.clock import Clock
from asyncz.tasks.base import Task
from asyncz.triggers.base import in_utc

__all__ = ["Rota"]

PATIENCE = (0.0, 0.025, 0.25)
"""Seconds for which a node leaves a due task to those whose turn comes before its own: to nobody,
to one, to two or more of them. The second is there for when the first is not; the others, that
seldom have to, look so late that they mostly know by then."""
ABSENCE = 2.0
"""Seconds for which one that has let its turn pass is not waited for."""
ODD = 0x9E3779B97F4A7C15
"""2**64 by the golden ratio: what is multiplied by it is spread over the 64 bits of `MASK`."""
MASK = 2**64 - 1
A_LOOK = timedelta(seconds=0.9)
"""Within that, nearly all have looked at the store, and know what was changed in it. Not a whole
second: who is due every second is to have its turns, too."""


class Rota:
    """The due tasks of one store, divided among its nodes without a word between them.

    If all of them went for each task, all but one would have woken, asked and claimed in vain. So
    an occurrence belongs first to the node that comes first by a hash of both (rendezvous hashing:
    who shares a list of nodes agrees, and a node that is gone takes nobody else's turn along). It
    is advice and no more. Lists may differ, and a node may be paused, or full, or about to be
    declared dead: then two meet, of whom one loses a claim, or a run starts a few turns late.

    Args:
        clock: Whose `monotonic` says how long somebody has been absent.
        me: The id of the node that this scheduler is now.
    """

    def __init__(self, clock: Clock, me: Callable[[], str]) -> None:
        self._clock = clock
        self._me = me
        self._seeds: dict[str, int] = {}
        """Of the nodes that are alive, by their ids."""
        self._absent_until: dict[str, float] = {}
        self._ahead: dict[str, tuple[datetime, datetime]] = {}
        """Of tasks that will be due: when, and when it is this node's turn."""
        self._told: list[datetime] = []
        """A heap of the instants at which tasks are due that were added or changed here."""
        self._mine: set[datetime] = set()
        """Those instants of which nobody else may know so early. All are in UTC: in another zone,
        Python compares them by the clock on the wall, which goes back once a year."""
        self.known_until: datetime | None = None
        """What is due before this instant was read; None: nothing was."""
        self.is_disputed = False
        """Whether the list of nodes does not seem to be that of the others."""

    # Who there is.

    def see(self, node_ids: Iterable[str]) -> None:
        """These nodes are alive."""
        self._seeds = {node_id: _hash(node_id) for node_id in node_ids}
        self.is_disputed = False
        for gone in self._absent_until.keys() - self._seeds:
            del self._absent_until[gone]

    def lost(self) -> None:
        """Somebody was first where it was this node's turn."""
        self._absent_until.clear()
        self.is_disputed = True

    def _miss(self, nodes: Sequence[str]) -> None:
        """These have let a turn pass."""
        until = self._clock.monotonic() + ABSENCE
        self._absent_until.update(dict.fromkeys(nodes, until))
        self.is_disputed = True

    def _before_me(self, task_id: str, moment: datetime) -> list[str]:
        """The nodes whose turn an occurrence is before it is this one's."""
        me = self._me()
        is_alone = not self._seeds or (len(self._seeds) == 1 and me in self._seeds)
        if is_alone or moment in self._mine:
            return []
        about = _hash(f"{moment.timestamp()} {task_id}")
        mine = _weight(about, self._seeds.get(me) or _hash(me))
        before = [
            node_id
            for node_id, seed in self._seeds.items()
            if _weight(about, seed) > mine and node_id != me
        ]
        if self._absent_until:
            now = self._clock.monotonic()
            before = [node_id for node_id in before if self._absent_until.get(node_id, now) <= now]
        return before

    # What is due.

    def forget(self) -> None:
        """The store is about to be looked at: what was known is nothing to go by any more."""
        self.known_until = None
        self._ahead = {}
        self._told = []

    def read(self, ahead: Sequence[Task], now: datetime, until: datetime) -> None:
        """These and no others are due before an instant, as far as anybody has said."""
        self.known_until = in_utc(until)
        self._mine = {moment for moment in self._mine if moment > now - A_LOOK}
        self._ahead = {}
        for task in ahead:
            self._expect(str(task.id), _due(task))

    def _expect(self, task_id: str, moment: datetime) -> None:
        self._ahead[task_id] = moment, _turn(moment, self._before_me(task_id, moment))

    def ours(self, due: Sequence[Task], now: datetime) -> list[Task]:
        """Of all that is due, what it is this node's turn to hand over; the rest is seen to later.

        What was to be due by now and is not has been seen to by somebody else.
        """
        ours: list[Task] = []
        self._ahead = {task_id: at for task_id, at in self._ahead.items() if at[0] > now}
        for task in due:
            moment = _due(task)
            before = self._before_me(str(task.id), moment)
            turn = _turn(moment, before)
            if turn > now:
                self._ahead[str(task.id)] = moment, turn
                continue
            ours.append(task)
            if before:
                self._miss(before)
        while self._told and self._told[0] <= now:
            heappop(self._told)
        return ours

    def follow(self, again: Iterable[tuple[str, datetime | None]], now: datetime) -> None:
        """Tasks that were handed over here are due again, of which others may not know so early."""
        for task_id, moment in again:
            if moment is None:
                continue
            moment = in_utc(moment)
            if moment < now + A_LOOK:
                self._mine.add(moment)
            if self.known_until is not None and moment < self.known_until:
                self._expect(task_id, moment)

    def tell(self, moment: datetime, heard_at: datetime) -> bool:
        """A task was added or changed here, of which others have heard by an instant.

        Returns:
            Whether that is taken into account, so that the store need not be looked at.
        """
        moment = in_utc(moment)
        if moment < heard_at:
            self._mine.add(moment)
        if self.known_until is None or moment >= self.known_until:
            return False
        heappush(self._told, moment)
        return True

    def next_turn(self) -> datetime | None:
        """When there may be something for this node to hand over, as far as is known."""
        turns = [turn for _, turn in self._ahead.values()]
        turns += self._told[:1]
        if self.known_until is not None:
            turns.append(self.known_until)
        return min(turns, default=None)


def _due(task: Task) -> datetime:
    return in_utc(task.next_run_time)  # type: ignore[arg-type]  # it is due, or will be


def _turn(moment: datetime, before: Sequence[str]) -> datetime:
    """When it is the turn of the node behind these."""
    return moment + timedelta(seconds=PATIENCE[min(len(before), len(PATIENCE) - 1)])


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def _weight(about: int, seed: int) -> int:
    """What decides between nodes: as good as a hash of both, and many times faster."""
    mixed = (about ^ seed) * ODD & MASK
    return (mixed ^ mixed >> 32) * ODD & MASK
