"""Arguments that only the callable's own annotations can bring back: models, dataclasses, enums.

The record says 'typed' and holds plain JSON; which type that is, the annotation of the parameter
says, in the code. So no record can name a type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, Signature, signature
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter, ValidationError

from asyncz.exceptions import SerializationError, UnreadableRecordError
from asyncz.serializers.values import (
    TAG,
    TYPED,
    UnsupportedValueError,
    decode_value,
    encode_value,
)

__all__ = ["decode_arguments", "encode_arguments"]

SUPPORTED = (
    "JSON values, datetime, date, time, timedelta, UUID, Decimal, bytes, tuple, set, frozenset"
)


def encode_arguments(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The JSON forms of the arguments of `fn`.

    Raises:
        SerializationError: One cannot be written; the message names it and says what to do.
    """
    return (
        [_encode(fn, index, f"args[{index}]", value) for index, value in enumerate(args)],
        {key: _encode(fn, key, f"kwargs[{key!r}]", value) for key, value in kwargs.items()},
    )


def decode_arguments(
    fn: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of those forms.

    Raises:
        UnreadableRecordError: One cannot be read, or is not valid for its annotation any more.
    """
    return (
        [_decode(fn, index, f"args[{index}]", form) for index, form in enumerate(args)],
        {key: _decode(fn, key, f"kwargs[{key!r}]", form) for key, form in kwargs.items()},
    )


def _encode(fn: Callable[..., Any], place: int | str, where: str, value: Any) -> Any:
    try:
        return encode_value(value, where)
    except UnsupportedValueError as exc:
        return {TAG: TYPED, "v": _encode_typed(fn, place, str(exc), value)}
    except RecursionError:
        raise SerializationError(
            f"{where} is nested too deeply, or contains itself; pass something flatter."
        ) from None


def _encode_typed(fn: Callable[..., Any], place: int | str, problem: str, value: Any) -> Any:
    try:
        adapter = _adapter(fn, place)
    except TypeError as exc:
        raise SerializationError(
            f"{problem}, and {exc}. Pass an id or another value that it can hold ({SUPPORTED}), "
            f"or annotate the parameter with the Pydantic model, dataclass or Enum."
        ) from None
    try:
        text = adapter.dump_json(value, warnings="error")
        back = adapter.validate_json(text)
    except Exception as exc:  # serializers and validators are the user's code too
        raise SerializationError(
            f"{problem}, and by its parameter's annotation it cannot be written and read back "
            f"({_reason(exc)}). Pass an id or another value instead ({SUPPORTED})."
        ) from None
    # A secret would come back as asterisks, a subclass as its base: better to say so now.
    if type(back) is not type(value) or not _is_equal(back, value):
        raise SerializationError(
            f"{problem}, and by its parameter's annotation it does not come back equal to what it "
            f"was. Annotate the parameter with its exact type, or pass an id or another value "
            f"({SUPPORTED})."
        )
    return json.loads(text)


def _is_equal(back: Any, value: Any) -> bool:
    try:
        return bool(back == value)
    except Exception:
        return False


def _decode(fn: Callable[..., Any], place: int | str, where: str, form: Any) -> Any:
    try:
        if not isinstance(form, dict) or form.get(TAG) != TYPED:
            return decode_value(form)
        return _adapter(fn, place).validate_json(json.dumps(form.get("v"), allow_nan=False))
    except UnreadableRecordError as exc:
        raise UnreadableRecordError(f"{where} cannot be read: {exc}") from None
    except Exception as exc:  # validators are the user's code
        raise UnreadableRecordError(
            f"{where} is not valid for its parameter's annotation any more ({_reason(exc)})"
        ) from None


def _reason(error: Exception) -> str:
    """What went wrong, without the value: it may be a secret."""
    if isinstance(error, ValidationError):
        items = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['type']}" for item in items[:5])
    return str(error) if type(error) is TypeError else type(error).__name__


_adapters: WeakKeyDictionary[Any, dict[int | str, TypeAdapter[Any]]] = WeakKeyDictionary()
_adapters_lock = Lock()


def _adapter(fn: Callable[..., Any], place: int | str) -> TypeAdapter[Any]:
    """The validator of one parameter. TypeError, in words, if its annotation gives none."""
    key = getattr(fn, "__func__", fn)  # a class method is a new object each time it is asked for
    known: dict[int | str, TypeAdapter[Any]] = {}
    with suppress(TypeError), _adapters_lock:  # not hashable, or no weak references to it
        known = _adapters.setdefault(key, known)
    found = known.get(place)
    if found is None:
        found = known[place] = _make_adapter(fn, place)
    return found


def _make_adapter(fn: Callable[..., Any], place: int | str) -> TypeAdapter[Any]:
    try:
        parameter = _parameter(signature(fn, eval_str=True), place)
    except (NameError, SyntaxError, AttributeError, ValueError) as exc:
        raise TypeError(f"the annotations of its callable cannot be looked at ({exc})") from None
    if parameter is None or parameter.annotation in (Parameter.empty, Any, object):
        raise TypeError("its parameter has no annotation that says what it is")
    try:
        return TypeAdapter(parameter.annotation)
    except Exception as exc:
        raise TypeError(
            f"Pydantic cannot validate the annotation of its parameter {parameter.name!r} "
            f"({type(exc).__name__})"
        ) from None


def _parameter(shape: Signature, place: int | str) -> Parameter | None:
    parameters = list(shape.parameters.values())
    if isinstance(place, str):
        named = shape.parameters.get(place)
        if named is not None and named.kind in (named.POSITIONAL_OR_KEYWORD, named.KEYWORD_ONLY):
            return named
        return next((item for item in parameters if item.kind is item.VAR_KEYWORD), None)
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    taking = [item for item in parameters if item.kind in positional]
    if place < len(taking):
        return taking[place]
    return next((item for item in parameters if item.kind is item.VAR_POSITIONAL), None)
