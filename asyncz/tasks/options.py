"""What may be given as an option of a task, and what is said if it is not that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError

from asyncz.exceptions import TaskOptionError
from asyncz.tasks.callables import reference_to, resolve_reference

__all__ = ["Reaction", "explain", "instant", "positional", "resolve_callable", "tag_texts"]

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
        raise ValueError("give texts")
    if not all(0 < len(tag) <= MOST_OF_A_TAG for tag in several):
        raise ValueError(f"a tag has 1 to {MOST_OF_A_TAG} characters")
    return tuple(sorted(set(several)))


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


def explain(error: ValidationError, known: Iterable[str]) -> str:
    """All that was wrong, by option, without the values: they may be secrets.

    Args:
        error: It.
        known: The options that there are.
    """
    parts: Sequence[str] = [
        f"{item['loc'][0]} is not an option (the options are {', '.join(sorted(known))})"
        if item["type"] == "extra_forbidden"
        else f"{'.'.join(str(step) for step in item['loc'][:1])}: {item['msg']}"
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return "Bad task options: " + "; ".join(dict.fromkeys(parts)) + "."
