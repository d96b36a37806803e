"""Time zones: every accepted spelling becomes one `tzinfo`, and one stable text for storage."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])([0-9]{1,2})(?::?([0-9]{2})(?::?([0-9]{2}))?)?", re.ASCII)
_LONGEST_NAME = 255
_SHOWN = 40


def as_timezone(value: str | tzinfo) -> tzinfo:
    """Return the time zone that `value` stands for.

    `value` is an IANA name (`"Europe/Berlin"`), a fixed offset (`"+02:00"`, `"-0330"`,
    `"UTC+2"`), a `zoneinfo.ZoneInfo`, a `datetime.timezone`, or a zone of another library that
    tells its IANA name (`pytz`) or has one offset only. The last two are converted, so that
    every zone in use is a `ZoneInfo` or a `datetime.timezone`.

    Raises `ValueError` for a name that does not exist and for a zone that cannot be named, and
    `TypeError` for anything that is neither text nor a `tzinfo`.
    """
    if isinstance(value, ZoneInfo):
        # A zone read from a file has no name, and could not be stored.
        if value.key is not None:
            return value
        raise ValueError("time zone has no IANA name; make it with ZoneInfo('Area/City')")
    if isinstance(value, timezone):
        return _whole_seconds(value)
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, tzinfo):
        return _from_foreign(value)
    raise TypeError(
        f"time zone must be an IANA name, an offset such as '+02:00' or a tzinfo, "
        f"not {type(value).__name__}"
    )


def zone_name(tz: tzinfo) -> str:
    """Return the stable text of a zone: its IANA name, or its offset such as `+02:00`.

    `as_timezone(zone_name(tz)) == as_timezone(tz)` for every zone that `as_timezone` accepts.
    """
    zone = as_timezone(tz)
    if isinstance(zone, ZoneInfo):
        return zone.key
    return _offset_text(zone.utcoffset(None) or timedelta(0))


def local_timezone() -> tzinfo:
    """Return the zone of this machine, for callers that were given no zone at all."""
    from tzlocal import get_localzone

    return as_timezone(get_localzone())


def _from_text(text: str) -> tzinfo:
    name = text.strip()
    if name.upper() == "UTC":
        return ZoneInfo("UTC")
    offset = _offset_of(name) if len(name) <= _SHOWN else None
    if offset is not None:
        return offset
    try:
        if not name.isascii() or len(name) > _LONGEST_NAME:
            raise ZoneInfoNotFoundError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # An absent name, a path, a folder such as 'America', an unreadable file: one answer.
        raise ValueError(
            f"unknown time zone {_shown(text)}; use an IANA name such as 'Europe/Berlin', "
            f"'UTC', or an offset such as '+02:00'"
        ) from None


@lru_cache(maxsize=256)  # a stored record has its zone as text, and there are few zones
def _offset_of(name: str) -> timezone | None:
    match = _OFFSET.fullmatch(name)
    if match is None:
        return None
    sign, hours, minutes, seconds = match.groups()
    if int(minutes or 0) > 59 or int(seconds or 0) > 59 or int(hours) > 23:
        raise ValueError(
            f"time zone offset {_shown(name)} is out of range; allowed is -23:59 to +23:59"
        )
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0))
    return timezone(-offset if sign == "-" else offset)


def _from_foreign(value: tzinfo) -> tzinfo:
    source: Any = value
    name = getattr(source, "zone", None) or getattr(source, "key", None)
    if isinstance(name, str):
        return _from_text(name)
    # A zone whose offset depends on the date answers None without one; pytz's and dateutil's
    # fixed offsets answer.
    offset = value.utcoffset(None)
    if offset is None:
        raise ValueError(
            f"time zone {_shown(str(value))} of type {type(value).__name__} has no IANA name; "
            f"use zoneinfo.ZoneInfo or the name itself"
        )
    return _whole_seconds(timezone(offset))


def _whole_seconds(zone: timezone) -> timezone:
    # `timezone.utc` itself is by far the most common; the rest of the check is not for it.
    if zone is not UTC and zone.utcoffset(None).microseconds:
        raise ValueError(f"time zone offset {zone} is not a whole number of seconds")
    return zone


@lru_cache(maxsize=256)
def _offset_text(offset: timedelta) -> str:
    sign = "-" if offset < timedelta(0) else "+"
    clock = datetime(2000, 1, 1) + abs(offset)
    return f"{sign}{clock:%H:%M:%S}" if clock.second else f"{sign}{clock:%H:%M}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
