"""The command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from suite import report
from suite.environments import make_all
from suite.figures import FIGURES
from suite.libraries import ASYNCZ, LIBRARIES, PEERS
from suite.profiles import (
    FULL,
    HISTORY,
    HISTORY_QUICK,
    QUICK,
    QUICK_BUDGET,
    SCENARIOS,
    STORE_KINDS,
    STORES,
    STORES_QUICK,
    Case,
)
from suite.runner import measure_all


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    command = argparse.ArgumentParser(
        description="Measure asyncz and its peers side by side. Prints Markdown tables."
    )
    command.add_argument("--quick", action="store_true", help="smaller sizes, under two minutes")
    command.add_argument(
        "--stores", action="store_true", help="the persistent stores instead, on servers of its own"
    )
    command.add_argument(
        "--store", choices=STORE_KINDS, action="append",
        help="with --stores or --history: just this one",
    )  # fmt: skip
    command.add_argument(
        "--history", action="store_true", help="instead: what histories cost; asyncz only"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="also write every sample there")
    command.add_argument("--only", choices=SCENARIOS, action="append", help="just this scenario")
    command.add_argument("--runs", type=positive, metavar="N", help="rounds for every scenario")
    return command


def positive(text: str) -> int:
    """A count that argparse can refuse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 1 if asyncz itself could not be measured, whatever the verdicts."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    began = time.monotonic()
    about = report.machine()
    cases = chosen(options)
    unavailable = {} if options.history else make_all(PEERS)
    print(f"environments {time.monotonic() - began:.1f} s", file=sys.stderr)
    is_brief = options.quick and not (options.stores or options.history)
    results = measure_all(cases, unavailable, QUICK_BUDGET if is_brief else None)
    names = {case.name for case in cases}
    figures = [figure for figure in FIGURES if figure.case in names]
    shown = [ASYNCZ] if options.history else LIBRARIES
    print(about, report.tables(figures, results, shown), sep="\n\n")
    taken = time.monotonic() - began
    print(f"\nMedians over the rounds of each figure; {taken:.0f} s in all.")
    if options.json is not None:
        text = json.dumps(report.as_json(figures, results, about), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(results.of(name, ASYNCZ).failure for name in names))


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases asked for, with the rounds asked for."""
    if options.history:
        cases = list(HISTORY_QUICK if options.quick else HISTORY)
    elif options.stores:
        cases = list(STORES_QUICK if options.quick else STORES)
    else:
        cases = list(QUICK if options.quick else FULL)
    if options.store:
        cases = [case for case in cases if case.store in options.store]
    if options.only:
        cases = [case for case in cases if case.scenario in options.only]
    if options.runs:
        cases = [replace(case, rounds=options.runs) for case in cases]
    return cases
