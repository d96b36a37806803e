"""Results as tables, and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from suite.figures import Column, Figure
from suite.libraries import ASYNCZ, LIBRARIES, Library
from suite.runner import Outcome, Results


def machine() -> str:
    """Where and when, in one line."""
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"Python {platform.python_version()} ({sys.implementation.name}) on {processor()}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"load {load}, {date.today().isoformat()}"
    )


def processor() -> str:
    """The processor's name, as far as the platform tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "an unknown processor")


def tables(
    figures: Sequence[Figure], results: Results, shown: Sequence[Library] = LIBRARIES
) -> str:
    """Every figure as a Markdown table under its title, with a row for each library shown."""
    return "\n\n".join(
        f"### {figure.title}\n\n{table(figure, results, shown)}" for figure in figures
    )


def table(figure: Figure, results: Results, shown: Sequence[Library] = LIBRARIES) -> str:
    """A row for each library, the targets beside the first rows."""
    headings = ["library", *(column.heading for column in figure.columns), "x asyncz"]
    rows = [[library.title, *cells(figure, library, results)] for library in shown]
    if figure.targets:
        headings += ["target", "verdict"]
        judged = [[target.text, target.verdict(results)] for target in figure.targets]
        rows += [[""] * (len(headings) - 2)] * (len(judged) - len(rows))
        rows = [
            [*row, *(judged[number] if number < len(judged) else ["", ""])]
            for number, row in enumerate(rows)
        ]
    notes = [
        f"{library.title}: {'no further rounds' if outcome.samples else 'n/a'}, {outcome.failure}."
        for library in shown
        if (outcome := results.of(figure.case, library)).failure
    ]
    return "\n".join([*aligned([headings, *rows]), *(f"\n{note}" for note in notes)])


def cells(figure: Figure, library: Library, results: Results) -> list[str]:
    """The library's numbers, and how many times asyncz's the first of them is."""
    outcome = results.of(figure.case, library)
    numbers = [written(column, outcome) for column in figure.columns]
    first = figure.columns[0].name
    ours, this = results.median(figure.case, ASYNCZ, first), outcome.median(first)
    ratio = f"{this / ours:.2f}" if ours and this is not None else "n/a"
    return [*numbers, ratio]


def written(column: Column, outcome: Outcome) -> str:
    """The median, or n/a."""
    value = outcome.median(column.name)
    return "n/a" if value is None else column.form.format(value)


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Markdown that can also be read as it is: the first column to the left, numbers right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    words = {0, *(place for place, cell in enumerate(rows[0]) if cell in ("target", "verdict"))}

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * width if place in words else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    )
    return [line(rows[0]), f"| {' | '.join(rule)} |", *map(line, rows[1:])]


def as_json(figures: Sequence[Figure], results: Results, about: str) -> dict[str, Any]:
    """Everything measured, with every sample, and what was judged."""
    return {
        "machine": about,
        "results": [
            {
                "case": case,
                "library": library,
                "samples": outcome.samples,
                "medians": {
                    name: outcome.median(name) for sample in outcome.samples[:1] for name in sample
                },
                "failure": outcome.failure,
            }
            for (case, library), outcome in results.outcomes.items()
        ],
        "verdicts": [
            {
                "figure": figure.title,
                "target": target.text,
                "limit": target.limit,
                "value": target.value(results),
            }
            for figure in figures
            for target in figure.targets
        ],
    }
