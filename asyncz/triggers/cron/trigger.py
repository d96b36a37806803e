"""The cron trigger: times by the fields of a calendar and a clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self

from asyncz.triggers.arguments import (
    check_flag,
    check_jitter,
    check_order,
    in_zone,
    known_clock,
    read_moment,
    read_zone,
    refuse_unknown,
    shown,
)
from asyncz.triggers.base import (
    MICROSECOND,
    ValueTrigger,
    in_utc,
    none_off_the_calendar,
    require_moment,
)
from asyncz.triggers.cron.fields import FIELD_NAMES, KEYWORD_FIELDS, LONGEST_TEXT, CronField
from asyncz.triggers.cron.plan import CronPlan, compile_plan, complete
from asyncz.triggers.localtime import (
    ZoneClock,
    clock_for,
    count_instants,
    first_instant,
    last_instant,
    localize,
)

_put = object.__setattr__
_FAR = 10**12
_NOTHING_GIVEN = (None,) * len(FIELD_NAMES)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronTrigger(ValueTrigger):
    """Fires at the times whose fields match, by the clock on the wall of a time zone.

    Each field is a number or an expression: `*`, `*/n`, `a`, `a-b`, `a-b/n`, names of months
    and weekdays, `2nd fri`, `last fri` and `last` for the day, and lists of these. All fields
    must match. Of the fields left out, those above the lowest one given match anything, and
    those below are at their minimum; so `hour=9` is once a day.

    Where the clocks change it follows Debian's cron. A schedule in which neither the minute nor
    the hour begins with `*` is a time of day: if the clocks leap over it, it fires once, at the
    first instant after the leap; if it comes twice, the first time only. Any other schedule is
    a period, and follows the clock on the wall through both.

    Args:
        year: 1970 to 9999.
        month: 1 to 12, or jan to dec.
        day: day of the month, 1 to 31, `last`, `2nd fri`, `last fri`.
        week: ISO week, 1 to 53.
        day_of_week: 0 to 6, Monday is 0, or mon to sun.
        hour: 0 to 23.
        minute: 0 to 59.
        second: 0 to 59.
        start_at: the earliest time, inclusive; a datetime, a date or ISO text. A naive one is a
            time in `timezone`: of a time that comes twice the first, for one that the clock
            leaps over the first instant after the leap.
        end_at: the latest time, inclusive; read like `start_at`.
        timezone: the zone of the clock; by default that of `start_at` or `end_at`, else the
            scheduler's.
        jitter: the most seconds by which a run is put off at random, always less than would
            reach the next one.
        allow_mistrigger_by_default: whether a run may be late by any amount.
        crontab: a crontab expression in place of the fields, see `from_crontab`.

    Raises `ValueError` that names the field, the part at fault and what is allowed; also for
    days that never come, such as `day=31, month=2`.
    """

    __slots__ = ("_bounded", "_clock", "_plan")

    alias: ClassVar[str] = "cron"
    search_cost: ClassVar[int] = 1
    field_names: ClassVar[tuple[str, ...]] = FIELD_NAMES
    fields_map: ClassVar[Mapping[str, CronField]] = KEYWORD_FIELDS

    year: str | None = None
    month: str | None = None
    day: str | None = None
    week: str | None = None
    day_of_week: str | None = None
    hour: str | None = None
    minute: str | None = None
    second: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    timezone: tzinfo | None = None
    crontab: str | None = None

    if TYPE_CHECKING:
        _plan: CronPlan
        _clock: ZoneClock | None
        _bounded: bool

    def __init__(
        self,
        year: int | str | None = None,
        month: int | str | None = None,
        day: int | str | None = None,
        week: int | str | None = None,
        day_of_week: int | str | None = None,
        hour: int | str | None = None,
        minute: int | str | None = None,
        second: int | str | None = None,
        start_at: datetime | date | str | None = None,
        end_at: datetime | date | str | None = None,
        timezone: tzinfo | str | None = None,
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = False,
        crontab: str | None = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            refuse_unknown(type(self), unknown)
        given = (year, month, day, week, day_of_week, hour, minute, second)
        if crontab is None:
            texts = tuple(
                None if value is None else _field_text(type(self), name, value)
                for name, value in zip(FIELD_NAMES, given, strict=True)
            )
        else:
            crontab, texts = _split_crontab(type(self), crontab, given)
        values = self.__dict__
        values.update(jitter=jitter, allow_mistrigger_by_default=allow_mistrigger_by_default)
        for name, text in zip(FIELD_NAMES, texts):  # noqa: B905
            values[name] = text
        values["crontab"] = crontab
        _put(self, "_plan", _compile(type(self), texts, crontab))
        if start_at is None and end_at is None and jitter is None:
            self._put_bounds(None, None, read_zone(type(self), timezone))
        else:
            self._read_bounds(start_at, end_at, timezone)
        check_flag(type(self), allow_mistrigger_by_default)
        self._seal()

    @classmethod
    def from_crontab(cls, expression: str, timezone: tzinfo | str | None = None) -> Self:
        """Return the trigger of a crontab expression.

        Five fields: minute, hour, day of the month, month, day of the week; a sixth in front is
        for seconds. Sunday is 0 and 7. Lists, ranges and steps; three-letter names in any case;
        `L` (last day) and `LW` (last day from Monday to Friday) for the day; `5L` (last Friday)
        and `1#2` (second Monday) for the weekday; or one of `@yearly`, `@annually`, `@monthly`,
        `@weekly`, `@daily`, `@midnight`, `@hourly`. Day of the month and day of the week must
        both match when either begins with `*`, otherwise one of them is enough.

        Raises `ValueError` that names the field, the part at fault and what is allowed.
        """
        return cls(crontab=expression, timezone=timezone)

    def _read_bounds(self, start_at: Any, end_at: Any, timezone: Any) -> None:
        cls = type(self)
        check_jitter(cls, self.jitter)
        start = read_moment(cls, "start_at", start_at)
        end = read_moment(cls, "end_at", end_at)
        zone = read_zone(cls, timezone, start, end)
        clock = known_clock(zone)
        start = None if start is None else in_zone(cls, "start_at", start, clock)
        end = None if end is None else in_zone(cls, "end_at", end, clock)
        check_order(cls, start, end)
        self._put_bounds(start, end, zone)

    def _put_bounds(
        self, start: datetime | None, end: datetime | None, zone: tzinfo | None
    ) -> None:
        self.__dict__.update(start_at=start, end_at=end, timezone=zone)
        _put(self, "_clock", None if zone is None else clock_for(zone))
        _put(self, "_bounded", start is not None or end is not None)

    def get_next_trigger_time(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None = None,
    ) -> datetime | None:
        """Return the next time to run, or None when there is none; see `BaseTrigger`."""
        if self._bounded or self.jitter:
            return super().get_next_trigger_time(timezone, previous_time, now)
        return self.next_base_time(timezone, previous_time, now)

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        clock = self._clock or clock_for(timezone)
        moment = previous_time or now
        if moment is None or moment.tzinfo is None:
            moment = require_moment(previous_time, now)
        # From the second after a previous time, or from the one that is not yet over.
        ahead = 1 if previous_time is not None or moment.microsecond else 0
        try:
            if self._bounded:
                return self._next_in_bounds(clock, moment, ahead)
            return _next_time(self._plan, clock, moment, ahead)
        except OverflowError:
            # Within a day of the end of the calendar.
            return None

    def _next_in_bounds(self, clock: ZoneClock, moment: datetime, ahead: int) -> datetime | None:
        if self.start_at is not None:
            start = localize(self.start_at, clock)
            if in_utc(moment) < in_utc(start):
                moment, ahead = start, 1 if start.microsecond else 0
        found = _next_time(self._plan, clock, moment, ahead)
        if found is None or self.end_at is None:
            return found
        return None if in_utc(found) > in_utc(localize(self.end_at, clock)) else found

    @none_off_the_calendar
    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        clock = self._clock or clock_for(timezone)
        moment = require_moment(moment, None)
        if self.end_at is not None:
            moment = min(moment, localize(self.end_at, clock), key=in_utc)
        found = _last_time(self._plan, clock, moment)
        if found is None or (after is not None and in_utc(found) <= require_moment(after, None)):
            return None
        if self.start_at is not None and in_utc(found) < in_utc(localize(self.start_at, clock)):
            return None
        return found

    @none_off_the_calendar
    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        clock = self._clock or clock_for(timezone)
        after, until = require_moment(after, None), require_moment(until, None)
        if self.start_at is not None:
            # In UTC, as a microsecond before the end of a leap is a wall time that does not exist.
            after = max(after, in_utc(localize(self.start_at, clock)) - MICROSECOND, key=in_utc)
        if self.end_at is not None:
            until = min(until, localize(self.end_at, clock), key=in_utc)
        first, last = clock.to_instant(after), clock.to_instant(until)
        return count_instants(self._plan, clock, first, last, self._plan.period)

    def _end_in(self, timezone: tzinfo | None) -> datetime | None:
        if self.end_at is None:
            return None
        return localize(self.end_at, self._clock or clock_for(timezone))

    def describe(self) -> str:
        """Return the schedule in plain words, such as `at 09:30, Monday to Friday`."""
        from asyncz.triggers.cron.words import describe

        texts = complete(tuple(getattr(self, name) for name in FIELD_NAMES))
        return describe(texts, self.crontab is not None)

    def __str__(self) -> str:
        from asyncz.triggers.cron.words import summarize

        texts = {name: getattr(self, name) for name in FIELD_NAMES}
        return f"cron[{summarize(texts, self.crontab is not None)}]"

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        if self.crontab is not None:
            # The expression says it all; the fields were read from it.
            for name in FIELD_NAMES:
                arguments.pop(name, None)
        return arguments


def _next_time(plan: CronPlan, clock: ZoneClock, moment: datetime, ahead: int) -> datetime | None:
    zone = clock.zone
    if moment.tzinfo is not zone:
        moment = moment.astimezone(zone)
    found = plan.next_time(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second + ahead,
        zone,
    )
    if clock.fixed or found is None:
        return found
    # Far from any change of the clocks, at both ends, wall time is all there is to it.
    plain = clock.plain
    here, there = moment.toordinal() >> 2, found.toordinal() >> 2
    if (plain.get(here) or clock.is_plain(here)) and (plain.get(there) or clock.is_plain(there)):
        return found
    instant = first_instant(plan, clock, clock.to_instant(moment) + ahead, plan.period)
    return None if instant is None else clock.to_datetime(instant)


def _last_time(plan: CronPlan, clock: ZoneClock, moment: datetime) -> datetime | None:
    moment = moment.astimezone(clock.zone)
    found = plan.previous_time(moment)
    if clock.fixed or found is None:
        return found
    if clock.is_plain(moment.toordinal() >> 2) and clock.is_plain(found.toordinal() >> 2):
        return found
    instant = last_instant(plan, clock, clock.to_instant(moment), plan.period)
    return None if instant is None else clock.to_datetime(instant)


def _compile(
    cls: type[CronTrigger], texts: tuple[str | None, ...], crontab: str | None
) -> CronPlan:
    try:
        return compile_plan(texts, crontab is not None)
    except ValueError as error:
        where = "" if crontab is None else f" in crontab {shown(crontab)}"
        raise ValueError(f"{cls.__name__}: {error}{where}") from None


def _field_text(cls: type[CronTrigger], name: str, value: Any) -> str:
    if type(value) is int:
        # No field reaches as far, and the text of the number could be of any length.
        return str(max(-_FAR, min(value, _FAR)))
    if isinstance(value, str):
        return value.strip(" ").lower() if len(value) <= LONGEST_TEXT else value
    raise ValueError(
        f"{cls.__name__}: {name} must be a number or an expression such as '*/5', "
        f"not {shown(value)}"
    )


def _split_crontab(
    cls: type[CronTrigger], expression: Any, given: tuple[Any, ...]
) -> tuple[str, tuple[str | None, ...]]:
    if not isinstance(expression, str):
        raise ValueError(f"{cls.__name__}: crontab must be text, not {shown(expression)}")
    if given != _NOTHING_GIVEN:
        name = next(
            name for name, value in zip(FIELD_NAMES, given, strict=True) if value is not None
        )
        raise ValueError(f"{cls.__name__}: give crontab or {name}, not both")
    if len(expression) > LONGEST_TEXT:
        raise ValueError(
            f"{cls.__name__}: crontab {shown(expression)} has {len(expression)} characters; "
            f"at most {LONGEST_TEXT} are allowed"
        )
    text = expression.strip(" \t\r\n")
    if not text.isascii() or not text.isprintable():
        _refuse_unprintable(cls, text.replace("\t", " "))
    parts = (_MACROS.get(text.lower(), text) if text[:1] == "@" else text).split()
    if len(parts) == 5:
        minute, hour, day, month, weekday = parts
        second = "0"
    elif len(parts) == 6:
        second, minute, hour, day, month, weekday = parts
    else:
        raise ValueError(
            f"{cls.__name__}: crontab {shown(expression)} has {len(parts)} fields; needed are "
            f"5 (minute, hour, day, month, day of week), 6 (seconds in front), "
            f"or one of {', '.join(_MACROS)}"
        )
    return " ".join(text.split()), (None, month, day, None, weekday, hour, minute, second)


def _refuse_unprintable(cls: type[CronTrigger], text: str) -> None:
    for character in text:
        if not character.isascii() or not character.isprintable():
            raise ValueError(
                f"{cls.__name__}: crontab {shown(text)} contains {character!r}; "
                f"allowed are printable ASCII characters"
            )
