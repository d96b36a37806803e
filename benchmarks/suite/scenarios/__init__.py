"""What is measured: one module for each scenario, with a coroutine ``measure``.

A scenario runs alone in a fresh process, on a loop whose selector is watched, in the environment
of one library. It returns plain numbers by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from suite.adapters import Adapter
from suite.probes import WatchedSelector

Settings = Mapping[str, Any]
Numbers = dict[str, float]
Measure = Callable[["Bench"], Coroutine[Any, Any, Numbers]]


@dataclass(frozen=True)
class Bench:
    """What a scenario works with."""

    scheduler: Callable[[], Adapter]
    selector: WatchedSelector
    settings: Settings


def load(name: str) -> Measure:
    """Import the scenario's module."""
    measure: Measure = importlib.import_module(f"{__name__}.{name}").measure
    return measure
