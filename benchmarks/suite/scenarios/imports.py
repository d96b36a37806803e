"""Import time: what a fresh interpreter takes for a statement, less what it takes for nothing.

Whole processes are timed, in alternation, after one unmeasured round that leaves compiled modules
behind. They start in an empty directory. `pydantic` is the yardstick; it defers most of its work,
so the second pair is what any program does with either: a scheduler class, a model with one field.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec

from suite.scenarios import Bench, Numbers

NOTHING = "pass"
PYDANTIC = "import pydantic"
MODEL = "from pydantic import BaseModel\nclass Model(BaseModel):\n    field: int"
PROCESS_TIMEOUT = 20


async def measure(bench: Bench) -> Numbers:
    """Milliseconds for the package, for its scheduler, and for the yardsticks of both."""
    statements = {
        "bare_ms": NOTHING,
        "package_ms": bench.settings["package"],
        "scheduler_ms": bench.settings["scheduler"],
    }
    if find_spec("pydantic") is not None:
        statements |= {"pydantic_ms": PYDANTIC, "model_ms": MODEL}
    taken = time_in_turns(statements, bench.settings["rounds"])
    bare = taken.pop("bare_ms")
    net = {name: milliseconds - bare for name, milliseconds in taken.items()}
    numbers = net | {"bare_ms": bare, "rounds": bench.settings["rounds"]}
    if "pydantic_ms" in net:
        numbers["times_pydantic"] = net["package_ms"] / net["pydantic_ms"]
        numbers["times_model"] = net["scheduler_ms"] / net["model_ms"]
    return numbers


def time_in_turns(statements: dict[str, str], rounds: int) -> dict[str, float]:
    """The median of `rounds` processes for each statement, in ms."""
    taken: dict[str, list[float]] = {name: [] for name in statements}
    with tempfile.TemporaryDirectory() as empty:
        for turn in range(rounds + 1):
            for name, statement in statements.items():
                milliseconds = time_process(statement, empty)
                if turn > 0:
                    taken[name].append(milliseconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def time_process(statement: str, directory: str) -> float:
    """Milliseconds from starting an interpreter to its end.

    The time-out is a timer that kills: `Popen.wait` with one would poll, up to 50 ms apart.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", statement], cwd=directory)
    killer = threading.Timer(PROCESS_TIMEOUT, process.kill)
    killer.start()
    status = process.wait()
    taken = time.perf_counter() - began
    killer.cancel()
    if status != 0:
        raise RuntimeError(f"{statement!r} ended with status {status}")
    return taken * 1e3
