"""The file that all workers note down in what they do, a line for each event.

`S task fire pid moment`: user code begins; `F`: it has ended; `X`: it was cut off; `H`: it holds
the interpreter from here on, `R`: until here. `fire` is the instant that it was due, in
microseconds since 1970, `moment` is `time.monotonic`, which is the same for all processes.
`Z task fire pid moment`: the process stops itself while it holds the row of this task.
`K point 0 pid moment`: the process kills itself at this point.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

__all__ = ["EPOCH", "Entry", "Journal", "as_fire", "as_moment", "read_journal", "read_tail"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TAIL = 16_384

Fire = int
"""An instant in microseconds since 1970."""


class Entry(NamedTuple):
    """A line."""

    word: str
    task: str
    fire: Fire
    pid: int
    at: float


class Journal:
    """The file, open to append to it.

    Args:
        path: Of the file; it is made where there is none.
    """

    def __init__(self, path: str) -> None:
        self._number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, word: str, task: str, fire: datetime) -> None:
        """Append a line, in one go, so that nothing of it is lost with the process."""
        line = f"{word} {task} {as_fire(fire)} {os.getpid()} {time.monotonic():.6f}\n"
        os.write(self._number, line.encode())


def as_fire(instant: datetime) -> Fire:
    """An instant as the journal has it."""
    return (instant - EPOCH) // MICROSECOND


def as_moment(fire: Fire) -> float:
    """When an instant is, as `time.monotonic` has it; the wall clock must not be set meanwhile."""
    return fire / 1e6 - time.time() + time.monotonic()


def read_journal(path: Path) -> list[Entry]:
    """All lines, in the order in which they were written."""
    if not path.exists():
        return []
    return _parse(path.read_text())


def read_tail(path: Path) -> list[Entry]:
    """The last few hundred lines."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(start)
        text = file.read().decode()
    return _parse(text.partition("\n")[2] if start else text)


def _parse(text: str) -> list[Entry]:
    lines = (line.split() for line in text.splitlines())
    return [Entry(w, task, int(fire), int(pid), float(at)) for w, task, fire, pid, at in lines]
