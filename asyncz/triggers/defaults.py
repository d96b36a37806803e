"""What the fields of a trigger have by default, worked out once for each class."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta, tzinfo
from functools import lru_cache, partial
from typing import Any, NamedTuple

from pydantic import BaseModel

__all__ = ["UNCHANGING", "Default", "defaults_of"]

UNCHANGING = (str, int, float, date, timedelta, tzinfo, type(None))
"""Types whose values stay what they are, as an option of a trigger may be."""


class Default(NamedTuple):
    """What a field has if nothing is given.

    Args:
        name: The field's.
        has_default: Whether it may be left out.
        default: Its default.
        make_default: For one that is not the same object each time.
    """

    name: str
    has_default: bool
    default: Any
    make_default: Callable[[], Any] | None


@lru_cache(maxsize=256)
def defaults_of(cls: type[BaseModel]) -> list[Default]:
    fields = []
    for name, field in cls.model_fields.items():
        if field.is_required():
            fields.append(Default(name, False, None, None))
        elif field.default_factory is None and isinstance(field.default, UNCHANGING):
            fields.append(Default(name, True, field.default, None))
        else:
            make_default = partial(field.get_default, call_default_factory=True)
            fields.append(Default(name, True, None, make_default))
    return fields
