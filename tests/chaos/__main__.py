"""Hold trials from the command line: `python -m tests.chaos --store postgresql --kills 200`.

With several stores or faults, a table in Markdown is printed in the end.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from tempfile import mkdtemp

from tests.outages.backends import SQL_BACKENDS

from .checker import milliseconds, quantile
from .places import LOCAL, PLACES, Place
from .scenarios import ALONE, FAULTS, FOR_SERVERS, FOR_SQL, make_trial
from .trial import Outcome, hold

HEAD = (
    "store | fault | seconds | kills | expected | starts | lost | doubled | overlaps "
    "| left open | untrue | run again | stale | not run | late p50/p99 ms | again p50/max s"
)
COLUMNS = HEAD.count("|") + 1


def main() -> None:
    """Read the command line; the exit code says whether all promises were kept."""
    parser = ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--store", choices=[*PLACES, "memory", "all"], default="postgresql")
    parser.add_argument("--fault", choices=[*FAULTS, "all"], default="killed")
    parser.add_argument("--seconds", type=float, default=60, help="for how long tasks are due")
    parser.add_argument("--kills", type=int, default=200, help="of workers, in that time")
    parser.add_argument("--seed", type=int, default=1, help="of victims and moments")
    parser.add_argument(
        "--apart", action="store_true",
        help="each worker is as on a machine of its own: only its lease tells that it is gone",
    )  # fmt: skip
    try:
        sys.exit(asyncio.run(_hold_all(parser.parse_args())))
    except asyncio.CancelledError:
        sys.exit(f"{parser.prog} was told to end; nothing of it is left.")


async def _hold_all(chosen: Namespace) -> int:
    rows, broken = [], 0
    this = asyncio.current_task()
    assert this is not None
    # Like Ctrl-C: its servers and workers end with it.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    stores = PLACES if chosen.store == "all" else [chosen.store]
    for store in stores:
        place = Place(store)
        try:
            for fault in _faults(chosen.fault, store):
                outcome = await _hold_one(place, fault, chosen)
                broken += not outcome.verdict.is_good
                rows.append(_row(store, fault, chosen.seconds, outcome))
        finally:
            place.close()
    if len(rows) > 1:
        apart = ", each worker as on a machine of its own" if chosen.apart else ""
        print(f"\n{_machine()}, seed {chosen.seed}{apart}")
        print(f"\n| {HEAD} |\n|{'---|' * COLUMNS}")
        print("\n".join(rows))
    return min(broken, 1)


def _machine() -> str:
    """What it was tried on."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
        model = next(names, model)
    python, system = platform.python_version(), platform.system()
    return f"Python {python} on {model}, {os.cpu_count()} cores, {system}, {date.today()}"


def _faults(chosen: str, store: str) -> Iterator[str]:
    for fault in [fault for fault in FAULTS if fault not in ALONE] if chosen == "all" else [chosen]:
        suits = fault not in FOR_SQL or store in SQL_BACKENDS
        if suits and (store not in LOCAL or fault not in FOR_SERVERS):
            yield fault


async def _hold_one(place: Place, fault: str, chosen: Namespace) -> Outcome:
    directory = Path(mkdtemp(prefix="chaos-"))
    trial = make_trial(fault, chosen.seconds, chosen.kills, chosen.seed, chosen.apart or None)
    outcome = await hold(place, trial, directory)
    print(f"{place.kind}, {fault}, in {outcome.took:.0f} s: {outcome.verdict}", flush=True)
    if outcome.figures:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in outcome.figures.items())
        print(f"  {figures}", flush=True)
    if not outcome.verdict.is_good:
        print(f"  journal and logs: {directory}", flush=True)
    return outcome


def _row(store: str, fault: str, seconds: float, outcome: Outcome) -> str:
    verdict = outcome.verdict
    doubled = verdict.doubled_alive + verdict.doubled_once
    excused = ", ".join(f"{number} {state}" for state, number in sorted(verdict.excused.items()))
    cells = [
        store, fault, f"{seconds:g}", len(outcome.evidence.fates.killed), verdict.expected,
        verdict.starts, verdict.lost, doubled, verdict.overlaps, verdict.left_open,
        verdict.untrue, verdict.rerun, verdict.rerun_stale, excused or "none",
        f"{milliseconds(verdict.lateness, 0.5)} / {milliseconds(verdict.lateness, 0.99)}",
        f"{quantile(verdict.recovery, 0.5):.1f} / {quantile(verdict.recovery, 1):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
