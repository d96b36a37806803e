"""Values with options, which say in our words what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from asyncz.exceptions import TaskOptionError

__all__ = ["Checked", "explain", "near"]

NEAR = 0.5
"""How much alike two names must be for one to be meant by the other, from 0 to 1."""
VALUE_ERROR = "Value error, "


class Checked(BaseModel):
    """A frozen model whose errors are `TaskOptionError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as exc:
            kind = type(self)
            title = f"Bad options of {kind.__name__}"
            raise TaskOptionError(explain(title, exc, kind.model_fields)) from None


def near(name: str, known: Iterable[str]) -> list[str]:
    """Those of the known names that may be meant by one that is not."""
    names = [*known]
    first_word, underscore, _ = name.partition("_")
    alike = [each for each in names if underscore and each.startswith(f"{first_word}_")]
    return alike or get_close_matches(name, names, 3, NEAR)


def explain(title: str, error: ValidationError, known: Iterable[str]) -> str:
    """All that was wrong, by option, without the values: they may be secrets.

    Args:
        title: Whose options they are.
        error: What Pydantic says.
        known: The options there are.
    """
    names = [*known]
    parts = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        option = str(item["loc"][0])
        what = item["msg"].removeprefix(VALUE_ERROR).rstrip(".")
        if item["type"] == "extra_forbidden":
            meant = near(option, names) or names
            what = f"there is no such option; there is {', '.join(meant)}"
        parts.append(f"{option}: {what}")
    return f"{title}: " + "; ".join(dict.fromkeys(parts)) + "."
