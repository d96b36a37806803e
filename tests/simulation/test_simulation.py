"""Several schedulers on one store, with faults: what was promised holds, for each seed."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.node import simulated
from tests.simulation.scenario import simulate

SEEDS = 2_000
"""`python -m tests.simulation --seeds 20000` is the long form."""
AT_ONCE = 500
MUTANT_SEEDS = 400
"""At most; it ends with the first that shows it."""
REPLAYS = 10


@pytest.fixture(autouse=True)
def in_the_simulation() -> Iterator[None]:
    with simulated():
        yield
        gc.collect()  # what processes that were killed have left is torn down in here


@pytest.mark.parametrize("start", range(0, SEEDS, AT_ONCE))
def test_every_promise_is_kept(start: int) -> None:
    # In a process that measures no coverage: four times as many seeds in the same time.
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(AT_ONCE)]
    done = subprocess.run([*command, "--start", str(start)], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, f"{said}\npython -m tests.simulation --trace --seeds 1 --start …"
    assert f"{AT_ONCE} seeds" in said


@pytest.mark.parametrize("seed", [7, 165, 1306])
def test_a_seed_is_replayed_step_by_step(seed: int) -> None:
    first = simulate(seed, keeps_trace=True)
    assert first.trace
    for _ in range(REPLAYS - 1):
        assert simulate(seed, keeps_trace=True) == first


@pytest.mark.parametrize("guard", MUTANTS)
def test_without_one_of_its_guards_the_protocol_is_found_out(guard: str) -> None:
    with MUTANTS[guard]():
        assert any(simulate(seed).error for seed in range(MUTANT_SEEDS))


def test_a_failing_seed_fails_the_same_way_each_time() -> None:
    with MUTANTS["the compare of the expected next run time"]():
        results = [simulate(1, keeps_trace=True) for _ in range(REPLAYS)]
    assert results[0].error is not None
    assert results.count(results[0]) == REPLAYS
