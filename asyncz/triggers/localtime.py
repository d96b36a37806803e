"""The one written rule for local time: wall clock schedules on the line of instants.

Seconds are counted from the first day of year 1 on both lines: a *wall* second is what the
clock on the wall shows, an *instant* is the same count in UTC. They differ by the zone's offset.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple, Protocol

from asyncz.timezones import as_timezone, local_timezone

DAY = 86_400
_EPOCH = datetime(1, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1, 1, 1)
_SECOND = timedelta(seconds=1)
LAST_WALL = date.max.toordinal() * DAY - 1
_TWO_DAYS = 2 * DAY
# Shorter than the shortest time between two changes of any zone, which is four days.
_PROBE = timedelta(days=3)
# Conversions near the ends of the calendar overflow; offsets there are those of the nearest year.
_FIRST_YEAR, _LAST_YEAR = 3, 9997
_MOST_CHUNKS = 16_384
_MOST_YEARS = 2_048
_MOST_CLOCKS = 1_024
# A count over more years than this is not worth its effort.
_MOST_COUNTED_YEARS = 200


class Transition(NamedTuple):
    """The instant from which a zone's offset is `after`; just before it, it is `before`."""

    at: int
    before: int
    after: int


class WallSchedule(Protocol):
    """A schedule in wall seconds."""

    def first(self, wall: int) -> int | None:
        """Return the earliest matching second at or after `wall`."""

    def last(self, wall: int) -> int | None:
        """Return the latest matching second at or before `wall`."""

    def count(self, after: int, until: int) -> int:
        """Return how many matching seconds s there are with after < s <= until."""


class ZoneClock:
    """A zone with what is known of its transitions, found by asking the zone itself.

    `fixed` is true when the zone has one offset for all time. `plain` answers whether a group
    of four days (`ordinal >> 2`) is at least two days away from any transition, so that there
    wall time and instants run in step.
    """

    __slots__ = ("_epoch", "_years", "fixed", "plain", "zone")

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        # Only a zone with one offset can answer without a date (or is UTC by name).
        self.fixed = zone.utcoffset(None) is not None
        self._epoch = _NAIVE_EPOCH.replace(tzinfo=zone)
        self.plain: dict[int, bool] = {}
        self._years: dict[int, tuple[Transition, ...]] = {}

    def is_plain(self, group: int) -> bool:
        """Tell whether the days with `ordinal >> 2 == group` are far from any transition."""
        known = self.plain.get(group)
        if known is None:
            if len(self.plain) >= _MOST_CHUNKS:
                self.plain.clear()
            start = ((group << 2) - 1) * DAY
            known = not self.transitions(start - _TWO_DAYS, start + 4 * DAY + _TWO_DAYS)
            self.plain[group] = known
        return known

    def offset_at(self, instant: int) -> int:
        """Return the offset in seconds in force at an instant."""
        year = year_of(instant)
        if year < _FIRST_YEAR:
            instant = _start_of_year(_FIRST_YEAR)
        elif year > _LAST_YEAR:
            instant = _start_of_year(_LAST_YEAR + 1) - 1
        return self._probe(instant)

    def transitions(self, after: int, until: int) -> list[Transition]:
        """Return the transitions t with after < t.at <= until, in order."""
        found: list[Transition] = []
        for year in range(year_of(after), year_of(until) + 1):
            found += [t for t in self._of_year(year) if after < t.at <= until]
        return found

    def next_transition(self, after: int, until: int) -> Transition | None:
        """Return the earliest transition t with after < t.at <= until."""
        for year in range(year_of(after), year_of(until) + 1):
            for transition in self._of_year(year):
                if after < transition.at <= until:
                    return transition
        return None

    def previous_transition(self, after: int, until: int) -> Transition | None:
        """Return the latest transition t with after < t.at <= until."""
        for year in range(year_of(until), year_of(after) - 1, -1):
            for transition in reversed(self._of_year(year)):
                if after < transition.at <= until:
                    return transition
        return None

    def instant_of(self, wall: int) -> int:
        """Return the instant at which a wall clock shows `wall`.

        Of a time that comes twice it is the first; for one that the clock leaps over it is the
        first instant after the leap.
        """
        offset = self.offset_at(wall - _TWO_DAYS)
        for transition in self.transitions(wall - _TWO_DAYS, wall + _TWO_DAYS):
            if wall - offset < transition.at:
                break
            if wall < transition.at + transition.after:
                return transition.at
            offset = transition.after
        return wall - offset

    def wall_reached(self, instant: int) -> int:
        """Return the highest wall second that `instant_of` places at or before `instant`."""
        wall = instant + self.offset_at(instant)
        overlap = self.previous_transition(instant - _TWO_DAYS, instant)
        if overlap is None:
            return wall
        # While an hour is repeated, all of its wall times already had their first turn.
        return max(wall, overlap.at + overlap.before - 1)

    def to_instant(self, moment: datetime) -> int:
        """Return the instant of an aware datetime, rounded down to the second."""
        return (moment - _EPOCH) // _SECOND

    def to_datetime(self, instant: int) -> datetime | None:
        """Return the datetime of an instant in this zone, None beyond the end of the calendar."""
        try:
            return (_EPOCH + timedelta(seconds=instant)).astimezone(self.zone)
        except OverflowError:
            return None

    def _of_year(self, year: int) -> tuple[Transition, ...]:
        known = self._years.get(year)
        if known is None:
            if len(self._years) >= _MOST_YEARS:
                self._years.clear()
            known = self._years[year] = self._search_year(year)
        return known

    def _search_year(self, year: int) -> tuple[Transition, ...]:
        if self.fixed or not _FIRST_YEAR <= year <= _LAST_YEAR:
            return ()
        found = []
        # From the last second of the year before, to see a change at midnight of 1 January.
        moment = self._epoch + timedelta(seconds=_start_of_year(year) - 1)
        end = self._epoch + timedelta(seconds=_start_of_year(year + 1) - 1)
        # As `astimezone` does it, without the way through UTC: there are a hundred to ask.
        fromutc = self.zone.fromutc
        before = fromutc(moment).utcoffset()
        while moment < end:
            earlier, moment = moment, min(moment + _PROBE, end)
            after = fromutc(moment).utcoffset()
            if after != before:
                found.append(self._change_between(earlier, moment))
            before = after
        return tuple(found)

    def _change_between(self, earlier: datetime, later: datetime) -> Transition:
        low = (earlier - self._epoch) // _SECOND
        high = (later - self._epoch) // _SECOND
        before, after = self._probe(low), self._probe(high)
        while high - low > 1:
            middle = (low + high) // 2
            if self._probe(middle) == before:
                low = middle
            else:
                high = middle
        return Transition(high, before, after)

    def _probe(self, instant: int) -> int:
        local = self.zone.fromutc(self._epoch + timedelta(seconds=instant))
        offset = local.utcoffset()
        return 0 if offset is None else offset.days * DAY + offset.seconds


_CLOCKS: dict[tzinfo | None, ZoneClock] = {}


def clock_for(timezone: tzinfo | str | None) -> ZoneClock:
    """Return the shared clock of a zone; of this machine's zone when `timezone` is None."""
    if isinstance(timezone, str):
        timezone = as_timezone(timezone)
    try:
        return _CLOCKS[timezone]
    except KeyError:
        zone = local_timezone() if timezone is None else as_timezone(timezone)
    if len(_CLOCKS) >= _MOST_CLOCKS:
        _CLOCKS.clear()
    # A foreign zone object and the zone it stands for share one clock.
    clock = _CLOCKS.get(zone) or ZoneClock(zone)
    _CLOCKS[zone] = clock
    if timezone is not None:
        _CLOCKS[timezone] = clock
    return clock


def localize(moment: datetime, clock: ZoneClock) -> datetime:
    """Return `moment` in the clock's zone; a naive one is a time on that zone's wall.

    Of a wall time that comes twice it is the first; for one that is leapt over it is the first
    instant after the leap.
    """
    if moment.tzinfo is not None:
        return moment if moment.tzinfo is clock.zone else moment.astimezone(clock.zone)
    if clock.fixed or clock.is_plain(moment.toordinal() >> 2):
        return moment.replace(tzinfo=clock.zone)
    wall = wall_second(moment)
    instant = clock.instant_of(wall)
    local = clock.to_datetime(instant)
    if local is None or wall_second(local) != wall:
        return local or moment.replace(tzinfo=clock.zone)
    return local.replace(microsecond=moment.microsecond)


def wall_second(moment: datetime) -> int:
    """Return the wall second that a datetime shows, whatever its zone."""
    days = moment.toordinal() - 1
    return days * DAY + moment.hour * 3600 + moment.minute * 60 + moment.second


def year_of(second: int) -> int:
    """Return the calendar year of a second, held within the calendar."""
    day = second // DAY + 1
    if day < 1:
        return 1
    return 9999 if day > 3_652_059 else date.fromordinal(day).year


def naive_datetime(wall: int) -> datetime:
    """Return the wall second as a datetime without a zone, held to the calendar."""
    return _NAIVE_EPOCH + timedelta(seconds=min(max(wall, 0), LAST_WALL))


def first_instant(
    schedule: WallSchedule, clock: ZoneClock, instant: int, period: bool
) -> int | None:
    """Return the earliest occurrence at or after `instant`.

    A `period` happens whenever the wall clock shows a matching second. Any other schedule is a
    time of day: one that is leapt over happens once, at the first instant after the leap, and
    one that comes twice happens the first time only.
    """
    if not period:
        wall = schedule.first(clock.wall_reached(instant - 1) + 1)
        return None if wall is None else clock.instant_of(wall)
    offset = clock.offset_at(instant)
    while True:
        wall = schedule.first(instant + offset)
        if wall is None:
            return None
        # Only a change close by can bring back wall times before the one found; the rest of a
        # long way needs no look, as nothing on it matches.
        far = wall - offset - instant > 2 * _TWO_DAYS
        transition = clock.next_transition(instant, instant + _TWO_DAYS if far else wall - offset)
        if transition is not None:
            instant, offset = transition.at, transition.after
        elif far:
            instant = wall - offset - _TWO_DAYS
            offset = clock.offset_at(instant)
        else:
            return wall - offset


def last_instant(
    schedule: WallSchedule, clock: ZoneClock, instant: int, period: bool
) -> int | None:
    """Return the latest occurrence at or before `instant`; see `first_instant` for `period`."""
    if not period:
        wall = schedule.last(clock.wall_reached(instant))
        return None if wall is None else clock.instant_of(wall)
    offset = clock.offset_at(instant)
    while True:
        wall = schedule.last(instant + offset)
        if wall is None:
            return None
        far = instant - (wall - offset) > 2 * _TWO_DAYS
        since = instant - _TWO_DAYS if far else wall - offset
        transition = clock.previous_transition(since, instant)
        if transition is not None:
            instant, offset = transition.at - 1, transition.before
        elif far:
            instant = wall - offset + _TWO_DAYS
            offset = clock.offset_at(instant)
        else:
            return wall - offset


def count_instants(
    schedule: WallSchedule, clock: ZoneClock, after: int, until: int, period: bool
) -> int | None:
    """Return how many occurrences t there are with after < t <= until.

    None for more than 200 years.
    """
    if until <= after:
        return 0
    if year_of(until) - year_of(after) > _MOST_COUNTED_YEARS:
        return None
    if clock.fixed:
        offset = clock.offset_at(until)
        return schedule.count(after + offset, until + offset)
    transitions = clock.transitions(after, until)
    if period:
        return _count_period(schedule, clock, after, until, transitions)
    total = schedule.count(clock.wall_reached(after), clock.wall_reached(until))
    for at, before, now in transitions:
        # All that was leapt over, and what the leap ends on, is one occurrence together.
        if now > before:
            total -= max(0, schedule.count(at + before - 1, at + now) - 1)
    return total


def _count_period(
    schedule: WallSchedule,
    clock: ZoneClock,
    after: int,
    until: int,
    transitions: list[Transition],
) -> int:
    total = 0
    offset = clock.offset_at(after)
    for transition in transitions:
        total += schedule.count(after + offset, transition.at - 1 + offset)
        after, offset = transition.at - 1, transition.after
    return total + schedule.count(after + offset, until + offset)


def _start_of_year(year: int) -> int:
    return (date(year, 1, 1).toordinal() - 1) * DAY
