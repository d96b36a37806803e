"""Runs every measurement in a fresh process, one library after the other, round after round."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from suite.environments import interpreter, variables
from suite.libraries import LIBRARIES, Library
from suite.profiles import Case
from suite.servers import ServerMissingError, place

SIDE_BY_SIDE = 6

#: Workers lead process groups of their own, so an interrupt has to be passed on to them.
_running: set[subprocess.Popen[str]] = set()


@dataclass
class Outcome:
    """What the rounds of one case gave for one library."""

    samples: list[dict[str, float]] = field(default_factory=list)
    failure: str | None = None

    def median(self, name: str) -> float | None:
        """The median of a number over the rounds; None if no round gave it."""
        values = [sample[name] for sample in self.samples if name in sample]
        return statistics.median(values) if values else None


@dataclass
class Results:
    """The outcome of each case for each library."""

    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)

    def of(self, case: str, library: Library) -> Outcome:
        return self.outcomes.setdefault((case, library.key), Outcome())

    def median(self, case: str, library: Library, name: str) -> float | None:
        return self.of(case, library).median(name)


class MeasurementError(Exception):
    """A measurement gave no numbers; the text is the last thing it said."""


def measure_all(
    cases: Sequence[Case], unavailable: Mapping[str, str], budget: float | None
) -> Results:
    """Measure every case; `unavailable` says why a library has no environment.

    With a `budget` in seconds, no second or later round is started once that is used up.
    """
    results = Results()
    for case, library in product(cases, LIBRARIES):
        reason = unavailable.get(library.key) or case.left_out.get(library.key)
        results.of(case.name, library).failure = reason
    began = time.monotonic()
    measure_side_by_side([case for case in cases if case.together], results)
    alone = [case for case in cases if not case.together]
    for turn in range(max((case.rounds for case in alone), default=0)):
        for case in alone:
            spent = budget is not None and time.monotonic() - began > budget
            if turn < case.rounds and not (turn and spent):
                for library in rotated(turn):
                    measure(case, library, results)
    return results


def measure_side_by_side(cases: Sequence[Case], results: Results) -> None:
    """What does not depend on how busy the machine is, several at a time."""
    threads = ThreadPoolExecutor(SIDE_BY_SIDE)
    try:
        started = [
            threads.submit(measure, case, library, results)
            for case, library in product(cases, LIBRARIES)
            for _ in range(case.rounds)
        ]
        for measurement in started:
            measurement.result()
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in tuple(_running):
            end_group(process)
        raise
    threads.shutdown()


def rotated(turn: int) -> Iterator[Library]:
    """The libraries in turn, another one first each time."""
    first = turn % len(LIBRARIES)
    yield from LIBRARIES[first:]
    yield from LIBRARIES[:first]


def measure(case: Case, library: Library, results: Results) -> None:
    """One measurement; a library that failed in a case is not tried there again."""
    outcome = results.of(case.name, library)
    if outcome.failure is not None:
        return
    began = time.monotonic()
    try:
        outcome.samples.append(run_worker(case, library))
    except MeasurementError as error:
        outcome.failure = str(error)
    taken = time.monotonic() - began
    said = outcome.failure or "done"
    print(f"{case.name:>10}  {library.title:<20} {taken:5.1f} s  {said}", file=sys.stderr)


def run_worker(case: Case, library: Library) -> dict[str, float]:
    """Run `suite.worker` in the library's environment, in an empty directory, in bounded time."""
    with tempfile.TemporaryDirectory() as empty, place_for(case) as store:
        answer = Path(empty, "answer.json")
        order = {
            "scenario": case.scenario,
            "adapter": library.adapter,
            "distribution": library.distribution,
            "version": library.version,
            "settings": case.settings_for(library),
            "store": store,
            "answer": str(answer),
        }
        command = [str(interpreter(library)), "-m", "suite.worker", json.dumps(order)]
        status, said = run_bounded(command, empty, variables(library), case.timeout)
        if status is None:
            raise MeasurementError(f"not done after {case.timeout:.0f} s")
        if status != 0 or not answer.exists():
            lines = said.strip().splitlines() or [f"ended with status {status}"]
            raise MeasurementError(lines[-1])
        numbers: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))
        return numbers


@contextmanager
def place_for(case: Case) -> Iterator[dict[str, str] | None]:
    """Where the store of a case keeps its tasks."""
    with ExitStack() as open_places:
        try:
            found = open_places.enter_context(place(case.store))
        except ServerMissingError as error:
            raise MeasurementError(str(error)) from None
        yield found


def run_bounded(
    command: list[str], directory: str, environment: Mapping[str, str], timeout: float
) -> tuple[int | None, str]:
    """Exit status (None after a timeout) and standard error; nothing it started outlives it."""
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return 1, str(error)
    _running.add(process)
    try:
        _, said = process.communicate(timeout=timeout)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        end_group(process)
        _running.discard(process)


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill what is left of the process and of those it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()
