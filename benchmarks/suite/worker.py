"""Runs one scenario in the environment of one library, and writes its numbers to a file."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from suite import adapters, scenarios
from suite.probes import WatchedSelector


def main(request: str) -> None:
    """Carry out `request`, the JSON object that `suite.runner` writes."""
    order = json.loads(request)
    if order["version"] is not None and version(order["distribution"]) != order["version"]:
        raise SystemExit(f"this environment has not got {order['distribution']} {order['version']}")
    selector = WatchedSelector()
    adapter = partial(adapters.load(order["adapter"]), order["store"])
    bench = scenarios.Bench(adapter, selector, order["settings"])
    measure = scenarios.load(order["scenario"])
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        numbers = runner.run(measure(bench))
    Path(order["answer"]).write_text(json.dumps(numbers), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
