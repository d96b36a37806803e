"""What every trigger is: a frozen value that maps a previous time to the next one."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import wraps
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    SerializationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import to_jsonable_python

from asyncz.timezones import zone_name
from asyncz.triggers.defaults import defaults_of

P = ParamSpec("P")
T = TypeVar("T")

MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
# How many single steps a search may take where nothing can be computed.
MOST_STEPS = 1_000

# What the general validation puts, by the slots themselves: three times faster than by name.
_put_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_put_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_put_private = BaseModel.__dict__["__pydantic_private__"].__set__


class BaseTrigger(BaseModel):
    """A schedule: a pure value, without a clock of its own.

    A subclass sets `alias` and writes `get_next_trigger_time`; everything else has a default
    that works by asking for one time after another, at most 1,000 of them.

    Args:
        jitter: the most seconds by which an occurrence is put off at random; None for none.
        allow_mistrigger_by_default: whether a run may be late by any amount when the task does
            not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    alias: ClassVar[str] = ""
    # What a question costs in a search of a combination, in questions to a quick trigger.
    search_cost: ClassVar[int] = 4

    jitter: float | None = None
    allow_mistrigger_by_default: bool = False

    @abstractmethod
    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        """Return the next time to run, or None when there is none.

        Args:
            timezone: the zone of a trigger that was made without one.
            previous_time: the time that was scheduled last (with its jitter); the answer is the
                first occurrence strictly after it.
            now: the present, used when there is no `previous_time`; the answer is then the
                first occurrence at or after it.
        """

    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        """Return the latest occurrence t with t <= moment, and t > after where that is given.

        None when there is none. This default goes forward from `after`, and answers None as
        well when `after` is missing or lies more than 1,000 occurrences back: the caller then
        goes on from `after` with `get_next_trigger_time`.
        """
        if after is None:
            return None
        latest = None
        for _ in range(MOST_STEPS):
            following = self.get_next_trigger_time(timezone, latest or after, moment)
            if following is None or in_utc(following) > in_utc(moment):
                return latest
            latest = following
        return None

    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        """Return how many occurrences t there are with after < t <= until.

        None when that is not known within a bounded effort, here 1,000 occurrences.
        """
        moment = after
        for count in range(MOST_STEPS):
            following = self.next_base_time(timezone, moment, until)
            if following is None or in_utc(following) > in_utc(until):
                return count
            moment = following
        return None

    def get_run_times(
        self,
        start: datetime,
        end: datetime | None,
        limit: int,
        timezone: tzinfo | None = None,
    ) -> list[datetime]:
        """Return at most `limit` occurrences t with start <= t <= end, without jitter.

        Raises `ValueError` when `limit` is negative or `start` has no time zone.
        """
        if limit < 0:
            raise ValueError(f"get_run_times: limit must be 0 or more, not {limit}")
        times: list[datetime] = []
        moment = self.next_base_time(timezone, None, require_aware("start", start))
        first = in_utc(start)
        last = None if end is None else in_utc(require_aware("end", end))
        while moment is not None and len(times) < limit:
            if last is not None and in_utc(moment) > last:
                break
            if in_utc(moment) >= first:
                times.append(moment)
            else:
                # A one-off that is past comes first all the same.
                moment = first - MICROSECOND
            moment = self.next_base_time(timezone, moment, None)
        return times

    def apply_jitter(
        self, next_trigger_time: datetime | None, jitter: float | None, now: datetime | None
    ) -> datetime | None:
        """Return the time put off by up to `jitter` seconds at random; None stays None."""
        if next_trigger_time is None or not jitter:
            return next_trigger_time
        return delay(next_trigger_time, timedelta(seconds=random.uniform(0, jitter)))  # noqa: S311

    def describe(self) -> str:
        """Return the schedule in plain words."""
        return str(self)

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        """Return what `get_next_trigger_time` returns, before any jitter."""
        return self.get_next_trigger_time(timezone, previous_time, now)

    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        """Return the earliest occurrence at or after `moment`, for a trigger that combines.

        `previous_time` and `now` are what the combination was asked with; only a trigger that
        counts from them needs them.
        """
        before = max(in_utc(moment), _FIRST_MOMENT + MICROSECOND) - MICROSECOND
        return self.next_base_time(timezone, before, moment)

    @model_validator(mode="wrap")
    @classmethod
    def _accept_record(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, Mapping):
            if cls is BaseTrigger:
                from asyncz.triggers.registry import load_trigger

                return cast(Self, load_trigger(data))
            if "type" in data and "type" not in cls.model_fields:
                data = dict(data)
                require_alias(cls, data.pop("type"))
        return handler(data)

    @model_serializer(mode="plain")
    def _dump_record(self, info: SerializationInfo) -> dict[str, Any]:
        return self._record(json=info.mode_is_json())

    def _record(self, *, json: bool) -> dict[str, Any]:
        return self._record_of(self._arguments(), json=json)

    def _record_of(self, arguments: Mapping[str, Any], *, json: bool) -> dict[str, Any]:
        record: dict[str, Any] = {"type": self.alias}
        for name, value in arguments.items():
            record[name] = _jsonable(value) if json else value
        return record

    def _arguments(self) -> dict[str, Any]:
        """Return the fields that are not at their default: enough to make the trigger again."""
        arguments = {}
        for name, has_default, default, make_default in defaults_of(type(self)):
            value = getattr(self, name)
            if make_default is not None:
                default = make_default()
            if not has_default or value != default:
                arguments[name] = value
        return arguments


class ValueTrigger(BaseTrigger):
    """Base of the triggers here, which check their own arguments and keep derived state.

    They are made a few times faster than by the general validation, and hold no more than
    their fields. Equal fields make equal triggers.
    """

    __slots__ = ()

    # One set for all instances of a class: every field is always set.
    _fields_set: ClassVar[set[str]] = set()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls._fields_set = set(cls.model_fields)

    def _seal(self) -> None:
        """Put what the general validation would have put; the last act of each constructor."""
        _put_fields_set(self, self._fields_set)
        _put_extra(self, None)
        _put_private(self, None)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        # Two times of one zone compare by their wall clock, whichever turn of it they are.
        return self.__dict__ == other.__dict__ and self._folds() == other._folds()

    def _folds(self) -> list[int]:
        return [value.fold for value in self.__dict__.values() if isinstance(value, datetime)]

    def __hash__(self) -> int:
        return hash((self.alias, *self.__dict__.values()))

    def __repr__(self) -> str:
        record = self._record(json=True)
        del record["type"]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in record.items())})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _rebuild, (type(self), self._arguments())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a trigger with some fields changed, and checked."""
        if not update:
            return self
        return type(self)(**{**self._arguments(), **update})

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """Return a trigger as the constructor does; what it derives cannot be left out."""
        return cls(**values)

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        base = self.next_base_time(timezone, previous_time, now)
        return base if base is None or not self.jitter else self._jittered(base, timezone)

    @abstractmethod
    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None: ...

    def _jittered(self, base: datetime, timezone: tzinfo | None) -> datetime:
        # The delay ends before the next occurrence: so the next one after a delayed time is
        # the one after its base, and none is repeated, skipped or overtaken.
        room = int((self.jitter or 0) * 1_000_000)
        following = self.next_base_time(timezone, base, None)
        if following is not None:
            room = min(room, (in_utc(following) - in_utc(base)) // MICROSECOND - 1)
        last = self._end_in(timezone)
        room = min(room, (in_utc(last or LAST_MOMENT) - in_utc(base)) // MICROSECOND)
        if room <= 0:
            return base
        # Spreads load, protects nothing.
        return delay(base, MICROSECOND * random.randint(0, room))  # noqa: S311

    def _end_in(self, timezone: tzinfo | None) -> datetime | None:
        """Return the instant that no jitter may pass."""
        return None


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC, where times compare and subtract as instants.

    Python compares two times of one zone by their wall clock, which is wrong around a change.
    """
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        # Within a day of an end of the calendar, which the moment is held to.
        return _FIRST_MOMENT if moment.year == 1 else LAST_MOMENT


def none_off_the_calendar(ask: Callable[P, T]) -> Callable[P, T | None]:
    """Return the question with None as its answer where the search leaves the calendar."""

    @wraps(ask)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return ask(*args, **kwargs)
        except OverflowError:
            return None

    return guarded


def delay(moment: datetime, duration: timedelta) -> datetime:
    """Return the moment `duration` of elapsed time later, in its own zone.

    The moment itself where that would be beyond the calendar.
    """
    zone = moment.tzinfo
    try:
        if zone is None or zone is UTC:
            return moment + duration
        return (moment.astimezone(UTC) + duration).astimezone(zone)
    except OverflowError:
        return moment


def require_aware(name: str, moment: datetime) -> datetime:
    """Return the moment, or raise `ValueError` when it has no time zone."""
    if moment.tzinfo is None:
        raise ValueError(
            f"{name}={moment.isoformat()} has no time zone; "
            f"give an aware datetime, for example datetime.now(timezone.utc)"
        )
    return moment


def require_moment(previous_time: datetime | None, now: datetime | None) -> datetime:
    """Return the moment a question starts from, or raise `ValueError` saying what is missing."""
    if previous_time is not None:
        return require_aware("previous_time", previous_time)
    if now is not None:
        return require_aware("now", now)
    raise ValueError("give previous_time or now: a trigger does not read the clock")


def require_alias(cls: type[BaseTrigger], alias: Any) -> None:
    """Raise `ValueError` when a record's type is not that of the class it is read as."""
    if alias != cls.alias:
        raise ValueError(f"{cls.__name__}: type must be {cls.alias!r}, not {alias!r}")


def _rebuild(cls: type[ValueTrigger], arguments: dict[str, Any]) -> ValueTrigger:
    return cls(**arguments)


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime) and (value.utcoffset() or timedelta()) % _MINUTE:
        # Local mean time, before there were zones; elsewhere its seconds are left out.
        return value.isoformat()
    if isinstance(value, tzinfo):
        return zone_name(value)
    return to_jsonable_python(value, fallback=_zone_or_error)


def _zone_or_error(value: Any) -> str:
    if isinstance(value, tzinfo):
        return zone_name(value)
    raise TypeError(f"a trigger cannot store {value!r} of type {type(value).__name__}")
