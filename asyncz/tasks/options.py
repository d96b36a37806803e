"""What may be given as an option of a task, and what is said if it is not that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from asyncz.exceptions import TaskOptionError
from asyncz.runs.checked import explain
from asyncz.tasks.callables import check_arguments, reference_to, resolve_reference

__all__ = [
    "REACTIONS",
    "Reaction",
    "check_reactions",
    "checked_tag",
    "explain_options",
    "instant",
    "positional",
    "resolve_callable",
    "tag_texts",
]

BAD_OPTIONS = "Bad task options"
REACTIONS = ("on_success", "on_failure", "on_missed")
OWN = frozenset({"fn_reference", "scheduler", "pending", "submitted"})
"""Fields of a task that are nobody's to give."""
MOST_OF_A_TAG = 100
"""Characters."""


def positional(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise ValueError("give a list or tuple of arguments, not a single value")
    return tuple(value)


def instant(value: Any) -> Any:
    # A number would be taken for seconds since 1970; whoever writes 30 means something else.
    moment = value
    if isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value)
    if not isinstance(moment, datetime):
        raise ValueError("give an aware datetime, or its ISO text with an offset")
    if moment.tzinfo is not None:
        try:
            moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("there is no such time in UTC") from None
    return moment


def tag_texts(value: Any) -> Any:
    several = [value] if isinstance(value, str) else value
    if not hasattr(several, "__iter__") or not all(isinstance(tag, str) for tag in several):
        raise ValueError("give a list or a set of texts, or one text")
    if not all(0 < len(tag) <= MOST_OF_A_TAG for tag in several):
        raise ValueError(f"a tag has 1 to {MOST_OF_A_TAG} characters")
    return tuple(sorted(set(several)))


def checked_tag(tag: Any) -> str:
    """A tag that tasks are to be found by.

    Raises:
        TaskOptionError: It is none.
    """
    if not isinstance(tag, str):
        raise TaskOptionError(
            f"tag must be one text, not {type(tag).__name__}; for several make a call each."
        )
    if not 0 < len(tag) <= MOST_OF_A_TAG:
        raise TaskOptionError(f"tag must have 1 to {MOST_OF_A_TAG} characters, not {len(tag)}.")
    return tag


def check_reactions(reactions: Mapping[str, Callable[..., Any] | None]) -> None:
    """Make sure that each can be called with a run.

    Raises:
        TaskOptionError: One cannot be; the message names the option.
    """
    for option, fn in reactions.items():
        if fn is not None:
            try:
                check_arguments(fn, ("run",), {})
            except TaskOptionError as exc:
                raise TaskOptionError(
                    f"{option} is called with the Run that has ended, as its one argument: {exc}"
                ) from None


def _reaction(value: Any) -> Any:
    return resolve_reference(value) if isinstance(value, str) else value


Reaction = Annotated[Callable[..., Any], BeforeValidator(_reaction)]


def resolve_callable(fn: Callable[..., Any] | str) -> dict[str, Any]:
    if isinstance(fn, str):
        found = resolve_reference(fn)
        if not callable(found):
            raise TaskOptionError(f"{fn!r} names a {type(found).__name__}, not a callable.")
        return {"fn": found, "fn_reference": fn}
    if not callable(fn):
        raise TaskOptionError(
            f"fn must be a callable or a reference to one, not {type(fn).__name__}."
        )
    return {"fn": fn, "fn_reference": reference_to(fn)}


def explain_options(error: ValidationError, task_id: Any, known: Iterable[str]) -> str:
    """All that was wrong with a task's options, without the values: they may be secrets."""
    whose = BAD_OPTIONS
    if task_id and isinstance(task_id, str):
        whose = f"Bad options of the task {task_id!r}"
    return explain(whose, error, [name for name in known if name not in OWN])
