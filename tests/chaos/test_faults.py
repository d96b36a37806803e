"""What is promised of runs is kept, on each store, whatever goes wrong with workers and servers."""

from __future__ import annotations

import pytest

from asyncz.enums import RunState
from tests.chaos.conftest import Hold
from tests.chaos.journal import as_fire
from tests.chaos.places import PLACES, SERVED
from tests.chaos.points import points_of
from tests.chaos.scenarios import make_trial, points
from tests.chaos.trial import Outcome
from tests.outages.backends import SQL_BACKENDS

SECONDS = 8.0
SEED = 7


def stores(fast: str, of: list[str]) -> pytest.MarkDecorator:
    """Run a test for these stores, and for the others of them at night.

    Args:
        fast: Their kinds, with spaces between.
        of: All that the test can be run for.
    """
    return pytest.mark.parametrize(
        "kind",
        [
            kind if kind in fast.split() else pytest.param(kind, marks=pytest.mark.nightly)
            for kind in of
        ],
    )


@stores("postgresql redis mongodb", PLACES)
async def test_workers_are_killed(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("killed", SECONDS, 28, SEED))

    assert len(outcome.evidence.fates.killed) == 28
    assert outcome.verdict.rerun > 0


@stores("sqlite", PLACES)
async def test_runs_are_started_at_most_once_although_workers_are_killed(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("killed-once", SECONDS, 28, SEED))

    assert outcome.verdict.rerun == 0
    # The mark may be made, and the worker killed before the first instruction of the user's.
    lost = outcome.verdict.excused[RunState.LOST.value]
    assert lost <= outcome.verdict.killed_runs + len(outcome.evidence.fates.killed)


@stores("redis", SERVED)
async def test_the_server_is_killed_too(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("server-killed", SECONDS, 10, SEED))


@stores("mariadb", SERVED)
async def test_nobody_is_taken_for_dead_because_the_server_was_frozen(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("frozen", SECONDS, 0, SEED))

    assert taken_over(outcome) == 0
    back = outcome.stage.marks["back"]
    starts = [entry.at for entry in outcome.evidence.journal if entry.word == "S"]
    assert min(at for at in starts if at > back) - back < 2.0


@stores("postgresql", SERVED)
async def test_replies_are_lost_and_workers_killed(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("replies-lost", SECONDS, 8, SEED))

    assert outcome.stage.proxy is not None
    assert outcome.stage.proxy.lost > 0


@stores("", SERVED)
async def test_all_connections_are_cut(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("cut", SECONDS, 10, SEED))


@stores("redis", PLACES)
async def test_a_worker_that_was_stopped_says_nothing_more_of_what_others_took_over(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("stopped", SECONDS, 0, SEED))

    assert taken_over(outcome) > 0
    # User code that was held up raises an error: only its worker would say that it failed.
    failed = [run for run in outcome.evidence.ledger if run.state is RunState.FAILED]
    assert [run for run in failed if run.token > 1] == []
    resumed = {pid: spans[-1][1] for pid, spans in outcome.evidence.fates.stopped.items()}
    works_on = {
        entry.pid
        for entry in outcome.evidence.journal
        if entry.word == "S" and entry.at > resumed.get(entry.pid, float("inf"))
    }
    assert works_on == set(resumed)


@stores("file", PLACES)
async def test_rolling_restarts_are_not_noticed(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("rolling", SECONDS, 20, SEED))

    assert set(outcome.evidence.fates.codes.values()) == {0}
    assert outcome.verdict.rerun == 0
    assert outcome.verdict.starts == outcome.verdict.expected
    assert outcome.verdict.lateness[-1] < 1.5


@stores("mongodb", PLACES)
async def test_two_releases_of_an_app_share_a_store(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("mixed", SECONDS, 4, SEED))

    new = {task.id for task in outcome.evidence.tasks if task.is_new}
    ran_by = {entry.pid for entry in outcome.evidence.journal if entry.task in new}
    assert ran_by
    assert not ran_by & outcome.stage.old_ones


@stores("mariadb", PLACES)
async def test_a_blocked_loop_does_not_look_like_a_dead_worker(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("blocked", SECONDS, 0, SEED))

    assert taken_over(outcome) == 0


@stores("redis", PLACES)
async def test_a_worker_in_which_no_thread_goes_on_is_taken_for_dead_and_notices_it(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("held", SECONDS, 0, SEED))

    entries = outcome.evidence.journal
    has_held = {(entry.task, entry.fire, entry.pid) for entry in entries if entry.word == "H"}
    assert taken_over(outcome) > 0
    # User code that has held the interpreter fails: of those that were taken over, only the new
    # owner may say so.
    last = {(entry.task, entry.fire): entry.pid for entry in entries if entry.word == "S"}
    for run in outcome.evidence.ledger:
        if run.state is RunState.FAILED and run.token > 1:
            fire = as_fire(run.scheduled_time)
            assert (run.task_id, fire, last[run.task_id, fire]) in has_held
    assert "was not heard of in the store" in outcome.log.read_text()


@stores("sqlite postgresql", PLACES)
async def test_workers_die_at_each_point_of_all_that_they_ask_for(
    kind: str, hold_trial: Hold
) -> None:
    left = set(points_of(kind))
    for _ in range(3):  # one is enough, unless the machine is slow
        outcome = await hold_trial(kind, points(SECONDS, 0, sorted(left)))
        left -= {entry.task for entry in outcome.evidence.journal if entry.word == "K"}
        if not left:
            break

    assert left == set()


@stores("", SQL_BACKENDS)
async def test_a_claim_that_hangs_holds_up_its_own_tasks_only_and_not_for_long(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("held-claim", SECONDS, 0, SEED))

    figures = outcome.figures
    assert figures["of these run elsewhere"] == figures["held tasks"]
    assert figures["after s"] < 11
    # A machine that is busy makes all late, at all times.
    assert figures["others late p99 ms"] < max(100, 2 * figures["at other times p99 ms"])


@stores("", ["postgresql", "redis"])
async def test_by_default_runs_of_a_killed_worker_start_again_within_a_lease_and_a_third_of_it(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("recovery", SECONDS, 0, SEED))

    recovery = outcome.verdict.recovery
    assert len(outcome.evidence.fates.killed) == 5
    assert len(recovery) >= 50
    assert recovery[-1] <= 41
    assert recovery[len(recovery) // 2] <= 35


@stores("", ["postgresql", "redis"])
async def test_everything_at_once_for_a_while(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("soak", 60.0, 0, SEED))


@stores("mongodb", SERVED)
async def test_the_clocks_of_the_workers_jump(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("jumping", SECONDS, 8, SEED))

    assert outcome.verdict.excused[RunState.MISSED.value] == 0


@stores("sqlite postgresql redis", PLACES)
async def test_max_instances_counts_the_runs_of_all_workers(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("by-hand", 5.0, 12, SEED))

    assert outcome.verdict.starts > 100


@stores("sqlite postgresql redis", PLACES)
async def test_eight_workers_start_at_once_on_an_empty_store(kind: str, hold_trial: Hold) -> None:
    for _ in range(2):
        outcome = await hold_trial(kind, make_trial("starting", 1.0, 0, SEED))

        assert outcome.verdict.starts == outcome.verdict.expected
        assert set(outcome.evidence.fates.codes.values()) == {0}


def taken_over(outcome: Outcome) -> int:
    """How many runs of the ledger have changed hands."""
    return sum(run.token > 1 for run in outcome.evidence.ledger)
