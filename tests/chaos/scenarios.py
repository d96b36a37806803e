"""The trials that there are, by name, for a length and a number of kills."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial

from asyncz import History, Retry
from asyncz.tasks.base import Task
from asyncz.triggers import IntervalTrigger

from .crashes import die_at_points, kill_busy_workers, stop_in_claims
from .faults import (
    cut_connections,
    drop_replies,
    freeze_server,
    kill_server,
    kill_workers,
    restart_workers,
    run_old_release,
    stop_workers,
)
from .measures import (
    measure_held_claim,
    measure_points,
    measure_soak,
    watch_memory,
    watch_rows,
)
from .promises import (
    all_ended_by_themselves,
    all_was_started,
    at_most_once,
    each_point_was_reached,
    holds_up_its_own_only,
    is_run_again,
    nobody_was_buried,
    nothing_was_missed,
    nothing_was_taken_over,
    only_the_new_ran_the_new,
    others_carry_on_within,
    punctual,
    recovers_within_a_lease,
    replies_were_lost,
    resumes_within,
    slots_are_free_again,
    stale_owners_fall_silent,
    stops_when_told,
    was_noticed,
)
from .trial import Trial, plan_tasks
from .work import talk
from .worker import TaskPlan

__all__ = ["ALONE", "FAULTS", "FOR_SERVERS", "FOR_SQL", "LIMITED", "make_trial", "points"]

LIMITED = ("limited-1", "limited-3")
"""Tasks that are run by hand, and how often at once."""
SKEWS = (-3_600.0, -90.0, 0.0, 90.0, 3_600.0)
"""Seconds by which the clocks of workers are wrong."""
HELD_FOR = 13.0
"""Seconds for which a worker stops in a transaction: longer than a server lets it be idle."""


def killed(seconds: float, kills: int) -> Trial:
    """Workers are killed."""
    return Trial(seconds, plan_tasks, [kill_workers(kills)], promises=[is_run_again])


def killed_once(seconds: float, kills: int) -> Trial:
    """The same, and no run may be started twice."""
    tasks = partial(plan_tasks, delivery="at_most_once")
    return Trial(seconds, tasks, [kill_workers(kills)], promises=[at_most_once])


def server_killed(seconds: float, kills: int) -> Trial:
    """The server is killed three times, and workers too."""
    return Trial(seconds, plan_tasks, [kill_server(3), kill_workers(kills)])


def frozen(seconds: float, kills: int) -> Trial:
    """The server is frozen for three leases while runs go on; nobody is killed."""
    tasks = partial(plan_tasks, longest=1.5)
    promises = [nothing_was_taken_over, nobody_was_buried, resumes_within(2.0)]
    return Trial(max(seconds, 10), tasks, [freeze_server(3)], promises=promises)


def replies_lost(seconds: float, kills: int) -> Trial:
    """One reply in fifty is lost with its connection; workers are killed too."""
    faults = [drop_replies(0.02), kill_workers(kills)]
    return Trial(seconds, plan_tasks, faults, with_proxy=True, promises=[replies_were_lost])


def cut(seconds: float, kills: int) -> Trial:
    """All connections are cut, as often as workers are killed."""
    return Trial(seconds, plan_tasks, [cut_connections(kills)], with_proxy=True)


def stopped(seconds: float, kills: int) -> Trial:
    """Workers are stopped for three leases, two at a time, and go on then: 12 in 48 s."""
    times = max(1, int(seconds / 8))
    tasks = partial(plan_tasks, longest=1.0)
    faults = [stop_workers(times, 3), stop_workers(times, 3)]
    return Trial(max(seconds, 9), tasks, faults, promises=[stale_owners_fall_silent])


def rolling(seconds: float, kills: int) -> Trial:
    """Workers are told to end, and others start and declare the same tasks."""
    promises = [
        all_ended_by_themselves, all_was_started, others_carry_on_within(1.5), stops_when_told,
    ]  # fmt: skip
    faults = [restart_workers(kills)]
    return Trial(seconds, plan_tasks, faults, declares=True, promises=promises)


def told_twice(seconds: float, kills: int) -> Trial:
    """Workers are told to end, and soon again, while runs go on; others start."""
    tasks = partial(plan_tasks, longest=1.5)
    return Trial(seconds, tasks, [restart_workers(kills, again=0.2)], promises=[stops_when_told])


def starting(seconds: float, kills: int) -> Trial:
    """Eight workers start at once on an empty store, and declare the same tasks."""
    return Trial(
        seconds, partial(plan_tasks, count=10), workers=8, declares=True, on_empty=True,
        promises=[all_ended_by_themselves, all_was_started],
    )  # fmt: skip


def mixed(seconds: float, kills: int) -> Trial:
    """Two workers of the old release of an app, two of the new one, which has more tasks."""

    def tasks(first: int, seconds: float) -> list[TaskPlan]:
        plans = plan_tasks(first, seconds)
        return [plan._replace(is_new=number % 2 == 0) for number, plan in enumerate(plans)]

    faults, promises = [run_old_release(2, kills)], [only_the_new_ran_the_new]
    return Trial(seconds, tasks, faults, workers=2, promises=promises)


def blocked(seconds: float, kills: int) -> Trial:
    """User code blocks the event loop for longer than the lease, now and then."""
    return Trial(seconds, partial(plan_tasks, block=3.0), promises=[nothing_was_taken_over])


def jumping(seconds: float, kills: int) -> Trial:
    """The wall clock of each worker jumps by hours and days; workers are killed too."""
    faults = [kill_workers(kills)]
    return Trial(seconds, plan_tasks, faults, jumps=True, promises=[nothing_was_missed])


def skewed(seconds: float, kills: int) -> Trial:
    """The wall clocks of five workers are an hour or 90 s wrong, all the time; nobody is killed."""
    promises = [nothing_was_missed, nothing_was_taken_over, all_was_started, punctual]
    return Trial(seconds, plan_tasks, workers=len(SKEWS), skews=SKEWS, promises=promises)


def by_hand(seconds: float, kills: int) -> Trial:
    """Eight workers run two tasks by hand, again and again, and are killed."""

    def tasks(first: int, seconds: float) -> list[TaskPlan]:
        # Due by its schedule only when the trial is long over.
        never = first + 86_400_000_000
        one, three = LIMITED
        return [
            TaskPlan(one, never, never, 0.05),
            TaskPlan(three, never, never, 0.05, max_instances=3),
        ]

    return Trial(
        seconds, tasks, [kill_workers(kills)],
        workers=8, by_hand=LIMITED, promises=[slots_are_free_again],
    )  # fmt: skip


def held(seconds: float, kills: int) -> Trial:
    """C code holds the interpreter for longer than the lease, now and then: no thread goes on."""
    return Trial(seconds, partial(plan_tasks, hold=3.0), promises=[was_noticed])


def points(seconds: float, kills: int, which: Collection[str] = ()) -> Trial:
    """Workers die before, while and after they ask for something: at each point there is."""

    def tasks(first: int, seconds: float) -> list[TaskPlan]:
        plans = plan_tasks(first, seconds, longest=1.5)
        kinds = ("at_least_once", "at_most_once")
        return [plan._replace(delivery=kinds[n % 2]) for n, plan in enumerate(plans)]

    return Trial(
        seconds, tasks, [die_at_points(5, which)], workers=2, aside=_talking,
        measure=measure_points, promises=[each_point_was_reached],
    )  # fmt: skip


def _talking(first: int, seconds: float) -> list[Task]:
    """A task whose runs say how far they are, fail at first, and are forgotten soon."""
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (first / 1e6, first / 1e6 + seconds))
    return [
        Task(
            talk, id="aside", trigger=IntervalTrigger(seconds=0.2, start_at=begin, end_at=end),
            mistrigger_grace_time=None, max_instances=3,
            retry=Retry(attempts=2, wait=0.1), history=History(count=5),
        )
    ]  # fmt: skip


def held_claim(seconds: float, kills: int) -> Trial:
    """A worker is stopped within a transaction, when it has claimed something."""
    fault = stop_in_claims(HELD_FOR)
    return Trial(
        max(seconds, HELD_FOR + 5), plan_tasks, [fault],
        measure=measure_held_claim, promises=[holds_up_its_own_only],
    )  # fmt: skip


def recovery(seconds: float, kills: int) -> Trial:
    """With the options as they are by default, one of four workers is killed, five times.

    Each is on a machine of its own, and at least ten runs go on in it.
    """
    tasks = partial(plan_tasks, count=60, longest=20.0, delivery="at_least_once")
    return Trial(
        max(seconds, 240), tasks, [kill_busy_workers(5, 10)],
        lease=30.0, poll_interval=1.0, store_timeout=30.0, apart=True,
        promises=[recovers_within_a_lease],
    )  # fmt: skip


def soak(seconds: float, kills: int) -> Trial:
    """Everything at once, for long: kills, lost replies, stopped workers, a server that is killed.

    One worker is left alone, to see whether it grows.
    """
    faults = [
        kill_workers(int(seconds)),
        drop_replies(0.005),
        stop_workers(int(seconds / 30), 2.5, one_by_one=False),
        kill_server(max(1, int(seconds / 300))),
        watch_memory,
        watch_rows,
    ]
    return Trial(
        seconds, plan_tasks, faults, workers=5, spared=1, with_proxy=True,
        measure=measure_soak, promises=[replies_were_lost],
    )  # fmt: skip


FAULTS: dict[str, Callable[[float, int], Trial]] = {
    "killed": killed,
    "killed-once": killed_once,
    "server-killed": server_killed,
    "frozen": frozen,
    "replies-lost": replies_lost,
    "cut": cut,
    "stopped": stopped,
    "rolling": rolling,
    "told-twice": told_twice,
    "starting": starting,
    "mixed": mixed,
    "blocked": blocked,
    "jumping": jumping,
    "skewed": skewed,
    "by-hand": by_hand,
    "held": held,
    "points": points,
    "held-claim": held_claim,
    "recovery": recovery,
    "soak": soak,
}
FOR_SERVERS = frozenset(
    {"server-killed", "frozen", "replies-lost", "cut", "jumping", "skewed", "soak"}
)
"""Those that need a server; on a file all processes have the same clock."""
FOR_SQL = frozenset({"held-claim"})
"""Those that need one with transactions, of which several go on at once."""
ALONE = frozenset({"recovery", "soak"})
"""Those that take long, whatever is asked for, or are meant to: not among all of them."""


def make_trial(
    fault: str, seconds: float, kills: int, seed: int, apart: bool | None = None
) -> Trial:
    """The trial of that name.

    Args:
        fault, seconds, kills, seed: What goes wrong, for how long, how often, when and with whom.
        apart: Whether each worker is as on a machine of its own, so that only its lease tells
            that it is gone; None: as that trial has it.
    """
    trial = FAULTS[fault](seconds, kills)
    trial.seed = seed
    if apart is not None:
        trial.apart = apart
    return trial
