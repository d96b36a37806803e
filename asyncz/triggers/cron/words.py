"""Cron schedules in plain words.

Written here rather than left to a library: the keyword fields, the numbering of weekdays and
the rule of the two day fields have to be told exactly, and the words must not depend on what
else happens to be installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asyncz.triggers.cron.fields import CRONTAB_FIELDS, KEYWORD_FIELDS

_MONTHS = (
    "", "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December",
)  # fmt: skip
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_POSITIONS = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth"}
_MOST_TIMES = 6


class _Part(NamedTuple):
    """One part of a field: 'first-last/step', where any may be missing."""

    first: str
    last: str | None
    step: str | None


def describe(texts: Sequence[str], crontab: bool) -> str:
    """Return what the eight field texts mean, such as `at 09:30, Monday to Friday`."""
    year, month, day, week, weekday, hour, minute, second = texts
    parts = [_time_words(hour.lower(), minute.lower(), second.lower())]
    parts += _day_words(day.lower(), weekday.lower(), crontab)
    if week != "*":
        parts.append(f"in {_list(week, 'week', _numbered('week'))}")
    if month != "*":
        parts.append(f"in {_list(month.lower(), 'month', _month_word)}")
    if year != "*":
        parts.append(f"in {_list(year, 'year', str)}")
    return ", ".join(parts)


def summarize(texts: Mapping[str, str | None], crontab: bool) -> str:
    """Return the fields that say something, such as `hour='9-17', minute='*/5'`."""
    shown = {name: text for name, text in texts.items() if text is not None}
    if crontab:
        # What a crontab always has, and says nothing: stars, and the second 0.
        plain = {name: text for name, text in shown.items() if text != "*"}
        if plain.get("second") == "0":
            del plain["second"]
        shown = plain or {"minute": "*"}
        if "day_of_week" in shown:
            # The two numberings of weekdays differ; names do not.
            shown["day_of_week"] = _with_names(shown["day_of_week"].lower())
    return ", ".join(f"{name}='{text}'" for name, text in shown.items())


def _time_words(hour: str, minute: str, second: str) -> str:
    hours, minutes, seconds = (_plain_numbers(text) for text in (hour, minute, second))
    if hours and minutes and seconds and len(hours) * len(minutes) * len(seconds) <= _MOST_TIMES:
        clock = [
            f"{h:02}:{m:02}" if seconds == [0] else f"{h:02}:{m:02}:{s:02}"
            for h in hours
            for m in minutes
            for s in seconds
        ]
        return f"at {_and(clock)}"
    words = []
    if second != "0":
        words.append(_every_or_at(second, "second"))
    if minute != "*" or second == "0":
        words.append(_every_or_at(minute, "minute"))
    if hour == "*" and minute[:1] != "*":
        words.append("of every hour")
    elif hour != "*":
        words.append(f"during {_list(hour, 'hour', _numbered('hour'))}")
    return " ".join(words)


def _every_or_at(text: str, unit: str) -> str:
    words = _list(text, unit, _numbered(unit))
    return words if words.startswith("every") else f"at {words}"


def _day_words(day: str, weekday: str, crontab: bool) -> list[str]:
    by_day = "" if day == "*" else "on " + _list(day, "day", _day_word)
    if day[:1].isdigit() and " " not in day:
        by_day += " of the month"
    name = _crontab_weekday if crontab else _keyword_weekday
    by_weekday = "" if weekday == "*" else _list(weekday, "day of the week", name)
    if by_day and by_weekday and crontab and day[0] != "*" and weekday[0] != "*":
        return [f"{by_day} or {by_weekday}"]
    if by_day and by_weekday:
        return [f"{by_day} if that is {by_weekday}"]
    return [words for words in (by_day, by_weekday) if words]


def _list(text: str, unit: str, word: object) -> str:
    parts = [_split(part.strip()) for part in text.split(",")]
    words = [_part_words(part, unit, word) for part in parts]
    if len(parts) > 1 and all(part.last is None and part.step is None for part in parts):
        # 'hours 9, 13 and 17' rather than the unit before each.
        words = [w if n == 0 else w.removeprefix(f"{unit} ") for n, w in enumerate(words)]
        if words[0].startswith(f"{unit} "):
            words[0] = words[0].replace(unit, unit + "s", 1)
    return _and(words)


def _part_words(part: _Part, unit: str, word: object) -> str:
    name = word if callable(word) else str
    plural = unit.replace("day of the week", "day") + "s"
    first = str(name(part.first)) if part.first != "*" else ""
    if part.step is None:
        if not first:
            return f"every {unit}"
        if part.last is None:
            return first
        return f"{first} to {str(name(part.last)).removeprefix(unit + ' ')}"
    step = f"every {unit}" if part.step == "1" else f"every {part.step} {plural}"
    if not first:
        return step
    until = "on" if part.last is None else f"to {str(name(part.last)).removeprefix(unit + ' ')}"
    return f"{step} from {first} {until}"


def _split(part: str) -> _Part:
    body, _, step = part.partition("/")
    first, _, last = body.partition("-")
    return _Part(first, last or None, step or None)


def _plain_numbers(text: str) -> list[int]:
    parts = text.split(",")
    return sorted({int(part) for part in parts}) if all(part.isdigit() for part in parts) else []


def _numbered(unit: str) -> object:
    def word(text: str) -> str:
        return f"{unit} {int(text)}"

    return word


def _month_word(text: str) -> str:
    return _MONTHS[KEYWORD_FIELDS["month"].number(text)]


def _keyword_weekday(text: str) -> str:
    return _WEEKDAYS[KEYWORD_FIELDS["day_of_week"].number(text)]


def _crontab_weekday(text: str) -> str:
    day, _, position = text.partition("#")
    if position:
        return f"the {_POSITIONS[position]} {_crontab_weekday(day)} of the month"
    if text.endswith("l"):
        return f"the last {_crontab_weekday(text[:-1])} of the month"
    return _WEEKDAYS[(CRONTAB_FIELDS["day_of_week"].number(text) - 1) % 7]


def _day_word(text: str) -> str:
    if text in ("l", "last"):
        return "the last day of the month"
    if text == "lw":
        return "the last day from Monday to Friday of the month"
    position, _, weekday = text.partition(" ")
    if weekday:
        ordinal = _POSITIONS.get(position[0], position)
        return f"the {ordinal} {_keyword_weekday(weekday.strip())} of the month"
    return f"day {int(text)}"


def _with_names(text: str) -> str:
    return ",".join(_part_with_names(part) for part in text.split(","))


def _part_with_names(part: str) -> str:
    body, slash, step = part.partition("/")
    body, hash_, position = body.partition("#")
    ends = [
        _crontab_weekday(end.removesuffix("l"))[:3].lower()
        + end[len(end.removesuffix("l")) :].upper()
        if end[:1].isdigit()
        else end
        for end in body.split("-")
    ]
    return "-".join(ends) + hash_ + position + slash + step


def _and(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))  # 0 and 7 are both Sunday
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
