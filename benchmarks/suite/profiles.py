"""How much is measured: in full, and in under two minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from suite.libraries import APSCHEDULER_3, APSCHEDULER_4, ASYNCZ, UPSTREAM, Library


@dataclass(frozen=True)
class Case:
    """One scenario at one size, for every library.

    `instead` replaces settings for some libraries (keyed by library); `left_out` says why some are
    not measured. `together`: libraries may be measured side by side, because what is measured does
    not depend on how busy the machine is. `timeout` bounds one measurement of one library.
    """

    name: str
    scenario: str
    settings: Mapping[str, Any]
    rounds: int
    timeout: float
    together: bool = False
    instead: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None

    def settings_for(self, library: Library) -> dict[str, Any]:
        """The settings that hold for `library`."""
        return {
            "package": library.package,
            "scheduler": library.scheduler,
            **self.settings,
            **self.instead.get(library.key, {}),
        }


FULL = (
    Case("burst", "burst", {"tasks": 20_000}, rounds=5, timeout=120),
    Case("add-1000", "add", {"tasks": 1_000, "repeats": 5}, rounds=5, timeout=60),
    Case("add-10000", "add", {"tasks": 10_000, "repeats": 3}, rounds=5, timeout=60),
    Case("add-100000", "add", {"tasks": 100_000, "repeats": 1}, rounds=3, timeout=120),
    Case(
        "lateness",
        "lateness",
        {"tasks": 300, "seconds": 10, "bare_seconds": 10},
        rounds=3,
        timeout=90,
    ),
    Case("imports", "imports", {"rounds": 20}, rounds=1, timeout=180),
    Case("idle", "idle", {"tasks": 100_000, "seconds": 60}, rounds=1, timeout=300, together=True),
    Case("memory", "memory", {"tasks": 100_000}, rounds=1, timeout=400, together=True),
)

_ONLY_IN_FULL = "100,000 tasks are added in the full run only"
_QUICK_CHANGES: dict[str, dict[str, Any]] = {
    "burst": {"rounds": 2, "instead": {APSCHEDULER_4.key: {"tasks": 2_000}}},
    "add-1000": {"rounds": 2},
    "add-10000": {"rounds": 2, "instead": {UPSTREAM.key: {"repeats": 1}}},
    "add-100000": {
        "rounds": 1,
        "left_out": {UPSTREAM.key: _ONLY_IN_FULL, APSCHEDULER_4.key: _ONLY_IN_FULL},
    },
    "lateness": {"rounds": 1, "settings": {"tasks": 300, "seconds": 5, "bare_seconds": 1}},
    "imports": {
        "settings": {"rounds": 3},
        "instead": {ASYNCZ.key: {"rounds": 10}},
    },
    "memory": {"settings": {"tasks": 5_000}, "instead": {ASYNCZ.key: {"tasks": 20_000}}},
    "idle": {
        "settings": {"tasks": 10_000, "seconds": 20},
        "instead": {ASYNCZ.key: {"tasks": 100_000}},
    },
}
QUICK = tuple(
    replace(case, timeout=min(case.timeout, 60), **_QUICK_CHANGES[case.name]) for case in FULL
)

_NO_SUCH_STORE = "has no such store"
_LACKS = {
    "redis": {APSCHEDULER_4.key: _NO_SUCH_STORE},
    "file": {library.key: _NO_SUCH_STORE for library in (UPSTREAM, APSCHEDULER_3, APSCHEDULER_4)},
}
_PEERS_ADD_LESS = {
    library.key: {"tasks": 1_000} for library in (UPSTREAM, APSCHEDULER_3, APSCHEDULER_4)
}
_OURS_ALONE = {library.key: "asyncz only" for library in (UPSTREAM, APSCHEDULER_3, APSCHEDULER_4)}
STORE_KINDS = ("sqlite", "postgresql", "mariadb", "redis", "mongodb", "file")


def _store_cases(store: str, tasks: int, many: int, large: int, rounds: int) -> list[Case]:
    """The cases of one store."""
    lacks = _LACKS.get(store, {})
    cases = [
        Case(
            f"burst-{store}", "burst", {"tasks": tasks}, rounds, timeout=180,
            instead=_PEERS_ADD_LESS, left_out=lacks, store=store,
        ),
        Case(
            f"add-{store}", "store_add", {"tasks": 300, "many": many}, rounds, timeout=120,
            left_out=lacks, store=store,
        ),
    ]  # fmt: skip
    if store != "file":
        settings = {"small": 1_000, "large": large, "due": 10}
        cases.append(
            Case(
                f"pass-{store}", "store_pass", settings, 1, timeout=900,
                left_out=_OURS_ALONE, store=store,
            )
        )  # fmt: skip
    return cases


STORES = tuple(
    case
    for store in STORE_KINDS
    for case in _store_cases(store, tasks=5_000, many=10_000, large=1_000_000, rounds=3)
)
STORES_QUICK = tuple(
    case
    for store in STORE_KINDS
    for case in _store_cases(store, tasks=2_000, many=2_000, large=20_000, rounds=1)
)

HISTORY_STORES = ("sqlite", "postgresql", "mariadb", "redis", "mongodb")
"""Those whose histories are measured at two sizes."""


def _history_cases(tasks: int, repeats: int, large: int, rest: float) -> Iterator[Case]:
    """What a history costs, and what finds its way in it; asyncz only."""
    cost = {"tasks": tasks, "repeats": repeats}
    yield Case("history-cost", "history_cost", cost, 1, timeout=300, left_out=_OURS_ALONE)
    yield Case("year", "year", {"number": 1}, 1, timeout=300, left_out=_OURS_ALONE)
    kept = {"small": 1_000, "large": large, "rest": rest}
    for store in HISTORY_STORES:
        yield Case(
            f"kept-{store}", "runs_kept", kept, 1, timeout=900, left_out=_OURS_ALONE, store=store
        )


HISTORY = tuple(_history_cases(tasks=20_000, repeats=5, large=1_000_000, rest=10))
HISTORY_QUICK = tuple(_history_cases(tasks=5_000, repeats=2, large=20_000, rest=1))

#: Rounds after the first are left out in a quick run once it has taken this many seconds.
QUICK_BUDGET = 80.0
SCENARIOS = tuple(dict.fromkeys(case.scenario for case in (*FULL, *STORES, *HISTORY)))
