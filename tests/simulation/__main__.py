"""`python -m tests.simulation --seeds 20000 --start 0`: the long form."""

from __future__ import annotations

import argparse
import sys
import time
from resource import RUSAGE_SELF, getrusage

from tests.simulation.node import simulated
from tests.simulation.scenario import simulate


def main() -> int:
    """Simulate many seeds and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first")
    parser.add_argument("--most", type=int, default=10, help="failures after which to stop")
    parser.add_argument("--trace", action="store_true", help="print what happens, step by step")
    options = parser.parse_args()
    with simulated():
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Simulate the seeds that are asked for."""
    began, failures, steps, starts, seed = time.perf_counter(), 0, 0, 0, options.start
    for seed in range(options.start, options.start + options.seeds):
        result = simulate(seed, keeps_trace=options.trace)
        steps += result.steps
        starts += result.starts
        for line in result.trace or ():
            print(*line)
        if result.error is not None:
            failures += 1
            print(f"seed {seed}: {result.error}", flush=True)
            if failures >= options.most:
                break
    done, took = seed - options.start + 1, time.perf_counter() - began
    memory = getrusage(RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{done:,} seeds in {took:.1f} s ({done / took:.0f}/s): {failures} failed; "
        f"{starts:,} starts, {steps:,} steps, {memory:.0f} MB at most"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
