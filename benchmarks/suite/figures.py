"""What is shown of each case, and what is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from suite.libraries import APSCHEDULER_3, ASYNCZ, Library
from suite.profiles import HISTORY_STORES
from suite.runner import Results


@dataclass(frozen=True)
class Column:
    """A number that a scenario gives, and how it is written."""

    heading: str
    name: str
    form: str = "{:,.1f}"


@dataclass(frozen=True)
class Target:
    """A limit on something that the results of one run tell; None where they do not tell it."""

    text: str
    limit: float
    value: Callable[[Results], float | None]

    def verdict(self, results: Results) -> str:
        """``met`` or ``missed``, with the value."""
        value = self.value(results)
        if value is None:
            return "not measured"
        return f"{'met' if value <= self.limit else 'missed'} ({value:,.2f})"


@dataclass(frozen=True)
class Figure:
    """One table. The first column is the one that libraries are compared by."""

    title: str
    case: str
    columns: tuple[Column, ...]
    targets: tuple[Target, ...] = ()


def own(case: str, name: str) -> Callable[[Results], float | None]:
    """A number of asyncz itself."""
    return lambda results: results.median(case, ASYNCZ, name)


def against(case: str, name: str, peer: Library) -> Callable[[Results], float | None]:
    """How many times the peer's number asyncz's is."""

    def ratio(results: Results) -> float | None:
        ours, theirs = results.median(case, ASYNCZ, name), results.median(case, peer, name)
        return ours / theirs if ours is not None and theirs else None

    return ratio


def shortfall(case: str, name: str, wanted: float) -> Callable[[Results], float | None]:
    """How many times what asyncz reached would have to be taken to reach what is wanted."""

    def ratio(results: Results) -> float | None:
        reached = results.median(case, ASYNCZ, name)
        return wanted / reached if reached else None

    return ratio


def add_figure(case: str, tasks: str) -> Figure:
    """Adding is shown and judged at three sizes."""
    return Figure(
        f"Adding {tasks} tasks to a running scheduler",
        case,
        (
            Column("µs a task", "settled_us"),
            Column("in the call alone", "call_us"),
            Column("last tenth / first tenth", "growth", "{:.2f}"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (
            Target("≤ 1 x APScheduler 3", 1.0, against(case, "settled_us", APSCHEDULER_3)),
            Target("call alone ≤ 1 x APScheduler 3", 1.0, against(case, "call_us", APSCHEDULER_3)),
            Target("last tenth ≤ 1.5 x first", 1.5, own(case, "growth")),
        ),
    )


LIMITS = {
    "sqlite": (8_000, 1.0),
    "postgresql": (6_000, 1.0),
    "mariadb": (4_000, 1.5),
    "redis": (10_000, 1.0),
    "mongodb": (4_000, 1.0),
    "file": (500, 20.0),
}
"""For each store: runs a second at least, seconds for 10,000 added at once at most."""


def store_figures(store: str) -> Iterator[Figure]:
    """What is shown of one persistent store."""
    runs, seconds = LIMITS[store]
    burst, add, one_pass = f"burst-{store}", f"add-{store}", f"pass-{store}"
    yield Figure(
        f"{store}: one-off tasks due at one instant",
        burst,
        (
            Column("runs/s", "runs_per_s", "{:,.0f}"),
            Column("worst stall ms", "stall_ms"),
            Column("by CPU time", "stall_cpu_ms"),
            Column("until settled µs a task", "settled_us_per_task"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (
            Target(f"≥ {runs:,} runs/s", 1.0, shortfall(burst, "runs_per_s", runs)),
            Target("stall ≤ 10 ms", 10.0, own(burst, "stall_ms")),
        ),
    )
    yield Figure(
        f"{store}: adding",
        add,
        (
            Column("ms a task, one at a time", "ms_per_task", "{:.2f}"),
            Column("many at once, s", "many_s", "{:.2f}"),
            Column("stall meanwhile ms", "many_stall_ms"),
            Column("many", "many", "{:,.0f}"),
        ),
        (
            Target("≤ 1 x APScheduler 3", 1.0, against(add, "ms_per_task", APSCHEDULER_3)),
            Target(f"many ≤ {seconds:g} s", seconds, own(add, "many_s")),
        ),
    )
    if store != "file":
        yield Figure(
            f"{store}: a pass with 10 tasks due",
            one_pass,
            (
                Column("ms among many", "large_ms", "{:.2f}"),
                Column("ms among 1,000", "small_ms", "{:.2f}"),
                Column("ratio", "times", "{:.2f}"),
                Column("tasks", "large", "{:,.0f}"),
                Column("growth of memory KiB", "grown_kib", "{:,.0f}"),
            ),
            (
                Target("≤ 3 x the time among 1,000", 3.0, own(one_pass, "times")),
                Target("memory grows ≤ 64 MiB", 65_536.0, own(one_pass, "grown_kib")),
            ),
        )


WORDS = {
    "all": "of all tasks",
    "task": "of one task",
    "failed": "that failed",
    "task_failed": "of one task that failed",
}


def kept_figures(store: str) -> Iterator[Figure]:
    """What is shown of the histories of one store."""
    case = f"kept-{store}"
    yield Figure(
        f"{store}: the last 50 runs, ms among 1,000 and among many",
        case,
        (
            *(
                Column(f"{words}, {size}", f"{name}_{size}_ms", "{:.2f}")
                for name, words in WORDS.items()
                for size in ("small", "large")
            ),
            Column("runs", "large", "{:,.0f}"),
        ),
        tuple(
            Target(f"{words} ≤ 3 x", 3.0, own(case, f"{name}_times"))
            for name, words in WORDS.items()
        ),
    )
    yield Figure(
        f"{store}: forgetting them",
        case,
        (
            Column("worst stall ms", "forget_stall_ms"),
            Column("by CPU time", "forget_stall_cpu_ms"),
            Column("µs a run", "forget_us"),
            Column("forgotten", "forgotten", "{:,.0f}"),
            Column("kept", "left", "{:,.0f}"),
        ),
        (Target("stall ≤ 10 ms", 10.0, own(case, "forget_stall_ms")),),
    )


FIGURES = (
    Figure(
        "One-off tasks due at one instant: time for each",
        "burst",
        (
            Column("µs a task", "us_per_task"),
            Column("bare create_task", "bare_us"),
            Column("x bare", "times_bare"),
            Column("until settled", "settled_us_per_task"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (
            Target("≤ 4 x bare asyncio", 4.0, own("burst", "times_bare")),
            Target("≤ 0.5 x APScheduler 3", 0.5, against("burst", "us_per_task", APSCHEDULER_3)),
        ),
    ),
    Figure(
        "Worst stall of the event loop meanwhile",
        "burst",
        (
            Column("ms", "stall_ms"),
            Column("by CPU time", "stall_cpu_ms"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (Target("≤ 10 ms", 10.0, own("burst", "stall_ms")),),
    ),
    add_figure("add-1000", "1,000"),
    add_figure("add-10000", "10,000"),
    add_figure("add-100000", "100,000"),
    Figure(
        "Memory for each waiting task",
        "memory",
        (
            Column("bytes (tracemalloc)", "traced_bytes", "{:,.0f}"),
            Column("bytes (resident set)", "resident_bytes", "{:,.0f}"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (Target("≤ 2,048 bytes (tracemalloc)", 2048.0, own("memory", "traced_bytes")),),
    ),
    Figure(
        "Lateness of one-second interval tasks, spread over the second",
        "lateness",
        (
            Column("99 % ms", "p99_ms", "{:.2f}"),
            Column("50 % ms", "p50_ms", "{:.2f}"),
            Column("call_at 99 % ms", "bare_p99_ms", "{:.2f}"),
            Column("99 % over call_at", "over_bare_ms", "{:+.2f}"),
            Column("worst ms", "worst_ms"),
            Column("runs missing", "missing_runs", "{:,.0f}"),
        ),
        (
            Target("99 % ≤ call_at + 1 ms", 1.0, own("lateness", "over_bare_ms")),
            Target("no run missing", 0.0, own("lateness", "missing_runs")),
        ),
    ),
    Figure(
        "Idle, nothing due for an hour",
        "idle",
        (
            Column("wake-ups a minute", "wakeups", "{:,.0f}"),
            Column("CPU ms a minute", "cpu_ms", "{:,.1f}"),
            Column("thread switches a minute", "switches", "{:,.0f}"),
            Column("seconds watched", "seconds", "{:,.0f}"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (Target("≤ 3 wake-ups a minute", 3.0, own("idle", "wakeups")),),
    ),
    Figure(
        "Import of the package",
        "imports",
        (
            Column("ms over a bare interpreter", "package_ms"),
            Column("import pydantic", "pydantic_ms"),
            Column("x pydantic", "times_pydantic", "{:.2f}"),
            Column("bare interpreter", "bare_ms"),
        ),
        (Target("≤ 1.3 x pydantic", 1.3, own("imports", "times_pydantic")),),
    ),
    Figure(
        "Import of the scheduler class",
        "imports",
        (
            Column("ms over a bare interpreter", "scheduler_ms"),
            Column("pydantic with one model", "model_ms"),
            Column("x pydantic with one model", "times_model", "{:.2f}"),
        ),
    ),
    *(figure for store in LIMITS for figure in store_figures(store)),
    Figure(
        "A history in memory: one-off tasks due at one instant",
        "history-cost",
        (
            Column("µs a task with", "with_us"),
            Column("without", "without_us"),
            Column("ratio", "times", "{:.2f}"),
            Column("tasks", "tasks", "{:,.0f}"),
        ),
        (Target("≤ 1.25 x without", 1.25, own("history-cost", "times")),),
    ),
    Figure(
        "A simulated year of 200 tasks",
        "year",
        (
            Column("seconds", "seconds"),
            Column("unaccounted", "unaccounted", "{:,.0f}"),
            Column("occurrences", "occurrences", "{:,.0f}"),
            Column("records", "records", "{:,.0f}"),
        ),
        (
            Target("< 60 s", 60.0, own("year", "seconds")),
            Target("none unaccounted for", 0.0, own("year", "unaccounted")),
        ),
    ),
    *(figure for store in HISTORY_STORES for figure in kept_figures(store)),
)
