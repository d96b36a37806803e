"""Texts of cron fields, read into sets of numbers.

Two dialects: `keyword` is that of `CronTrigger(hour=…)`, `crontab` that of `from_crontab`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

LONGEST_TEXT = 1_000
_SHOWN = 40
_PARSED_KEPT = 4_096

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_POSITIONS = {"1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5, "last": -1}

# '*', 'a' or 'a-b', each with '/step' or without; names stand where numbers do.
_RANGE = re.compile(r"(?:(\*)|([a-z]+|[0-9]+)(?:-([a-z]+|[0-9]+))?)(?:/([0-9]+))?", re.ASCII)
_POSITION = re.compile(r"([0-9a-z]+) +([a-z]+)", re.ASCII)
_NTH = re.compile(r"([a-z]+|[0-9]+)#([0-9]+)", re.ASCII)
_LAST = re.compile(r"([a-z]+|[0-9]+)l", re.ASCII)


class Special(NamedTuple):
    """A day that depends on its month.

    `position` counts the weekdays (Monday is 0) from 1, -1 is the last one. The weekday is None
    for the last day of the month, and `WORKING_DAY` for the last one from Monday to Friday.
    """

    weekday: int | None
    position: int


WORKING_DAY = 7
LAST_DAY = Special(None, -1)
LAST_WORKING_DAY = Special(WORKING_DAY, -1)


class FieldSet(NamedTuple):
    """What a field allows: bit n of `mask` for the number n, and the days that depend."""

    mask: int
    specials: tuple[Special, ...] = ()


class CronField(NamedTuple):
    """A field of a cron trigger: its name, the numbers and the names it takes."""

    name: str
    minimum: int
    maximum: int
    names: Mapping[str, int]

    @property
    def allowed(self) -> str:
        """What an error says about the numbers and names of this field."""
        text = f"{self.minimum} to {self.maximum}"
        if self.names:
            words = list(self.names)
            text += f" or {words[0]} to {words[-1]}"
        return text

    def number(self, word: str) -> int:
        """Return the number that a word stands for; `ValueError` when it is not of this field."""
        value = self.names.get(word)
        if value is None:
            if not word.isdigit():
                raise ValueError(f"{word!r} is not a name here")
            # A number of hundreds of digits is out of range, whatever it is.
            value = int(word) if len(word) < 10 else 10**9
            if not self.minimum <= value <= self.maximum:
                raise ValueError(f"{_short(word)} is out of range")
        return value


def _fields(weekdays: Mapping[str, int], highest_weekday: int) -> dict[str, CronField]:
    months = {name: number for number, name in enumerate(_MONTHS, 1)}
    rows = (
        CronField("year", 1970, 9999, {}),
        CronField("month", 1, 12, months),
        CronField("day", 1, 31, {}),
        CronField("week", 1, 53, {}),
        CronField("day_of_week", 0, highest_weekday, weekdays),
        CronField("hour", 0, 23, {}),
        CronField("minute", 0, 59, {}),
        CronField("second", 0, 59, {}),
    )
    return {field.name: field for field in rows}


KEYWORD_FIELDS = _fields({name: n for n, name in enumerate(_WEEKDAYS)}, 6)
CRONTAB_FIELDS = _fields({name: (n + 1) % 7 for n, name in enumerate(_WEEKDAYS)}, 7)
FIELD_NAMES = tuple(KEYWORD_FIELDS)


@lru_cache(maxsize=_PARSED_KEPT)
def read_field(name: str, text: str, crontab: bool) -> FieldSet:
    """Return what the text of a field allows; days of the week are from Monday = 0 on.

    Raises `ValueError` that names the field, the part at fault and what is allowed.
    """
    field = (CRONTAB_FIELDS if crontab else KEYWORD_FIELDS)[name]
    if len(text) > LONGEST_TEXT:
        raise ValueError(
            f"{name}: {_short(text)} has {len(text)} characters; at most {LONGEST_TEXT} are allowed"
        )
    mask = 0
    specials: list[Special] = []
    lowered = text.lower()
    for part in lowered.split(",") if "," in lowered else (lowered,):
        try:
            bits = _read_part(field, part if crontab else part.strip(" "), crontab)
        except ValueError as error:
            where = "" if part == lowered else f" in {_short(text)}"
            raise ValueError(
                f"{name}: {error}: {_short(part)}{where}; allowed are {_grammar(field, crontab)}"
            ) from None
        if isinstance(bits, Special):
            specials.append(bits)
        else:
            mask |= bits
    if crontab and name == "day_of_week":
        # Sunday is both 0 and 7 there; here it is 6.
        mask = (mask >> 1 | mask << 6) & 0x7F
    return FieldSet(mask, tuple(specials))


def _read_part(field: CronField, part: str, crontab: bool) -> int | Special:
    if part.isdigit() and part.isascii():
        return 1 << field.number(part)
    match = _RANGE.fullmatch(part)
    if match is None:
        special = _read_special(field, part, crontab)
        if special is None:
            raise ValueError("empty part" if not part else "cannot be read")
        return special
    star, first, last, step = match.groups()
    if first is not None and last is step is None and not first.isdigit():
        # Words such as 'last' and 'l' look like the names of a range.
        special = _read_special(field, part, crontab)
        if special is not None:
            return special
    low, high = field.minimum, field.maximum
    if star is None:
        low = field.number(first)
        if last is not None:
            high = _end_of_range(field, low, last, crontab)
        elif step is None:
            return 1 << low
    mask = (2 << high) - (1 << low)
    return mask if step is None else _thin_out(field, mask, low, high, step, crontab)


def _end_of_range(field: CronField, low: int, last: str, crontab: bool) -> int:
    # Sunday is 0 in a crontab, and 7 at the end of a range such as fri-sun.
    sunday = crontab and last == "sun" and field.name == "day_of_week"
    high = 7 if sunday else field.number(last)
    if high < low:
        raise ValueError("the range ends before it starts")
    return high


def _thin_out(field: CronField, mask: int, low: int, high: int, step: str, crontab: bool) -> int:
    size = int(step) if len(step) < 10 else 10**9
    if size == 0:
        raise ValueError("a step must be 1 or more")
    # Crontab lets a step be as long as its field; keyword fields hold it against the range.
    most = field.maximum - field.minimum + 1 if crontab else high - low
    if size > most:
        raise ValueError(f"a step of {_short(step)} is longer than the range, {most} at most")
    # Every size-th bit: a number whose bits are that far apart, cut to the range.
    count = (high - low) // size + 1
    return mask & (((1 << size * count) - 1) // ((1 << size) - 1) << low)


def _read_special(field: CronField, part: str, crontab: bool) -> Special | None:
    if field.name == "day":
        if crontab:
            return {"l": LAST_DAY, "lw": LAST_WORKING_DAY}.get(part)
        if part == "last":
            return LAST_DAY
        match = _POSITION.fullmatch(part)
        if match is None:
            return None
        return _read_position(match[1], match[2])
    if not crontab or field.name != "day_of_week":
        return None
    match = _NTH.fullmatch(part)
    if match is not None:
        if match[2] not in ("1", "2", "3", "4", "5"):
            raise ValueError(f"{_short(match[2])} is not from 1 to 5, the times a month can have")
        return Special((field.number(match[1]) - 1) % 7, int(match[2]))
    match = _LAST.fullmatch(part)
    return None if match is None else Special((field.number(match[1]) - 1) % 7, -1)


def _read_position(position: str, weekday: str) -> Special:
    if position not in _POSITIONS:
        raise ValueError(f"{position!r} is not one of {', '.join(_POSITIONS)}")
    if weekday not in _WEEKDAYS:
        raise ValueError(f"{weekday!r} is not one of {', '.join(_WEEKDAYS)}")
    return Special(_WEEKDAYS.index(weekday), _POSITIONS[position])


def _grammar(field: CronField, crontab: bool) -> str:
    text = f"{field.allowed}, '*', ranges 'a-b', steps '*/n' and 'a-b/n', and lists of these"
    if crontab and field.name == "day":
        return text + ", 'L', 'LW'"
    if crontab and field.name == "day_of_week":
        return text + ", '5L', '1#2'"
    if field.name == "day":
        return text + ", 'last', '2nd fri', 'last fri'"
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
