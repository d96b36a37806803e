"""The accounts of a trial: what was lost, doubled, overlapping, late or left open.

It reads nothing but what the workers noted down, what was done to them, and the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from asyncz.enums import RunState
from asyncz.runs.base import Run

from .evidence import FOREVER, Evidence, Occurrence, Stay, expected_fires, stays_of
from .journal import as_fire
from .worker import TaskPlan

__all__ = ["Verdict", "check"]

RAN = frozenset({RunState.SUCCEEDED, RunState.FAILED})
MAY_HAVE_RUN = frozenset({RunState.LOST, RunState.ABANDONED, RunState.CANCELLED})
GIVEN_UP = frozenset({RunState.LOST, RunState.CANCELLED})
SECOND = 1_000_000


@dataclass
class Verdict:
    """What the checker says. All of the first ones have to be 0.

    Args:
        lost: Occurrences without a start and without a row that says why.
        doubled_alive: Second starts while the first owner lived and had not been cut off.
        doubled_once: Second starts of `at_most_once` tasks.
        overlaps: Moments when more runs of a task went on than `max_instances`.
        left_open: Rows that are claimed, queued or running though all is over.
        untrue: Rows that the journal contradicts, and starts without a row.
        expected: Occurrences that the triggers yield.
        starts: How often user code was called.
        rerun: Starts after a worker was killed or shut down.
        rerun_stale: Second starts of what a stopped worker had begun, which are allowed.
        excused: Rows of what was not run, by state.
        lateness: Seconds between due and first start, sorted; without those held up by a fault.
        recovery: Seconds from a kill to the next start of what it cut off, sorted.
        killed_runs: Runs that a kill cut off.
        broken: What of the fault's own promises was not kept, in words.
        details: Some of what is wrong, in words.
    """

    lost: int = 0
    doubled_alive: int = 0
    doubled_once: int = 0
    overlaps: int = 0
    left_open: int = 0
    untrue: int = 0
    expected: int = 0
    starts: int = 0
    rerun: int = 0
    rerun_stale: int = 0
    killed_runs: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    lateness: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether all promises were kept."""
        wrong = (self.lost, self.doubled_alive, self.doubled_once, self.overlaps)
        return not (any(wrong) or self.left_open or self.untrue or self.broken)

    def complain(self, what: str) -> None:
        """Note down something that is wrong."""
        self.details.append(what)

    def __str__(self) -> str:
        word = "kept" if self.is_good else "BROKEN"
        excused = ", ".join(f"{n} {state}" for state, n in sorted(self.excused.items()))
        line = (
            f"{word}: {self.expected} expected, {self.starts} starts, {self.lost} lost, "
            f"{self.doubled_alive} doubled alive, {self.doubled_once} at_most_once twice, "
            f"{self.overlaps} overlaps, {self.left_open} left open, {self.untrue} untrue; "
            f"{self.rerun} run again, {self.rerun_stale} beside a stale owner; "
            f"not run: {excused or 'none'}; late p50 {milliseconds(self.lateness, 0.5)} "
            f"p99 {milliseconds(self.lateness, 0.99)} ms; "
            f"again after p50 {quantile(self.recovery, 0.5):.1f} "
            f"max {quantile(self.recovery, 1):.1f} s"
        )
        return "\n  ".join([line, *self.broken, *self.details[:20]])


def quantile(values: list[float], share: float) -> float:
    """Of sorted values; 0 if there are none."""
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def milliseconds(values: list[float], share: float) -> str:
    """A quantile for people."""
    return f"{1000 * quantile(values, share):.0f}"


def check(evidence: Evidence) -> Verdict:
    """Look at everything."""
    verdict = Verdict()
    stays = stays_of(evidence)
    _check_accounts(evidence, stays, verdict)
    _check_rows(evidence, stays, verdict)
    for task in evidence.tasks:
        mine = {
            occurrence: list_ for occurrence, list_ in stays.items() if occurrence[0] == task.id
        }
        _check_doubles(task, mine, verdict)
        _check_overlaps(task, mine, verdict)
    _measure(evidence, stays, verdict)
    return verdict


def _check_accounts(
    evidence: Evidence, stays: dict[Occurrence, list[Stay]], verdict: Verdict
) -> None:
    """Each occurrence was started, or there is one row that says why not."""
    reasons = _reasons(evidence)
    for task in evidence.tasks:
        if task.id in evidence.by_hand:
            continue
        expected = expected_fires(task)
        verdict.expected += len(expected)
        for fire in expected:
            was_started = (task.id, fire) in stays
            if not was_started and not reasons[task.id, fire]:
                verdict.lost += 1
                verdict.complain(f"lost: {task.id} {fire}")
        strange = {f for name, f in stays if name == task.id} - set(expected)
        for fire in strange:
            verdict.untrue += 1
            verdict.complain(f"started, but not due: {task.id} {fire}")


def _reasons(evidence: Evidence) -> Counter[Occurrence]:
    """How many rows say of an occurrence that it was not run, or may not have been."""
    found: Counter[Occurrence] = Counter()
    for run in evidence.ledger:
        if run.state in RAN or run.state is RunState.CANCELLED or run.state.is_open:
            continue  # nothing in a trial is a reason to cancel what was not started
        for occurrence in _stands_for(run):
            found[occurrence] += 1
    return found


def _stands_for(run: Run) -> Iterator[Occurrence]:
    first = as_fire(run.scheduled_time)
    last = first if run.last_scheduled_time is None else as_fire(run.last_scheduled_time)
    for fire in range(first, last + 1, SECOND):
        yield run.task_id, fire


def _check_rows(evidence: Evidence, stays: dict[Occurrence, list[Stay]], verdict: Verdict) -> None:
    """Each row is true, and there is one for each occurrence."""
    rows: Counter[Occurrence] = Counter()
    again = {task.id for task in evidence.tasks if task.delivery == "at_least_once"}
    for run in evidence.ledger:
        occurrences = list(_stands_for(run))
        rows.update(occurrences)
        starts = [stay for occurrence in occurrences for stay in stays.get(occurrence, ())]
        wrong = _what_is_wrong(run, len(occurrences), starts)
        if run.task_id in again and run.state in GIVEN_UP:
            wrong = "at_least_once, but not started again"
        if wrong:
            verdict.untrue += 1
            verdict.complain(f"{wrong}: {run!r}")
        if run.state.is_open:
            verdict.left_open += 1
            verdict.complain(f"left open: {run!r}")
        elif run.state not in RAN:
            verdict.excused[run.state.value] += len(occurrences)
    for occurrence in stays:
        if not rows[occurrence]:
            verdict.untrue += 1
            verdict.complain(f"started, but not in the ledger: {occurrence}")
    for occurrence, number in rows.items():
        if number > 1:
            verdict.untrue += 1
            verdict.complain(f"{number} rows: {occurrence}")


def _what_is_wrong(run: Run, number: int, starts: list[Stay]) -> str:
    if run.occurrences != number:
        return f"it stands for {number}"
    if run.state is RunState.SUCCEEDED and not any(stay.word == "F" for stay in starts):
        return "nobody has finished it"
    if run.state not in RAN | MAY_HAVE_RUN and not run.state.is_open and starts:
        return "it was started"
    return ""


def _check_doubles(task: TaskPlan, stays: dict[Occurrence, list[Stay]], verdict: Verdict) -> None:
    for occurrence, list_ in stays.items():
        if task.delivery == "at_most_once" and len(list_) > 1:
            verdict.doubled_once += len(list_) - 1
            verdict.complain(f"at_most_once, {len(list_)} starts: {occurrence} {list_}")
            continue
        for before, after in pairwise(list_):
            if (before.word == "killed" and before.ended <= after.began) or before.word == "X":
                verdict.rerun += 1
            elif min(before.stopped, after.stopped) <= after.began:
                verdict.rerun_stale += 1
            elif before.word == "F" and _is_gone(before, after):
                verdict.rerun += 1
            else:
                verdict.doubled_alive += 1
                verdict.complain(f"doubled: {occurrence} {before} {after}")


def _is_gone(before: Stay, after: Stay) -> bool:
    """Whether a worker was killed after it had finished a run and before that was recorded."""
    return before.gone <= after.began


def _check_overlaps(task: TaskPlan, stays: dict[Occurrence, list[Stay]], verdict: Verdict) -> None:
    """Never do more runs of a task go on than its `max_instances`, on all workers together."""
    changes: list[tuple[float, int]] = []
    for stay in (stay for list_ in stays.values() for stay in list_):
        changes += [(stay.began, 1), (stay.counts_until, -1)]
    going = 0
    for at, change in sorted(changes):
        going += change
        if change > 0 and going > task.max_instances:
            verdict.overlaps += 1
            verdict.complain(f"{going} runs of {task.id} at {at:.3f}")


def _measure(evidence: Evidence, stays: dict[Occurrence, list[Stay]], verdict: Verdict) -> None:
    verdict.starts = sum(map(len, stays.values()))
    scheduled = {task.id for task in evidence.tasks} - evidence.by_hand
    late = [
        list_[0].began - (occurrence[1] / SECOND + evidence.offset)
        for occurrence, list_ in stays.items()
        if occurrence[0] in scheduled
    ]
    verdict.lateness = sorted(late)
    for list_ in stays.values():
        verdict.killed_runs += sum(stay.word == "killed" for stay in list_)
        verdict.recovery += _recoveries(list_)
    verdict.recovery.sort()


def _recoveries(stays: Iterable[Stay]) -> Iterator[float]:
    for before, after in pairwise(stays):
        if before.word == "killed" and before.ended != FOREVER:
            yield after.began - before.ended
