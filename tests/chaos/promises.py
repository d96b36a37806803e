"""What has to be true of a trial beside its accounts: each fault has its own promises.

Each says in words what was not as it was promised; nothing, if all is well.
"""

from __future__ import annotations

from collections.abc import Iterator

from asyncz.enums import RunState

from .checker import quantile
from .journal import as_fire
from .trial import Outcome, Promise
from .worker import CUT_OFF

__all__ = [
    "all_ended_by_themselves",
    "all_was_started",
    "at_most_once",
    "each_point_was_reached",
    "holds_up_its_own_only",
    "is_run_again",
    "nobody_was_buried",
    "nothing_was_missed",
    "nothing_was_taken_over",
    "only_the_new_ran_the_new",
    "others_carry_on_within",
    "punctual",
    "recovers_within_a_lease",
    "replies_were_lost",
    "resumes_within",
    "slots_are_free_again",
    "stale_owners_fall_silent",
    "stops_when_told",
    "was_noticed",
]

MANY = 10
"""Kills of which one at least cuts off a run that has to be run again."""
SETTLES_WITHIN = 11.0
"""Seconds beside a lease after which no slot is taken any more (`faults.md`, 12)."""
CLAIMS_FOR = 0.1
"""Seconds after SIGTERM in which user code may still begin (`faults.md`, 18)."""
EXITS_WITHIN = 2.0
"""Seconds beside the grace."""
HURRIES = 1.0
"""Seconds after a second SIGTERM."""
LATE = 0.1
"""Seconds that the latest of a hundred runs is late, at most."""
ALL_POINTS_IN = 12.0
"""Seconds in which workers come to each point, on a machine that has nothing else to do."""


def is_run_again(outcome: Outcome) -> Iterator[str]:
    """What was cut off is run again; if only leases tell, then not before they have run out."""
    verdict, trial = outcome.verdict, outcome.stage.trial
    if len(outcome.evidence.fates.killed) >= MANY and not verdict.rerun:
        yield "nothing was run again"
    # On a busy machine the lease of one that is killed may have run out nearly by itself.
    half = quantile(verdict.recovery, 0.5) if verdict.recovery else trial.lease
    if trial.apart and half < trial.lease / 2:
        yield f"run again after {half:.2f} s (p50), while leases had not run out"


def at_most_once(outcome: Outcome) -> Iterator[str]:
    """Nothing is run again; what is lost was going on when its worker was killed."""
    verdict = outcome.verdict
    if verdict.rerun:
        yield f"{verdict.rerun} run again, although at_most_once"
    # The mark may be made, and the worker killed before the first instruction of the user's.
    lost = verdict.excused[RunState.LOST.value]
    if lost > verdict.killed_runs + len(outcome.evidence.fates.killed):
        yield f"{lost} lost, but only {verdict.killed_runs} were going on when workers were killed"


def nothing_was_taken_over(outcome: Outcome) -> Iterator[str]:
    """No run has changed hands."""
    if taken := taken_over(outcome):
        yield f"{taken} runs were taken over, although nobody was gone"


def nobody_was_buried(outcome: Outcome) -> Iterator[str]:
    """The store knows of no worker that others have taken for dead."""
    if buried := outcome.stage.buried:
        yield f"taken for dead: {', '.join(buried)}"


def resumes_within(seconds: float) -> Promise:
    """So long after the server is back the first run begins."""

    def resumes(outcome: Outcome) -> Iterator[str]:
        back = outcome.stage.marks["back"]
        starts = [e.at for e in outcome.evidence.journal if e.word == "S" and e.at > back]
        took = min(starts, default=float("inf")) - back
        if took > seconds:
            yield f"the first run began {took:.1f} s after the server was back"

    return resumes


def replies_were_lost(outcome: Outcome) -> Iterator[str]:
    """The fault has happened."""
    proxy = outcome.stage.proxy
    if proxy is None or not proxy.lost:
        yield "no reply was lost"


def stale_owners_fall_silent(outcome: Outcome) -> Iterator[str]:
    """Of what was taken over, the worker that was stopped says nothing more; it works on."""
    evidence = outcome.evidence
    if not taken_over(outcome):
        yield "nothing was taken over"
    # User code that was held up raises an error: only its worker would say that it failed.
    failed = [run for run in evidence.ledger if run.state is RunState.FAILED and run.token > 1]
    for run in failed:
        yield f"a stale owner's word counted: {run!r}"
    for pid, spans in evidence.fates.stopped.items():
        if outcome.stage.ends - spans[-1][1] > HURRIES and not any(
            e.pid == pid and e.word == "S" and e.at > spans[-1][1] for e in evidence.journal
        ):
            yield f"the worker {pid} did not work on after it was stopped"


def was_noticed(outcome: Outcome) -> Iterator[str]:
    """A worker in which no thread went on is taken for dead, hears of it, and is not believed."""
    entries = outcome.evidence.journal
    has_held = {(entry.task, entry.fire, entry.pid) for entry in entries if entry.word == "H"}
    if not taken_over(outcome):
        yield "nothing was taken over"
    # User code that has held the interpreter fails: of those that were taken over, only the new
    # owner may say so.
    last = {(entry.task, entry.fire): entry.pid for entry in entries if entry.word == "S"}
    for run in outcome.evidence.ledger:
        if run.state is RunState.FAILED and run.token > 1:
            fire = as_fire(run.scheduled_time)
            if (run.task_id, fire, last[run.task_id, fire]) not in has_held:
                yield f"a stale owner's word counted: {run!r}"
    if "was not heard of in the store" not in outcome.log.read_text():
        yield "no worker has noticed that it was taken for dead"


def all_ended_by_themselves(outcome: Outcome) -> Iterator[str]:
    """Each worker has ended with the exit code 0."""
    if wrong := {pid: code for pid, code in outcome.evidence.fates.codes.items() if code}:
        yield f"exit codes: {wrong}"


def all_was_started(outcome: Outcome) -> Iterator[str]:
    """Each occurrence was started, once."""
    verdict = outcome.verdict
    if verdict.rerun:
        yield f"{verdict.rerun} run again"
    if verdict.starts != verdict.expected:
        yield f"{verdict.starts} starts, not {verdict.expected}"


def others_carry_on_within(seconds: float) -> Promise:
    """No run is later than that."""

    def carry_on(outcome: Outcome) -> Iterator[str]:
        latest = max(outcome.verdict.lateness, default=0.0)
        if latest > seconds:
            yield f"a run was {latest:.2f} s late"

    return carry_on


def stops_when_told(outcome: Outcome) -> Iterator[str]:
    """After SIGTERM no user code begins, and the process ends in time; at once after a second."""
    fates, plan = outcome.evidence.fates, outcome.stage.fleet.plan
    late = [
        (entry.pid, entry.at - fates.told[entry.pid][0])
        for entry in outcome.evidence.journal
        if entry.word == "S" and entry.pid in fates.told
    ]
    # A machine that is busy makes all late, what it is told included.
    latest = quantile(outcome.verdict.lateness, 0.99)
    for pid, after in late:
        if after > max(CLAIMS_FOR, 2 * latest):
            yield f"the worker {pid} began a run {1000 * after:.0f} ms after SIGTERM"
    for pid, (first, *more) in fates.told.items():
        if pid in fates.killed:
            continue
        took = fates.ended[pid] - first
        if took > plan.shutdown_timeout + EXITS_WITHIN:
            yield f"the worker {pid} ended {took:.1f} s after SIGTERM"
        if more and (took := fates.ended[pid] - more[0]) > HURRIES + latest:
            yield f"the worker {pid} ended {took:.1f} s after the second SIGTERM"
        if more and fates.codes[pid] not in (0, CUT_OFF):
            yield f"the worker {pid} ended with {fates.codes[pid]}"


def only_the_new_ran_the_new(outcome: Outcome) -> Iterator[str]:
    """What only the new release knows was run, and by its workers only."""
    new = {task.id for task in outcome.evidence.tasks if task.is_new}
    ran_by = {entry.pid for entry in outcome.evidence.journal if entry.task in new}
    if not ran_by:
        yield "nothing new was run"
    if old := ran_by & outcome.stage.old_ones:
        yield f"the old workers {old} have run what they do not know"


def each_point_was_reached(outcome: Outcome) -> Iterator[str]:
    """Workers have died at each point, if there was time for it."""
    missing = outcome.figures["not reached"]
    if missing and outcome.stage.trial.seconds >= ALL_POINTS_IN:
        yield f"{missing:g} points were not reached"


def holds_up_its_own_only(outcome: Outcome) -> Iterator[str]:
    """What a worker claims that hangs is run elsewhere, and nothing else waits for it."""
    figures = outcome.figures
    if figures["of these run elsewhere"] != figures["held tasks"]:
        yield "what was held was not run elsewhere"
    if figures["after s"] >= 11:
        yield f"what was held was run elsewhere after {figures['after s']:.1f} s"
    # A machine that is busy makes all late, at all times.
    if figures["others late p99 ms"] >= max(100, 2 * figures["at other times p99 ms"]):
        yield f"others were {figures['others late p99 ms']:.0f} ms late"


def recovers_within_a_lease(outcome: Outcome) -> Iterator[str]:
    """With a lease of 30 s: what was cut off starts again within 41 s, half of it within 35 s."""
    recovery, killed = outcome.verdict.recovery, outcome.evidence.fates.killed
    if len(killed) != 5 or len(recovery) < 50:
        yield f"{len(killed)} kills have cut off {len(recovery)} runs, too few"
    for share, most in ((1.0, 41.0), (0.5, 35.0)):
        if (took := quantile(recovery, share)) > most:
            yield f"again after {took:.1f} s"


def nothing_was_missed(outcome: Outcome) -> Iterator[str]:
    """However wrong the clock of a worker is, no run seems to be too late."""
    if missed := outcome.verdict.excused[RunState.MISSED.value]:
        yield f"{missed} missed"


def punctual(outcome: Outcome) -> Iterator[str]:
    """By the store's clock, 99 of 100 runs begin in time."""
    if (late := quantile(outcome.verdict.lateness, 0.99)) > LATE:
        yield f"{1000 * late:.0f} ms late (p99)"


def slots_are_free_again(outcome: Outcome) -> Iterator[str]:
    """A lease and a while after the last kill no run is open."""
    stage = outcome.stage
    last = max([stage.ends, *outcome.evidence.fates.killed.values()])
    if (took := stage.marks["settled"] - last) > stage.trial.lease + SETTLES_WITHIN:
        yield f"slots were taken for {took:.1f} s after the end"


def taken_over(outcome: Outcome) -> int:
    """How many runs of the ledger have changed hands."""
    return sum(run.token > 1 for run in outcome.evidence.ledger)
