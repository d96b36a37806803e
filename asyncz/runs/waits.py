"""How long to wait before another attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from inspect import signature
from typing import Annotated, Any

from pydantic import Field

from asyncz.runs.checked import Checked

__all__ = ["Backoff", "Wait", "as_wait", "dump_wait", "load_wait"]

Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
LONGEST = 366 * 86_400.0
"""Seconds beyond which a wait is no wait; whatever a strategy says is cut to it."""


class Backoff(Checked):
    """Waits that grow: `first`, `first * factor`, `first * factor**2` … up to `most`.

    Args:
        first: Seconds before the second attempt.
        factor: By how much each wait is longer than the one before; 1: all are the same.
        most: Seconds that no wait is longer than.
        jitter: The part of a wait that is left to chance, 0 to 1: with 0.2, a wait of 10 s is
            between 8 and 12 s. Without any, what failed together tries again together.
    """

    first: Seconds = 1.0
    factor: Annotated[float, Field(strict=True, ge=1, le=1_000)] = 2.0
    most: Seconds = 300.0
    jitter: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.2

    def seconds(self, attempt: int, error: BaseException | None = None) -> float:
        """How long to wait after that attempt, which is counted from 1, has failed so."""
        # Beyond this many doublings there is no float for it, and `most` was reached long before.
        wait = min(self.most, self.first * self.factor ** min(attempt - 1, 100))
        return wait * (1 + self.jitter * random.uniform(-1, 1))  # noqa: S311  # no secret


class TenacityWait:
    """A wait strategy of tenacity's.

    Args:
        strategy: An object of `tenacity.wait`.
    """

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy

    def seconds(self, attempt: int, error: BaseException | None = None) -> float:
        """As for `Backoff`."""
        from tenacity import RetryCallState

        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # it calls nothing
        state.attempt_number = attempt
        if error is not None:  # which `wait_exception` asks
            state.set_exception((type(error), error, error.__traceback__))
        return float(self.strategy(state))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TenacityWait):
            return NotImplemented
        if self.strategy is other.strategy:
            return True
        try:
            return _dump_strategy(self.strategy) == _dump_strategy(other.strategy)
        except ValueError:  # of what cannot be written down nobody can say it
            return False

    def __hash__(self) -> int:
        return hash(type(self.strategy))

    def __repr__(self) -> str:
        return f"{type(self.strategy).__name__}(…)"


Wait = Backoff | TenacityWait


def as_wait(value: Any) -> Wait:
    """A wait of a number of seconds, a `Backoff`, a mapping of one, or a strategy of tenacity's.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(value, Backoff | TenacityWait):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise ValueError("give 0 seconds or more")
        return Backoff(first=value, factor=1, most=value, jitter=0)
    if isinstance(value, Mapping):
        return load_wait(value)
    if any(kind.__module__ == "tenacity.wait" for kind in type(value).__mro__):
        return TenacityWait(value)
    raise ValueError(
        "give seconds, a Backoff, or a wait strategy of tenacity, such as wait_exponential()"
    )


# Of each strategy that can be written down: its arguments, and the attributes that hold them.
STRATEGIES: dict[str, dict[str, str]] = {
    "wait_fixed": {"wait": "wait_fixed"},
    "wait_none": {"wait": "wait_fixed"},
    "wait_random": {"min": "wait_random_min", "max": "wait_random_max"},
    "wait_incrementing": {"start": "start", "increment": "increment", "max": "max"},
    "wait_exponential": {"multiplier": "multiplier", "max": "max", "exp_base": "exp_base",
                         "min": "min"},
    "wait_random_exponential": {"multiplier": "multiplier", "max": "max", "exp_base": "exp_base",
                                "min": "min"},
    "wait_exponential_jitter": {"initial": "initial", "max": "max", "exp_base": "exp_base",
                                "jitter": "jitter", "min": "min"},
}  # fmt: skip
# What is called otherwise since tenacity 9.2, the argument and the attribute. Records keep the name
# that every release of asyncz knows.
RENAMED = {"initial": "multiplier"}
LISTS = {"wait_combine": "wait_funcs", "wait_chain": "strategies"}
TENACITY = "tenacity"


def dump_wait(wait: Wait) -> dict[str, Any]:
    """A wait as JSON.

    Raises:
        ValueError: It is a strategy that somebody has written, which is not known elsewhere.
    """
    if isinstance(wait, Backoff):
        return wait.model_dump(mode="json")
    return {TENACITY: _dump_strategy(wait.strategy)}


def _dump_strategy(strategy: Any) -> dict[str, Any]:
    kind = type(strategy)
    name = kind.__name__
    if kind.__module__ == "tenacity.wait" and name in STRATEGIES:
        return {"type": name, **_arguments_of(strategy, STRATEGIES[name])}
    if kind.__module__ == "tenacity.wait" and name in LISTS:
        parts = getattr(strategy, LISTS[name])
        return {"type": name, "parts": [_dump_strategy(part) for part in parts]}
    raise ValueError(
        f"a persistent store cannot keep the wait strategy {name}; "
        f"it can keep a Backoff and {', '.join([*STRATEGIES, *LISTS])} of tenacity"
    )


def _arguments_of(strategy: Any, attributes: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for arg, attr in attributes.items():
        for name in (RENAMED.get(attr, attr), attr):
            if hasattr(strategy, name):  # a release before 9.2 has no `min` of its own everywhere
                found[arg] = getattr(strategy, name)
                break
    return found


def load_wait(record: Mapping[str, Any]) -> Wait:
    """The wait of its JSON.

    Raises:
        ValueError: It is none.
    """
    if TENACITY in record:
        return TenacityWait(_load_strategy(record[TENACITY]))
    return Backoff(**record)


def _load_strategy(record: Any) -> Any:
    try:
        from tenacity import wait as strategies
    except ImportError as exc:
        raise ValueError("it is a wait strategy of tenacity, which is not installed here") from exc
    name = record.get("type") if isinstance(record, Mapping) else None
    if name in LISTS:
        parts = record.get("parts")
        if isinstance(parts, list):
            return getattr(strategies, name)(*map(_load_strategy, parts))
    elif name in STRATEGIES:
        values = {arg: record.get(arg, 0 if arg == "min" else None) for arg in STRATEGIES[name]}
        if all(isinstance(value, int | float) for value in values.values()):
            return _build(getattr(strategies, name), values)
    raise ValueError("it is no wait strategy of tenacity that is known here")


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    """A strategy of its arguments, by the names that they have in this release of tenacity."""
    known = signature(kind).parameters
    named = {
        RENAMED[arg] if RENAMED.get(arg) in known else arg: value for arg, value in values.items()
    }
    return kind(**{arg: value for arg, value in named.items() if arg in known})
