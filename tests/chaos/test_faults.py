"""What is promised of runs is kept, on each store, whatever goes wrong with workers and servers.

What each fault promises beside the accounts is in `promises.py`: a trial that does not keep it
fails here as on the command line.
"""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Hold
from tests.chaos.places import PLACES, SERVED
from tests.chaos.points import points_of
from tests.chaos.scenarios import make_trial, points
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


@stores("mongodb", PLACES)
async def test_workers_are_killed(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("killed", SECONDS, 28, SEED))

    assert len(outcome.evidence.fates.killed) == 28


@stores("postgresql redis", PLACES)
async def test_workers_are_killed_and_only_their_leases_tell(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("killed", SECONDS, 28, SEED, apart=True))

    assert len(outcome.evidence.fates.killed) == 28


@stores("sqlite", PLACES)
async def test_runs_are_started_at_most_once_although_workers_are_killed(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("killed-once", SECONDS, 28, SEED, apart=True))


@stores("redis", SERVED)
async def test_the_server_is_killed_too(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("server-killed", SECONDS, 10, SEED, apart=True))


@stores("mariadb", SERVED)
async def test_nobody_is_taken_for_dead_because_the_server_was_frozen(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("frozen", SECONDS, 0, SEED))


@stores("postgresql", SERVED)
async def test_replies_are_lost_and_workers_killed(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("replies-lost", SECONDS, 8, SEED, apart=True))


@stores("", SERVED)
async def test_all_connections_are_cut(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("cut", SECONDS, 10, SEED))


@stores("redis", PLACES)
async def test_a_worker_that_was_stopped_says_nothing_more_of_what_others_took_over(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("stopped", SECONDS, 0, SEED))


@stores("", PLACES)
async def test_twelve_workers_that_were_stopped_say_nothing_more(
    kind: str, hold_trial: Hold
) -> None:
    outcome = await hold_trial(kind, make_trial("stopped", 50.0, 0, SEED))

    assert sum(map(len, outcome.evidence.fates.stopped.values())) == 12


@stores("file", PLACES)
async def test_rolling_restarts_are_not_noticed(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("rolling", SECONDS, 20, SEED))


@stores("", PLACES)
async def test_a_hundred_rolling_restarts_are_not_noticed(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("rolling", 45.0, 100, SEED))

    assert len(outcome.evidence.fates.told) >= 100


@stores("redis", PLACES)
async def test_a_worker_that_is_told_twice_ends_at_once(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("told-twice", 3.0, 6, SEED))

    assert any(len(moments) > 1 for moments in outcome.evidence.fates.told.values())


@stores("mongodb", PLACES)
async def test_two_releases_of_an_app_share_a_store(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("mixed", SECONDS, 4, SEED))


@stores("mariadb", PLACES)
async def test_a_blocked_loop_does_not_look_like_a_dead_worker(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("blocked", SECONDS, 0, SEED))


@stores("redis", PLACES)
async def test_a_worker_in_which_no_thread_goes_on_is_taken_for_dead_and_notices_it(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("held", SECONDS, 0, SEED))


@stores("postgresql", PLACES)
async def test_workers_die_at_each_point_of_all_that_they_ask_for(
    kind: str, hold_trial: Hold
) -> None:
    left = set(points_of(kind))
    for _ in range(3):  # two are enough, unless the machine is slow
        outcome = await hold_trial(kind, points(SECONDS, 0, sorted(left)))
        left -= {entry.task for entry in outcome.evidence.journal if entry.word == "K"}
        if not left:
            break

    assert left == set()


@stores("", SQL_BACKENDS)
async def test_a_claim_that_hangs_holds_up_its_own_tasks_only_and_not_for_long(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("held-claim", SECONDS, 0, SEED))


@stores("", ["postgresql", "redis"])
async def test_by_default_runs_of_a_killed_worker_start_again_within_a_lease_and_a_third_of_it(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("recovery", SECONDS, 0, SEED))


@stores("", ["postgresql", "redis"])
async def test_everything_at_once_for_a_while(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("soak", 60.0, 0, SEED))


@stores("mongodb", SERVED)
async def test_the_clocks_of_the_workers_jump(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("jumping", SECONDS, 8, SEED))


@stores("", SERVED)
async def test_the_clocks_of_the_workers_are_wrong_by_up_to_an_hour(
    kind: str, hold_trial: Hold
) -> None:
    await hold_trial(kind, make_trial("skewed", 30.0, 0, SEED))


@stores("sqlite postgresql redis", PLACES)
async def test_max_instances_counts_the_runs_of_all_workers(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("by-hand", 5.0, 12, SEED, apart=True))

    assert outcome.verdict.starts > 100


@stores("", ["redis"])
async def test_max_instances_counts_five_thousand_runs(kind: str, hold_trial: Hold) -> None:
    outcome = await hold_trial(kind, make_trial("by-hand", 60.0, 60, SEED, apart=True))

    assert outcome.verdict.starts >= 5_000


@stores("sqlite postgresql redis", PLACES)
async def test_eight_workers_start_at_once_on_an_empty_store(kind: str, hold_trial: Hold) -> None:
    await hold_trial(kind, make_trial("starting", 1.0, 0, SEED))
