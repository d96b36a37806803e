"""Argument values as JSON: what JSON has is written as it is, the rest as a tagged object.

A tagged object is `{"$": tag, "v": …}`. A dictionary that has the key "$" itself, or keys that
are not text, is written as a tagged list of pairs; so no value can pass for another.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from asyncz.exceptions import SerializationError, UnreadableRecordError
from asyncz.timezones import as_timezone

__all__ = ["TAG", "UnsupportedValueError", "decode_value", "encode_value", "is_clean_text"]

TAG = "$"
TYPED = "typed"
"""The tag of what only the callable's annotations can read; it is not for this module."""

LONGEST_DECIMAL_BITS = 4096
"""Python refuses to read decimal numbers of more than 4,300 digits; longer ones go as hex."""

MICROSECOND = timedelta(microseconds=1)


class UnsupportedValueError(SerializationError):
    """A value of a type that a record cannot hold by itself."""


def encode_value(value: Any, where: str) -> Any:
    """The JSON form of a value.

    Args:
        value: Of the supported types exactly; a subclass would come back as something else.
        where: What the error calls it, such as `args[1]`.

    Raises:
        UnsupportedValueError: Its type, or that of something in it, is not supported.
        SerializationError: Something else about it cannot be written.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise UnsupportedValueError(
            f"{where}: a record cannot hold a value of the type {_type_name(value)}"
        )
    return encoder(value, where)


def decode_value(value: Any) -> Any:
    """The value of a JSON form.

    Raises:
        UnreadableRecordError: It is not one that `encode_value` writes.
    """
    if type(value) is list:
        return [decode_value(item) for item in value]
    if type(value) is not dict:
        return value
    if TAG not in value:
        return {key: decode_value(item) for key, item in value.items()}
    tag = value[TAG]
    decoder = _DECODERS.get(tag) if isinstance(tag, str) else None
    if decoder is None:
        raise UnreadableRecordError(f"it has a value with the unknown tag {str(tag)[:40]!r}")
    try:
        return decoder(value)
    except UnreadableRecordError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
        raise UnreadableRecordError(
            f"it has a value tagged {tag!r} that is none ({type(exc).__name__})"
        ) from None


def is_clean_text(text: object) -> bool:
    """Whether it is a text that can be written as UTF-8: with no half of a surrogate pair."""
    if not isinstance(text, str):
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(value: Any) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {TAG: tag, "v": value}


# ---- writing


def _as_is(value: Any, where: str) -> Any:
    return value


def _encode_int(value: int, where: str) -> Any:
    return value if value.bit_length() <= LONGEST_DECIMAL_BITS else _tagged("int", hex(value))


def _encode_float(value: float, where: str) -> Any:
    return value if isfinite(value) else _tagged("float", repr(value))


def _encode_str(value: str, where: str) -> Any:
    if is_clean_text(value):
        return value
    # Two lone halves would be read as one character.
    return _tagged("str", b64encode(value.encode("utf-8", "surrogatepass")).decode())


def _encode_list(value: list[Any], where: str) -> Any:
    return [encode_value(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _encode_tuple(value: tuple[Any, ...], where: str) -> Any:
    return _tagged("tuple", _encode_list(list(value), where))


def _encode_set(value: set[Any] | frozenset[Any], where: str) -> Any:
    items = [encode_value(item, f"an item of {where}") for item in value]
    # Sorted, so that an unchanged task gives an unchanged record.
    items.sort(key=lambda item: json.dumps(item, sort_keys=True))
    return _tagged(type(value).__name__, items)


def _encode_dict(value: dict[Any, Any], where: str) -> Any:
    encoded = {key: encode_value(item, _place(where, key)) for key, item in value.items()}
    if TAG not in encoded and all(type(key) is str and is_clean_text(key) for key in encoded):
        return encoded
    pairs = [[encode_value(key, f"a key of {where}"), item] for key, item in encoded.items()]
    return _tagged("dict", pairs)


def _place(where: str, key: Any) -> str:
    shown = ascii(key) if isinstance(key, int | str) else type(key).__name__
    return f"{where}[{shown if len(shown) <= 60 else shown[:60] + '…'}]"


def _encode_bytes(value: bytes, where: str) -> Any:
    return _tagged("bytes", b64encode(value).decode())


def _encode_text_of(value: Any, where: str) -> Any:
    return _tagged(type(value).__name__.lower(), str(value))


def _encode_date(value: date, where: str) -> Any:
    return _tagged("date", value.isoformat())


def _encode_timedelta(value: timedelta, where: str) -> Any:
    return _tagged("timedelta", [value.days, value.seconds, value.microseconds])


def _encode_datetime(value: datetime, where: str) -> Any:
    return _encode_clock(value, where, value)


def _encode_time(value: time, where: str) -> Any:
    return _encode_clock(value, where, None)


def _encode_clock(value: datetime | time, where: str, moment: datetime | None) -> Any:
    """A datetime or time: the wall clock, the fold, and the zone by its name or fixed offset."""
    encoded = _tagged(type(value).__name__, value.replace(tzinfo=None).isoformat())
    zone = value.tzinfo
    if value.fold:
        encoded["fold"] = 1
    if isinstance(zone, timezone):
        offset = zone.utcoffset(None)
        encoded["offset"] = offset // MICROSECOND
        if zone.tzname(None) != timezone(offset).tzname(None):
            encoded["name"] = zone.tzname(None)
    elif zone is not None:
        name = getattr(zone, "key", None) or getattr(zone, "zone", None)
        named = _named_zone(name, zone, where)
        encoded["zone"] = name
        if moment is not None and not isinstance(zone, ZoneInfo):
            _set_fold(encoded, moment, named, where)
    return encoded


def _named_zone(name: object, zone: tzinfo, where: str) -> tzinfo:
    try:
        if isinstance(name, str):
            return as_timezone(name)
    except ValueError:
        pass
    raise SerializationError(
        f"{where}: its time zone {type(zone).__name__} has no IANA name, so that it could not be "
        f"found again; use zoneinfo.ZoneInfo"
    )


def _set_fold(encoded: dict[str, Any], moment: datetime, zone: tzinfo, where: str) -> None:
    # pytz tells the two passes of a repeated hour apart by the zone object, not by the fold.
    for fold in (0, 1):
        if moment.replace(tzinfo=zone, fold=fold).utcoffset() == moment.utcoffset():
            encoded["fold"] = fold
            return
    raise SerializationError(
        f"{where}: its offset is not one that its zone {encoded['zone']!r} has then; "
        f"use zoneinfo.ZoneInfo"
    )


_ENCODERS: dict[type, Callable[[Any, str], Any]] = {
    type(None): _as_is,
    bool: _as_is,
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    list: _encode_list,
    dict: _encode_dict,
    tuple: _encode_tuple,
    set: _encode_set,
    frozenset: _encode_set,
    bytes: _encode_bytes,
    datetime: _encode_datetime,
    date: _encode_date,
    time: _encode_time,
    timedelta: _encode_timedelta,
    UUID: _encode_text_of,
    Decimal: _encode_text_of,
}


# ---- reading


def _text(value: dict[str, Any]) -> str:
    text = value["v"]
    if not isinstance(text, str):
        raise TypeError
    return text


def _items(value: dict[str, Any]) -> list[Any]:
    items = value["v"]
    if not isinstance(items, list):
        raise TypeError
    return [decode_value(item) for item in items]


def _decode_int(value: dict[str, Any]) -> int:
    return int(_text(value), 16)


def _decode_float(value: dict[str, Any]) -> float:
    return {"inf": float("inf"), "-inf": -float("inf"), "nan": float("nan")}[_text(value)]


def _decode_bytes(value: dict[str, Any]) -> bytes:
    return b64decode(_text(value), validate=True)


def _decode_str(value: dict[str, Any]) -> str:
    return _decode_bytes(value).decode("utf-8", "surrogatepass")


def _decode_dict(value: dict[str, Any]) -> dict[Any, Any]:
    return {decode_value(key): decode_value(item) for key, item in value["v"]}


def _decode_decimal(value: dict[str, Any]) -> Decimal:
    try:
        return Decimal(_text(value))
    except InvalidOperation:
        raise ValueError from None


def _decode_timedelta(value: dict[str, Any]) -> timedelta:
    days, seconds, microseconds = value["v"]
    if any(type(part) is not int for part in (days, seconds, microseconds)):
        raise TypeError
    return timedelta(days, seconds, microseconds)


def _decode_clock(kind: type[datetime] | type[time]) -> Callable[[dict[str, Any]], Any]:
    def decode(value: dict[str, Any]) -> datetime | time:
        moment = kind.fromisoformat(_text(value))
        if moment.tzinfo is not None:
            raise ValueError
        return moment.replace(tzinfo=_decode_zone(value), fold=value.get("fold", 0))

    return decode


def _decode_zone(value: dict[str, Any]) -> tzinfo | None:
    if "zone" in value:
        name = value["zone"]
        if not isinstance(name, str):
            raise TypeError
        return as_timezone(name)
    if "offset" not in value:
        return None
    offset = timedelta(microseconds=value["offset"])
    if "name" in value:
        return timezone(offset, value["name"])
    return UTC if not offset else timezone(offset)


_DECODERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "int": _decode_int,
    "float": _decode_float,
    "str": _decode_str,
    "dict": _decode_dict,
    "tuple": lambda value: tuple(_items(value)),
    "set": lambda value: set(_items(value)),
    "frozenset": lambda value: frozenset(_items(value)),
    "bytes": _decode_bytes,
    "datetime": _decode_clock(datetime),
    "date": lambda value: date.fromisoformat(_text(value)),
    "time": _decode_clock(time),
    "timedelta": _decode_timedelta,
    "uuid": lambda value: UUID(_text(value)),
    "decimal": _decode_decimal,
}
