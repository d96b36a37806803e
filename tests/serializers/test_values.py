"""Argument values: written as JSON, read back as they were."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from math import copysign, isnan
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import pytz
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncz.exceptions import SerializationError, UnreadableRecordError
from asyncz.serializers.values import TAG, UnsupportedValueError, decode_value, encode_value

ZONES: st.SearchStrategy[tzinfo] = st.one_of(
    st.sampled_from([ZoneInfo(name) for name in ("Europe/Berlin", "Asia/Kathmandu", "UTC")]),
    st.just(UTC),
    st.integers(-86_399_999_999, 86_399_999_999).map(
        lambda offset: timezone(timedelta(microseconds=offset))
    ),
    st.just(timezone(timedelta(hours=2), "ours")),
)
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates too
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    TEXTS,
    st.binary(max_size=20),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.timedeltas(),
    st.times(timezones=st.none() | ZONES),
    st.datetimes(timezones=st.none() | ZONES, allow_imaginary=True),
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.dictionaries(TEXTS | st.just(TAG), inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=20,
)


def through_json(value: Any) -> Any:
    text = json.dumps(encode_value(value, "args[0]"), ensure_ascii=False, allow_nan=False)
    return decode_value(json.loads(text.encode()))


def is_same(one: Any, other: Any) -> bool:
    """Equal in value, type, zone, fold and order, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            is_same(a, b) for a, b in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, set | frozenset):
        return bool(one == other)
    if isinstance(one, datetime | time):
        if one.replace(tzinfo=None) != other.replace(tzinfo=None) or one.fold != other.fold:
            return False
        return repr(one.tzinfo) == repr(other.tzinfo) and type(one.tzinfo) is type(other.tzinfo)
    if isinstance(one, float):
        return one == other and copysign(1, one) == copysign(1, other)
    return bool(one == other) and str(one) == str(other)


@settings(max_examples=500, deadline=None)
@given(VALUES)
def test_every_supported_value_comes_back_as_it_was(value: Any) -> None:
    assert is_same(through_json(value), value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES.filter(lambda value: "inf" not in repr(value) and repr(TAG) not in repr(value)))
def test_json_values_are_written_as_they_are(value: Any) -> None:
    assert encode_value(value, "args[0]") == value


def test_not_a_number_stays_that() -> None:
    assert isnan(through_json(float("nan")))
    assert through_json(Decimal("sNaN")).is_snan()


@pytest.mark.parametrize("bits", [4095, 4096, 4097, 100_000])
def test_integers_of_any_size(bits: int) -> None:
    assert through_json(1 << bits) == 1 << bits
    assert through_json(-(1 << bits)) == -(1 << bits)


def test_two_half_pairs_are_not_joined() -> None:
    assert through_json(["\ud83d", "\ude00", "\ud83d" + "\ude00"])[2] != "😀"


@pytest.mark.parametrize("hour", [0, 1])
def test_a_zone_of_pytz_becomes_the_zone_of_that_name_at_the_same_instant(hour: int) -> None:
    zone = pytz.timezone("Europe/Berlin")
    moment = zone.localize(datetime(2031, 10, 26, 2, 30), is_dst=not hour)
    back = through_json(moment)
    assert back.tzinfo == ZoneInfo("Europe/Berlin")
    assert back.astimezone(UTC) == moment.astimezone(UTC)


class Nameless(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta()

    def tzname(self, moment: datetime | None) -> str:
        return "ours"


@pytest.mark.parametrize(
    "value", [datetime(2031, 1, 1, tzinfo=Nameless()), time(1, tzinfo=Nameless())]
)
def test_a_zone_without_a_name_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match=r"args\[0\].*ZoneInfo"):
        encode_value(value, "args[0]")


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    a: int
    b: int


class Color(Enum):
    RED = 1


UNSUPPORTED = [
    object(),
    Text("x"),
    Color.RED,
    OrderedDict(a=1),
    defaultdict(int),
    Pair(1, 2),
    bytearray(b"x"),
    1j,
    range(3),
    print,
    int,
    ValueError("x"),
]


@pytest.mark.parametrize("value", UNSUPPORTED, ids=lambda value: type(value).__name__)
def test_any_other_type_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedValueError, match="cannot hold a value of the type"):
        encode_value(value, "args[0]")


def test_the_error_says_where() -> None:
    with pytest.raises(SerializationError, match=r"kwargs\['a'\]\['b'\]\[2\]"):
        encode_value({"b": [1, 2, object()]}, "kwargs['a']")
    with pytest.raises(SerializationError, match=r"an item of args\[0\]"):
        encode_value({object()}, "args[0]")


def test_the_error_does_not_say_the_value() -> None:
    with pytest.raises(SerializationError) as caught:
        encode_value(Text("hunter2"), "args[0]")
    assert "hunter2" not in str(caught.value)


def test_equal_sets_give_equal_records() -> None:
    names = [f"name{number}" for number in range(50)]
    one, other = set(names), set()
    for name in reversed(names):
        other.add(name)
    assert encode_value(one, "x") == encode_value(other, "x")


BROKEN: list[Any] = [
    {TAG: "unknown", "v": 1},
    {TAG: 5},
    {TAG: ["datetime"]},
    {TAG: "datetime"},
    {TAG: "datetime", "v": 5},
    {TAG: "datetime", "v": "yesterday"},
    {TAG: "datetime", "v": "2031-01-01T00:00:00+01:00"},
    {TAG: "datetime", "v": "2031-01-01", "zone": "../../etc/passwd"},
    {TAG: "datetime", "v": "2031-01-01", "zone": "Europe"},
    {TAG: "datetime", "v": "2031-01-01", "zone": "os.system"},
    {TAG: "datetime", "v": "2031-01-01", "zone": 5},
    {TAG: "datetime", "v": "2031-01-01", "offset": 10**30},
    {TAG: "datetime", "v": "2031-01-01", "offset": "x"},
    {TAG: "datetime", "v": "2031-01-01", "fold": 7},
    {TAG: "time", "v": "25:00"},
    {TAG: "timedelta", "v": [10**12, 0, 0]},
    {TAG: "timedelta", "v": [1, 2]},
    {TAG: "timedelta", "v": ["a", 1, 1]},
    {TAG: "uuid", "v": "x"},
    {TAG: "decimal", "v": "x"},
    {TAG: "bytes", "v": "*"},
    {TAG: "int", "v": "zz"},
    {TAG: "float", "v": "1.0"},
    {TAG: "tuple", "v": 5},
    {TAG: "tuple", "v": {"a": 1}},
    {TAG: "set", "v": [[1]]},
    {TAG: "dict", "v": [[1]]},
    {TAG: "dict", "v": [[[1], 2]]},
    {TAG: "dict", "v": 5},
    {TAG: "typed", "v": 1},
    [{"a": {TAG: "unknown"}}],
]


@pytest.mark.parametrize("form", BROKEN, ids=str)
def test_what_was_never_written_cannot_be_read(form: Any) -> None:
    with pytest.raises(UnreadableRecordError, match="tag"):
        decode_value(form)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.sampled_from(["datetime", "UTC", "1"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([TAG, "v", "zone", "offset", "fold", "name", "x"]), inner
            )
        ),
    )
)
def test_anything_else_is_a_value_or_an_unreadable_record(form: Any) -> None:
    with suppress(UnreadableRecordError):
        decode_value(form)


def test_a_date_is_not_taken_for_a_datetime() -> None:
    assert type(through_json(date(2031, 1, 1))) is date
