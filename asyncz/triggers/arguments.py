"""Checks of the arguments that triggers share; every error names the trigger and the field."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from asyncz.timezones import as_timezone
from asyncz.triggers.base import BaseTrigger, in_utc, require_alias
from asyncz.triggers.localtime import ZoneClock, clock_for, localize

_SHOWN = 40
# Some thirty years of seconds.
_MOST_JITTER = 1_000_000_000
# `fromisoformat` takes any character between date and time, and digits without end.
_ISO = re.compile(r"[0-9W-]{7,10}(?:[Tt ][0-9:.,]{2,20}(?:Z|z|[+-][0-9:.]{2,15})?)?", re.ASCII)


def shown(value: object) -> str:
    """Return the value as an error shows it: short, whatever was given."""
    if isinstance(value, (str, bytes, bytearray)):
        value = value[: _SHOWN + 1]
    try:
        # Of what holds others only the first few are looked at.
        holds_others = isinstance(value, (list, tuple, dict, set, frozenset))
        text = reprlib.repr(value) if holds_others else repr(value)
    except ValueError:
        # Python refuses to print an int of thousands of digits.
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def refuse_unknown(cls: type[BaseTrigger], unknown: Mapping[str, Any]) -> None:
    """Raise `ValueError` for arguments that the trigger does not have.

    The `type` of a stored record is let through when it is the trigger's own, so that a record
    can be given back as keyword arguments.
    """
    for name, value in unknown.items():
        if name != "type":
            raise ValueError(
                f"{cls.__name__}: unknown argument {name!r}; "
                f"allowed are {', '.join(cls.model_fields)}"
            )
        require_alias(cls, value)


def check_jitter(cls: type[BaseTrigger], jitter: Any) -> None:
    """Raise `ValueError` unless jitter is None or a number of seconds, from 0 to a billion."""
    if jitter is not None and not (is_number(jitter) and 0 <= jitter <= _MOST_JITTER):
        raise ValueError(
            f"{cls.__name__}: jitter must be a number of seconds from 0 to {_MOST_JITTER}, "
            f"not {shown(jitter)}"
        )


def check_flag(cls: type[BaseTrigger], flag: Any) -> None:
    """Raise `ValueError` unless `allow_mistrigger_by_default` is true or false."""
    if flag is not True and flag is not False:
        raise ValueError(
            f"{cls.__name__}: allow_mistrigger_by_default must be True or False, not {shown(flag)}"
        )


def is_number(value: Any) -> bool:
    """Tell whether the value is an int or a float; a bool is neither here."""
    return type(value) in (int, float)


def read_zone(cls: type[BaseTrigger], timezone: Any, *moments: Any) -> tzinfo | None:
    """Return the trigger's zone: the one given, else that of the first aware moment."""
    if timezone is not None:
        try:
            return as_timezone(timezone)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{cls.__name__}: timezone: {error}") from None
    for moment in moments:
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            try:
                return as_timezone(moment.tzinfo)
            except ValueError as error:
                raise ValueError(f"{cls.__name__}: {moment.isoformat()}: {error}") from None
    return None


def read_moment(cls: type[BaseTrigger], field: str, value: Any) -> datetime | None:
    """Return a datetime, date or ISO text as a datetime; a date is its midnight."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        text = value.strip()
        try:
            if _ISO.fullmatch(text):
                return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise ValueError(
        f"{cls.__name__}: {field} must be a datetime, a date or ISO text such as "
        f"'2030-01-31T09:00:00+01:00', not {shown(value)}"
    )


def in_zone(
    cls: type[BaseTrigger], field: str, moment: datetime, clock: ZoneClock | None
) -> datetime:
    """Return the moment in the trigger's zone; a naive one without any zone stays as it is."""
    if clock is None:
        return moment
    try:
        if moment.tzinfo is not None:
            # By way of UTC, so that one instant has one form: what the clock leapt over is none.
            return moment.astimezone(UTC).astimezone(clock.zone)
        return localize(moment, clock)
    except OverflowError:
        raise ValueError(
            f"{cls.__name__}: {field}={moment.isoformat()} is outside of the calendar "
            f"in {clock.zone}"
        ) from None


def known_clock(zone: tzinfo | None) -> ZoneClock | None:
    """Return the clock of the trigger's zone, None while it has none of its own."""
    return None if zone is None else clock_for(zone)


def check_order(cls: type[BaseTrigger], start_at: datetime | None, end_at: datetime | None) -> None:
    """Raise `ValueError` when the end lies before the start; two naive ones compare as such."""
    if start_at is None or end_at is None:
        return
    both = (start_at, end_at) if start_at.tzinfo is None else (in_utc(start_at), in_utc(end_at))
    if both[1] < both[0]:
        raise ValueError(
            f"{cls.__name__}: end_at={end_at.isoformat()} is before start_at={start_at.isoformat()}"
        )
