"""The run that code is part of: who it is, and what it may say of itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import datetime
from logging import Logger, LoggerAdapter, getLogger
from typing import Any, Protocol

from asyncz.exceptions import NoCurrentRunError, TaskOptionError

__all__ = ["CURRENT_RUN", "CurrentRun", "HasCurrentRun", "current_run", "run_id_of"]

MOST_LINES = 100
"""Lines that are kept of what a run logs, the last ones."""
LONGEST_LINE = 1_000
"""Characters of one."""


def run_id_of(task_id: str, scheduled_time: datetime) -> str:
    """The id of a run: the same at each attempt, on whatever worker."""
    return f"{task_id}@{scheduled_time.isoformat()}"


class HasCurrentRun(Protocol):
    """What an executor knows of a run that goes on."""

    @property
    def current(self) -> CurrentRun:
        """The run as its own code sees it."""


CURRENT_RUN: ContextVar[Any] = ContextVar("asyncz_current_run", default=None)
"""A `HasCurrentRun`, or None outside of runs. A shutdown that a run asks for cannot wait for it."""


def current_run() -> CurrentRun:
    """The run that this code is part of: in the task's function, and whatever that calls.

    Raises:
        NoCurrentRunError: It is not part of any.
    """
    going: HasCurrentRun | None = CURRENT_RUN.get()
    if going is None:
        raise NoCurrentRunError
    return going.current


class RunLogger(LoggerAdapter[Logger]):
    """A logger whose lines say which run they are of."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the run in front, and its parts into the record's `extra`."""
        return f"[{self.extra['run_id']}] {msg}", {  # type: ignore[index]  # it is always given
            **kwargs,
            "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})},
        }


class CurrentRun:
    """One attempt at one occurrence of a task. May be used from the run's thread or event loop.

    Args:
        task_id, store_alias: Whose.
        scheduled_time: The instant that it was due.
        attempt: Which attempt at it this is, counted from 1; also after a worker has died.
        tell: Called when there is something new to be kept of it.
        fence: Grows with each attempt and each take-over by another worker, so that a service that
            is told it can refuse what comes late from an older one.
    """

    def __init__(
        self,
        task_id: str,
        store_alias: str | None,
        scheduled_time: datetime,
        attempt: int = 1,
        tell: Callable[[CurrentRun], None] | None = None,
        fence: int = 1,
    ) -> None:
        self.task_id = task_id
        self.store_alias = store_alias
        self.scheduled_time = scheduled_time
        self.attempt = attempt
        self.fence = fence
        self._tell = tell
        self._progress: float | None = None
        self._message: str | None = None
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    @property
    def id(self) -> str:
        """The run's id, as `aget_run` takes it."""
        return run_id_of(self.task_id, self.scheduled_time)

    @property
    def idempotency_key(self) -> str:
        """A text that is the same at each attempt at this occurrence, and different for any other:
        for services that do a thing once for each key."""
        return self.id

    @property
    def logger(self) -> RunLogger:
        """The logger `asyncz.runs`, which says of each line which run it is of."""
        said = {"run_id": self.id, "task_id": self.task_id, "attempt": self.attempt}
        return RunLogger(getLogger("asyncz.runs"), said)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far it is. Kept at most once a second, and shown with the run.

        Args:
            fraction: 0 to 1.
            message: What it is at, in words.

        Raises:
            TaskOptionError: It is no number between 0 and 1; a `ValueError` and `TypeError`.
        """
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            kind = type(fraction).__name__
            raise TaskOptionError(f"progress: give a number between 0 and 1, not {kind}.")
        if not 0 <= fraction <= 1:
            raise TaskOptionError(f"progress is a fraction between 0 and 1, not {fraction!r}.")
        self._progress = float(fraction)
        if message is not None:
            self._message = _clean(str(message))
        self._news()

    def log(self, text: str) -> None:
        """Add a line to what is kept of the run: its last 100."""
        self._lines.append(_clean(str(text)))
        self._news()

    def notes(self) -> dict[str, Any]:
        """What it has said so far, by fields of `Run`."""
        said = {"progress": self._progress, "message": self._message, "log": list(self._lines)}
        return {name: value for name, value in said.items() if value not in (None, [])}

    def _news(self) -> None:
        if self._tell is not None:
            self._tell(self)

    def __repr__(self) -> str:
        return f"<CurrentRun {self.id!r} attempt={self.attempt}>"


def _clean(text: str) -> str:
    """Half a surrogate pair is no text that a server takes."""
    return text[:LONGEST_LINE].encode("utf-8", "backslashreplace").decode()
