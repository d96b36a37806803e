"""The one sentinel of the public API, and what functions that take it are typed with."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

__all__ = ["Undefined", "UndefinedType", "undefined"]


class UndefinedType(Enum):
    """The type of `undefined`; an enum, so that type checkers narrow `value is undefined`."""

    UNDEFINED = "undefined"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "undefined"


Undefined = Literal[UndefinedType.UNDEFINED]

undefined: Final = UndefinedType.UNDEFINED
"""Says 'not given' where `None` has a meaning of its own (for example: paused, no limit)."""
