"""The checker finds what it is there for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asyncz.enums import RunState
from asyncz.runs.base import Run
from tests.chaos.checker import Verdict, check
from tests.chaos.evidence import Evidence, add_own_fates
from tests.chaos.fleet import Fates
from tests.chaos.journal import Entry, as_fire
from tests.chaos.worker import TaskPlan

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FIRST = as_fire(NOON)
OFFSET = -FIRST / 1e6
"""Noon is the moment 0."""


def plan(**options: object) -> TaskPlan:
    """A task that is due at noon and a second later."""
    return TaskPlan("t", FIRST, FIRST + 1_000_000, 0.1)._replace(**options)  # type: ignore[arg-type]


def row(second: int, state: RunState = RunState.SUCCEEDED, **options: object) -> Run:
    """A row of the ledger."""
    return Run(task_id="t", scheduled_time=NOON + timedelta(seconds=second), state=state, **options)  # type: ignore[arg-type]


def entry(word: str, second: int, pid: int, at: float) -> Entry:
    """A line of the journal."""
    return Entry(word, "t", FIRST + second * 1_000_000, pid, at)


def ran(second: int, pid: int = 1, at: float | None = None) -> list[Entry]:
    """A run that took 0.1 s."""
    began = second + 0.01 if at is None else at
    return [entry("S", second, pid, began), entry("F", second, pid, began + 0.1)]


def judge(
    journal: list[Entry],
    ledger: list[Run],
    task: TaskPlan | None = None,
    fates: Fates | None = None,
) -> Verdict:
    """The verdict on that."""
    return check(Evidence([task or plan()], journal, fates or Fates(), ledger, 2.0, OFFSET))


def test_all_is_well() -> None:
    verdict = judge([*ran(0), *ran(1)], [row(0), row(1)])

    assert verdict.is_good
    assert (verdict.expected, verdict.starts) == (2, 2)
    assert [round(late, 3) for late in verdict.lateness] == [0.01, 0.01]


def test_an_occurrence_that_nobody_knows_of_is_lost() -> None:
    assert judge(ran(0), [row(0)]).lost == 1


def test_an_occurrence_is_not_lost_if_a_row_says_why() -> None:
    verdict = judge(ran(0), [row(0), row(1, RunState.SKIPPED)])

    assert verdict.is_good
    assert verdict.excused == {"skipped": 1}


def test_a_row_may_stand_for_several() -> None:
    last = NOON + timedelta(seconds=1)
    folded = row(0, RunState.MISSED, occurrences=2, last_scheduled_time=last)

    assert judge([], [folded]).is_good
    assert not judge([], [folded.model_copy(update={"occurrences": 3})]).is_good


def test_a_second_start_while_the_first_owner_lives_is_found() -> None:
    verdict = judge([*ran(0), *ran(0, pid=2, at=0.5), *ran(1)], [row(0), row(1)])

    assert verdict.doubled_alive == 1


def test_a_second_start_after_a_kill_is_allowed() -> None:
    journal = [entry("S", 0, 1, 0.01), *ran(0, pid=2, at=2.5), *ran(1, pid=2)]
    verdict = judge(journal, [row(0), row(1)], fates=Fates(killed={1: 0.05}))

    assert verdict.is_good
    assert (verdict.rerun, verdict.killed_runs) == (1, 1)
    assert [round(seconds, 2) for seconds in verdict.recovery] == [2.45]


def test_a_second_start_before_the_kill_is_not_allowed() -> None:
    journal = [entry("S", 0, 1, 0.01), *ran(0, pid=2, at=0.5), *ran(1, pid=2)]

    assert judge(journal, [row(0), row(1)], fates=Fates(killed={1: 0.6})).doubled_alive == 1


def test_a_second_start_beside_a_stopped_worker_is_told_apart() -> None:
    journal = [entry("S", 0, 1, 0.01), *ran(0, 2, 2.5), entry("F", 0, 1, 6.1), *ran(1, 2)]
    verdict = judge(journal, [row(0), row(1)], fates=Fates(stopped={1: [(0.05, 6.0)]}))

    assert verdict.is_good
    assert verdict.rerun_stale == 1


def test_a_worker_that_held_the_interpreter_was_stopped() -> None:
    held = [entry("S", 0, 1, 0.01), entry("H", 0, 1, 0.02), entry("R", 0, 1, 3.0)]
    journal = [*held, *ran(0, 2, 2.5), entry("F", 0, 1, 3.1), *ran(1, 2)]
    fates = Fates()
    add_own_fates(fates, journal)
    verdict = judge(journal, [row(0), row(1)], fates=fates)

    assert fates.stopped == {1: [(0.02, 3.0)]}
    assert verdict.is_good
    assert verdict.rerun_stale == 1


def test_a_worker_that_killed_itself_is_dead_when_it_has_noted_down_its_last() -> None:
    fates = Fates(ended={1: 9.0})
    add_own_fates(fates, [entry("K", 0, 1, 0.02), entry("S", 0, 1, 0.03), entry("S", 0, 2, 2.0)])

    assert fates.killed == {1: 0.03}


def test_what_a_stopped_worker_goes_on_with_is_told_apart_if_it_was_taken_over() -> None:
    journal = [*ran(0), *ran(1, pid=2, at=3.0), *ran(1, pid=1, at=6.1)]
    fates = Fates(stopped={1: [(0.5, 6.0)]})
    taken = row(1, token=2, owner="host-place-2-chance")
    verdict = judge(journal, [row(0), taken], fates=fates)

    assert verdict.is_good
    assert verdict.rerun_stale == 1
    assert judge(journal, [row(0), row(1)], fates=fates).doubled_alive == 1
    assert judge(journal, [row(0), taken]).doubled_alive == 1


def test_at_most_once_is_once_even_after_a_kill() -> None:
    journal = [entry("S", 0, 1, 0.01), *ran(0, pid=2, at=2.5), *ran(1, pid=2)]
    once = plan(delivery="at_most_once")

    assert judge(journal, [row(0), row(1)], once, Fates(killed={1: 0.05})).doubled_once == 1


def test_a_run_that_is_given_up_although_it_is_to_be_run_again_is_found() -> None:
    journal = [entry("S", 0, 1, 0.01), *ran(1, pid=2)]
    ledger, fates = [row(0, RunState.LOST), row(1)], Fates(killed={1: 0.05})

    assert judge(journal, ledger, fates=fates).untrue == 1
    assert judge(journal, ledger, plan(delivery="at_most_once"), fates).is_good


def test_more_runs_at_once_than_max_instances_are_found() -> None:
    journal = [entry("S", 0, 1, 0.01), entry("F", 0, 1, 1.5), *ran(1, pid=2)]

    assert judge(journal, [row(0), row(1)]).overlaps == 1
    assert judge(journal, [row(0), row(1)], plan(max_instances=2)).is_good


def test_a_row_that_is_open_in_the_end_is_found() -> None:
    assert judge([*ran(0), *ran(1)], [row(0), row(1, RunState.RUNNING)]).left_open == 1


def test_rows_that_the_journal_contradicts_are_found() -> None:
    both = [*ran(0), *ran(1)]

    assert judge(ran(0), [row(0), row(1)]).untrue == 1  # nobody has finished it
    assert judge(both, [row(0), row(1, RunState.SKIPPED)]).untrue == 1  # it was started
    assert judge(both, [row(0)]).untrue == 1  # it has no row
    assert judge(both, [row(0), row(1), row(1, RunState.SKIPPED)]).untrue == 2  # and two rows
    assert judge([*both, *ran(5)], [row(0), row(1), row(5)]).untrue == 1  # it was not due
