"""The promises of the faults find what they are there for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.fleet import Fates
from tests.chaos.journal import Entry
from tests.chaos.promises import (
    is_run_again,
    nobody_was_buried,
    slots_are_free_again,
    stops_when_told,
)
from tests.chaos.trial import Promise
from tests.chaos.worker import CUT_OFF, WorkerPlan

PLAN = WorkerPlan(None, "", shutdown_timeout=5.0)  # type: ignore[arg-type]  # it is not used


def broken(promise: Promise, **found: Any) -> list[str]:
    """What it says of a trial in which workers are apart, and the last task was due at 100."""
    trial = SimpleNamespace(lease=2.0, apart=True)
    marks = {"settled": found.get("settled", 0.0)}
    buried = found.get("buried", ())
    fleet = SimpleNamespace(plan=PLAN)
    stage = SimpleNamespace(trial=trial, ends=100.0, marks=marks, buried=buried, fleet=fleet)
    journal, fates = found.get("journal", []), found.get("fates", Fates())
    evidence = SimpleNamespace(journal=journal, fates=fates)
    verdict = Verdict(rerun=found.get("rerun", 0), recovery=found.get("recovery", []))
    outcome: Any = SimpleNamespace(verdict=verdict, evidence=evidence, stage=stage)
    return list(promise(outcome))


@pytest.mark.parametrize(("at", "number"), [(50.05, 0), (50.2, 1)])
def test_a_run_that_begins_long_after_sigterm_is_found(at: float, number: int) -> None:
    fates = Fates(told={1: [50.0]}, ended={1: 51.0}, codes={1: 0})

    assert len(broken(stops_when_told, fates=fates, journal=[Entry("S", "t", 0, 1, at)])) == number


@pytest.mark.parametrize(("ended", "number"), [(56.9, 0), (57.1, 1)])
def test_a_worker_that_does_not_end_is_found(ended: float, number: int) -> None:
    fates = Fates(told={1: [50.0]}, ended={1: ended}, codes={1: 0})

    assert len(broken(stops_when_told, fates=fates)) == number


@pytest.mark.parametrize(
    ("ended", "code", "number"), [(51.0, CUT_OFF, 0), (51.0, 1, 1), (51.5, 0, 1)]
)
def test_a_worker_that_is_told_twice_and_does_not_hurry_is_found(
    ended: float, code: int, number: int
) -> None:
    fates = Fates(told={1: [50.0, 50.2]}, ended={1: ended}, codes={1: code})

    assert len(broken(stops_when_told, fates=fates)) == number


def test_a_take_over_before_a_lease_has_run_out_is_found() -> None:
    assert broken(is_run_again, rerun=2, recovery=[0.9, 1.6, 2.0]) == []
    assert len(broken(is_run_again, rerun=2, recovery=[0.1, 0.1, 2.0])) == 1


def test_kills_after_which_nothing_is_run_again_are_found() -> None:
    assert len(broken(is_run_again, fates=Fates(killed=dict.fromkeys(range(10), 1.0)))) == 1


def test_a_node_that_is_buried_is_found() -> None:
    assert broken(nobody_was_buried) == []
    assert len(broken(nobody_was_buried, buried=["a"])) == 1


@pytest.mark.parametrize(("settled", "number"), [(112.9, 0), (113.1, 1)])
def test_slots_that_stay_taken_are_found(settled: float, number: int) -> None:
    assert len(broken(slots_are_free_again, settled=settled)) == number
