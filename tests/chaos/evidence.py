"""What a trial leaves behind, and the first orders in it: who ran what from when to when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from asyncz.runs.base import Run
from asyncz.triggers import IntervalTrigger

from .fleet import Fates
from .journal import EPOCH, Entry, Fire, as_fire
from .worker import TaskPlan

__all__ = ["Evidence", "Stay", "add_own_fates", "expected_fires", "stays_of"]

Occurrence = tuple[str, Fire]

FOREVER = float("inf")
ENDS = ("F", "X")
A_MOMENT = 0.5
"""Seconds from the end of a run until it is recorded, at most."""


@dataclass
class Evidence:
    """All that the checker looks at.

    Args:
        tasks: Those with a schedule, and those that are run by hand only.
        journal: What the workers noted down.
        fates: What was done to them.
        ledger: The rows of the store, at the end.
        lease: Seconds.
        offset: What `time.monotonic` shows at the instant 0.
        by_hand: The ids of tasks whose runs were asked for by hand.
    """

    tasks: Sequence[TaskPlan]
    journal: Sequence[Entry]
    fates: Fates
    ledger: Sequence[Run]
    lease: float
    offset: float = 0.0
    by_hand: frozenset[str] = frozenset()


@dataclass
class Stay:
    """User code that ran once for an occurrence.

    Args:
        pid: Where.
        began, ended: From when to when; `ended` is when it was killed, if it was.
        word: How it ended: `F`, `X`, `killed`, or `open` if nobody knows.
        stopped: When its process was stopped for longer than a lease meanwhile; from then on
            others may run it too. When it began, if others had taken it over by then.
        gone: When its process was killed, then or later.
    """

    pid: int
    began: float
    ended: float = FOREVER
    word: str = "open"
    stopped: float = FOREVER
    gone: float = FOREVER

    @property
    def counts_until(self) -> float:
        """Until when nobody else may run it."""
        return min(self.ended, self.stopped)


def add_own_fates(fates: Fates, journal: Sequence[Entry]) -> None:
    """Add what workers did to themselves: they died, or held the interpreter, as if stopped."""
    last = {entry.pid: entry.at for entry in sorted(journal, key=lambda entry: entry.at)}
    holding: dict[int, float] = {}
    for entry in journal:
        if entry.word == "K":
            # What it wrote down while it was dying it had done before.
            fates.killed[entry.pid] = last[entry.pid]
        elif entry.word == "H":
            holding[entry.pid] = entry.at
        elif entry.word == "R":
            span = (holding.pop(entry.pid), entry.at)
            fates.stopped.setdefault(entry.pid, []).append(span)
    for pid, since in holding.items():
        gone = fates.killed.get(pid, fates.ended.get(pid, FOREVER))
        fates.stopped.setdefault(pid, []).append((since, gone))


def expected_fires(task: TaskPlan) -> list[Fire]:
    """The occurrences that the trigger of a task yields."""
    first, last = (EPOCH + timedelta(microseconds=at) for at in (task.first, task.last))
    trigger = IntervalTrigger(seconds=1, start_at=first, end_at=last)
    fires: list[Fire] = []
    moment = trigger.get_next_trigger_time(EPOCH.tzinfo, None, first)
    while moment is not None:
        fires.append(as_fire(moment))
        moment = trigger.get_next_trigger_time(EPOCH.tzinfo, moment, moment)
    return fires


def stays_of(evidence: Evidence) -> dict[Occurrence, list[Stay]]:
    """Of each occurrence, when and where it was run, by the time it began."""
    found: dict[Occurrence, list[Stay]] = defaultdict(list)
    going: dict[tuple[Occurrence, int], Stay] = {}
    for entry in sorted(evidence.journal, key=lambda entry: entry.at):
        occurrence = (entry.task, entry.fire)
        if entry.word == "S":
            stay = Stay(entry.pid, entry.at)
            found[occurrence].append(stay)
            going[occurrence, entry.pid] = stay
        elif entry.word in ENDS and (stay_there := going.pop((occurrence, entry.pid), None)):
            stay_there.ended, stay_there.word = entry.at, entry.word
    fates = evidence.fates
    for (_, pid), stay in going.items():
        gone = fates.killed.get(pid, fates.ended.get(pid))
        if gone is not None:
            stay.ended, stay.word = gone, "killed"
    owners = _new_owners(evidence.ledger)
    for occurrence, stays in found.items():
        for stay in stays:
            stay.stopped = _stopped_during(stay, evidence)
            if owners.get(occurrence, stay.pid) != stay.pid and _was_away(stay, evidence):
                # It was taken over meanwhile, as one of several that one call carries out.
                stay.stopped = stay.began
            stay.gone = fates.killed.get(stay.pid, FOREVER)
    return dict(found)


def _new_owners(ledger: Sequence[Run]) -> dict[Occurrence, int]:
    """The processes that have taken occurrences over from others."""
    return {
        (run.task_id, as_fire(run.scheduled_time)): int(run.owner.split("-")[-2])
        for run in ledger
        if run.token > 1 and run.owner
    }


def _was_away(stay: Stay, evidence: Evidence) -> bool:
    """Whether a process had been stopped for long before it began with this."""
    spans = evidence.fates.stopped.get(stay.pid, ())
    return any(until - since > evidence.lease / 2 and until <= stay.began for since, until in spans)


def _stopped_during(stay: Stay, evidence: Evidence) -> float:
    long_ones = [
        since
        for since, until in evidence.fates.stopped.get(stay.pid, ())
        if until - since > evidence.lease / 2
        and since < stay.ended + A_MOMENT
        and until > stay.began
    ]
    return min(long_ones, default=FOREVER)
