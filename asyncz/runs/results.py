"""What is kept of what a run returned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["noted_result"]

MAX_RESULT = 16_384
"""Bytes of JSON, as UTF-8, that are kept of what a run returned."""
MAX_REPR = 200
"""Characters that are kept of how it looks, if it is none or longer."""


def noted_result(value: Any) -> dict[str, Any]:
    """What a run returned, as it is if that is JSON and not too long; otherwise how it looks.

    A copy: the value is the user's, who may put something else into it a moment later. And as
    quick for a value of any size, as this may be done on the event loop.
    """
    try:
        if _may_be_short(value):
            text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            # Not what JSON only takes for something else: a tuple comes back as a list.
            if len(text.encode()) <= MAX_RESULT and (copy := json.loads(text)) == value:
                return {"result": copy}
    except Exception:  # noqa: S110  # it may be the user's code, and then it is no JSON
        pass
    return {"result_repr": _shown(value)}


def _may_be_short(value: Any) -> bool:
    """Whether its JSON may be short enough. Looks at no more of it than can be."""
    size, left = 0, [value]
    while left and size <= MAX_RESULT:
        item = left.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, list | dict):
            size += 2 * len(item)
            if size <= MAX_RESULT:
                left += item if isinstance(item, list) else [*item, *item.values()]
        elif isinstance(item, int):
            size += item.bit_length() // 4
        else:
            size += 1
    return size <= MAX_RESULT


def _shown(value: Any) -> str:
    """The beginning of its repr."""
    text = ""
    try:
        for piece in _pieces(value):
            text += piece[:MAX_REPR]
            if len(text) > MAX_REPR:
                break
    except Exception as exc:  # it is the user's code
        text = f"<{type(value).__name__}, whose repr fails: {type(exc).__name__}>"
    # Half a surrogate pair is no text that a server takes.
    return text[:MAX_REPR].encode("utf-8", "backslashreplace").decode()[:MAX_REPR]


BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    dict: ("{", "}"),
}


def _pieces(value: Any) -> Iterator[str]:
    """Its repr, bit by bit, so that of a long one no more is made than is wanted."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        yield repr(value[: MAX_REPR + 1])
    elif kind not in BRACKETS or not value:
        yield repr(value)
    else:
        opening, closing = BRACKETS[kind]
        yield opening
        for index, item in enumerate(value):
            if index:
                yield ", "
            yield from _pieces(item)
            if kind is dict:
                yield ": "
                yield from _pieces(value[item])
        yield ",)" if kind is tuple and len(value) == 1 else closing
