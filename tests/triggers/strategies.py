"""Expressions, zones and moments for the property and differential tests."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st

NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"

# The same examples on every ordinary run; the nightly run looks for new ones.
DIFFERENTIAL = settings(
    max_examples=20_000 if NIGHTLY else 500, deadline=None, derandomize=not NIGHTLY, database=None
)
ORDINARY = settings(
    max_examples=2_000 if NIGHTLY else 150, deadline=None, derandomize=not NIGHTLY, database=None
)
# For those that look at each hour of days, an example at a time.
SLOW = settings(
    max_examples=1_000 if NIGHTLY else 50, deadline=None, derandomize=not NIGHTLY, database=None
)

ZONE_NAMES = (
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Asia/Tehran",
    "UTC",
)
MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

zones = st.sampled_from([ZoneInfo(name) for name in ZONE_NAMES])

_years = st.integers(min_value=2005, max_value=2031)


def moments(zone: ZoneInfo | None = None) -> st.SearchStrategy[datetime]:
    """Return aware moments, with and without fractions of a second; UTC unless a zone is given."""
    seconds = st.integers(min_value=0, max_value=366 * 86_400 - 1)
    micros = st.sampled_from((0, 0, 1, 500_000, 999_999))

    def build(year: int, second: int, micro: int) -> datetime:
        start = datetime(year, 1, 1, tzinfo=UTC)
        moment = start + timedelta(seconds=second, microseconds=micro)
        return moment if zone is None else moment.astimezone(zone)

    return st.builds(build, _years, seconds, micros)


def _part(draw: st.DrawFn, low: int, high: int, longest_step: int | None = None) -> str:
    first = draw(st.integers(low, high))
    last = draw(st.integers(first, high))
    kind = draw(st.sampled_from(("number", "number", "range", "star/step", "range/step")))
    if kind == "number":
        return str(first)
    if kind == "range":
        return f"{first}-{last}"
    if kind == "star/step":
        return f"*/{draw(st.integers(1, longest_step or high - low))}"
    if last == first:
        return str(first)
    return f"{first}-{last}/{draw(st.integers(1, last - first))}"


@st.composite
def field_texts(draw: st.DrawFn, low: int, high: int) -> str:
    """Draw a list of one to three parts from `low` to `high`."""
    return ",".join(_part(draw, low, high) for _ in range(draw(st.integers(1, 3))))


def _or_star(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), texts)


@st.composite
def crontabs(draw: st.DrawFn, seconds: bool = False) -> str:
    """Draw a crontab expression: five fields, or six."""
    day = st.one_of(
        st.just("*"), field_texts(1, 31), st.sampled_from(("L", "LW", "1,L", "15,LW", "*/10"))
    )
    weekday = st.one_of(
        st.just("*"),
        field_texts(0, 7),
        st.sampled_from(("mon-fri", "SUN", "5L", "7L", "1#2", "mon#1,fri#3", "0#5", "sat", "2L,4")),
    )
    month = st.one_of(st.just("*"), field_texts(1, 12), st.sampled_from(MONTH_NAMES))
    fields = [
        draw(_or_star(field_texts(0, 59))),
        draw(_or_star(field_texts(0, 23))),
        draw(day),
        draw(month),
        draw(weekday),
    ]
    if seconds:
        fields.insert(0, draw(_or_star(field_texts(0, 59))))
    return " ".join(fields)


@st.composite
def keyword_fields(draw: st.DrawFn) -> dict[str, str]:
    """Draw keyword fields of `CronTrigger`; at least one of them."""
    positions = st.builds(
        "{} {}".format,
        st.sampled_from(("1st", "2nd", "3rd", "4th", "5th", "last")),
        st.sampled_from(WEEKDAY_NAMES),
    )
    weekday_range = st.sampled_from(("mon-fri", "sat,sun", "wed", "tue-thu, sun"))
    choices: dict[str, st.SearchStrategy[str]] = {
        "year": st.sampled_from(("2010-2040", "*/3", "2024,2028", "*", "2030")),
        "month": st.one_of(field_texts(1, 12), st.sampled_from(("jan-mar", "dec", "feb"))),
        "day": st.one_of(field_texts(1, 31), st.just("last"), positions, st.just("2nd fri, 20")),
        "week": field_texts(1, 53),
        "day_of_week": st.one_of(field_texts(0, 6), weekday_range),
        "hour": field_texts(0, 23),
        "minute": field_texts(0, 59),
        "second": field_texts(0, 59),
    }
    names = draw(st.sets(st.sampled_from(sorted(choices)), min_size=1, max_size=4))
    return {name: draw(choices[name]) for name in choices if name in names}
