"""What triggers made of other triggers share: how they are read, and what a search may cost."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Never, TypeVar

from pydantic import SerializeAsAny

from asyncz.triggers.arguments import check_flag, check_jitter, refuse_unknown, shown
from asyncz.triggers.base import (
    LAST_MOMENT,
    MICROSECOND,
    BaseTrigger,
    ValueTrigger,
    in_utc,
    none_off_the_calendar,
    require_moment,
)

T = TypeVar("T")

_put = object.__setattr__
_DEEPEST = 16
_MOST_TRIGGERS = 1_000
# A time on the clocks of each trigger's own zone.
_COMMON_START = "1970-01-01T00:00:00"
# What one answer may cost, in questions of the quick kind: some 3 ms, and 10 ms where the clocks
# change or the changes of years to come have to be found first.
MOST_WORK = 1_000
# A part of a search that ends before so much says nothing about its triggers.
_LEAST_PART = MOST_WORK // 8
# To go on by a year costs as much as so many questions, and by more than five no more than that.
_YEAR = 8
_FAR = 5


class SearchEndedError(Exception):
    """A search has cost all it may; the answer to its question is None."""


class Search:
    """What one search may still cost, shared by all the triggers that it goes through.

    Counted by the questions asked and never by the clock, so that it ends in the same place on
    every machine.
    """

    __slots__ = ("_given_up", "_heads", "_left", "until")

    def __init__(self, work: int, until: datetime = LAST_MOMENT) -> None:
        self._left = work
        self._heads: dict[int, tuple[datetime, datetime]] = {}
        self._given_up: set[int] = set()
        self.until = until

    def first(
        self,
        child: BaseTrigger,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        """Return what `child.first_from` returns, or raise `SearchEndedError`."""
        head = self._heads.get(id(child))
        if head is not None and head[0] <= moment <= in_utc(head[1]):
            # Asked before, and still to come.
            self._pay(1)
            return head[1]
        if isinstance(child, CombinationTrigger):
            found = child.earliest(moment, timezone, previous_time, now, self)
        else:
            found = child.first_from(moment, timezone, previous_time, now)
            self._pay(_cost(child, moment, found))
        if found is not None:
            self._heads[id(child)] = moment, found
        return found

    def last(
        self,
        child: BaseTrigger,
        moment: datetime,
        after: datetime | None,
        timezone: tzinfo | None,
    ) -> datetime | None:
        """Return what `child.last_before` returns, or raise `SearchEndedError`."""
        if isinstance(child, CombinationTrigger):
            return child.latest(moment, after, timezone, self)
        found = child.last_before(moment, after=after, timezone=timezone)
        self._pay(_cost(child, moment, found))
        return found

    def part(self, child: BaseTrigger, ask: Callable[[], datetime | None]) -> datetime | None:
        """Return the answer of one of several that do without each other.

        A combination among them that finds nothing for half of what is left counts as none, so
        that it does not take the others with it.
        """
        if not isinstance(child, CombinationTrigger):
            return ask()
        if id(child) in self._given_up:
            self._pay(1)
            return None
        kept = self._left // 2
        self._left -= kept
        try:
            return ask()
        except SearchEndedError:
            if kept < _LEAST_PART:
                raise
            self._given_up.add(id(child))
            return None
        finally:
            self._left = max(self._left, 0) + kept

    def _pay(self, cost: int) -> None:
        self._left -= cost
        if self._left < 0:
            raise SearchEndedError


class CombinationTrigger(ValueTrigger):
    """Base of the triggers that combine others.

    Args:
        triggers: the triggers, or their JSON records; kept as a tuple. The jitter of these is
            not applied: delays would make them never agree, or pass over one another. An
            interval without a `start_at` counts from 1970-01-01, 00:00 in its zone.
        jitter: the most seconds by which a run of the combination is put off at random.
        allow_mistrigger_by_default: whether a run may be late by any amount.
    """

    __slots__ = ()

    triggers: tuple[SerializeAsAny[BaseTrigger], ...]

    def __init__(
        self,
        triggers: Iterable[BaseTrigger | Mapping[str, Any]],
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = False,
        **unknown: Never,
    ) -> None:
        refuse_unknown(type(self), unknown)
        check_jitter(type(self), jitter)
        check_flag(type(self), allow_mistrigger_by_default)
        _put(self, "jitter", jitter)
        _put(self, "allow_mistrigger_by_default", allow_mistrigger_by_default)
        _put(self, "triggers", _read_children(type(self), triggers))
        self._seal()

    @abstractmethod
    def earliest(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        search: Search,
    ) -> datetime | None:
        """Return the earliest time at or after `moment`, as a part of a search."""

    @abstractmethod
    def latest(
        self,
        moment: datetime,
        after: datetime | None,
        timezone: tzinfo | None,
        search: Search,
    ) -> datetime | None:
        """Return the latest time at or before `moment` and after `after`, as a part of a search."""

    @abstractmethod
    def following(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        work: int,
    ) -> datetime | None:
        """Return the next time, at the cost of at most `work`."""

    @abstractmethod
    def preceding(
        self, moment: datetime, after: datetime | None, timezone: tzinfo | None, work: int
    ) -> datetime | None:
        """Return the latest time up to `moment`, at the cost of at most `work`."""

    @abstractmethod
    def count(
        self, after: datetime, until: datetime, timezone: tzinfo | None, work: int
    ) -> int | None:
        """Return how many times there are, None when that costs more than `work`."""

    @none_off_the_calendar
    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        return self.following(timezone, previous_time, now, MOST_WORK)

    @none_off_the_calendar
    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        return within(
            MOST_WORK, lambda s: self.earliest(in_utc(moment), timezone, previous_time, now, s)
        )

    @none_off_the_calendar
    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        """Return the latest occurrence t with t <= moment, and t > after where that is given.

        None when there is none, or none is found at a bounded cost.
        """
        return self.preceding(in_utc(require_moment(moment, None)), after, timezone, MOST_WORK)

    @none_off_the_calendar
    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        """Return how many times t there are with after < t <= until.

        They are gone through, as the triggers may agree on any of them; None when that costs
        more than 1,000 questions to the triggers.
        """
        after, until = require_moment(after, None), require_moment(until, None)
        return self.count(after, until, timezone, MOST_WORK)

    def _record(self, *, json: bool) -> dict[str, Any]:
        # Without the triggers at first: written twice on each level, they would take for ever.
        others = {n: value for n, value in self._arguments().items() if n != "triggers"}
        record = self._record_of(others, json=json)
        record["triggers"] = [child._record(json=json) for child in self.triggers]
        return record

    def __str__(self) -> str:
        return f"{self.alias}[{', '.join(str(child) for child in self.triggers)}]"


def within(work: int, ask: Callable[[Search], T], until: datetime = LAST_MOMENT) -> T | None:
    """Return the answer of a search up to `until`, None when it would cost more than `work`."""
    try:
        return ask(Search(work, until))
    except SearchEndedError:
        return None


def _cost(child: BaseTrigger, moment: datetime, found: datetime | None) -> int:
    years = 0 if found is None else abs(found.year - moment.year)
    return child.search_cost + _YEAR * min(years, _FAR)


def walk(
    triggers: Sequence[BaseTrigger],
    after: datetime,
    timezone: tzinfo | None,
    search: Search,
) -> int:
    """Return how many times of any of the triggers come after `after` in the search."""
    moment, count = in_utc(after), 0
    heads: list[datetime | None] = [moment] * len(triggers)
    while True:
        # Only those that are at this time have to go on.
        for number, child in enumerate(triggers):
            if heads[number] == moment:
                found = search.first(child, moment + MICROSECOND, timezone, moment, search.until)
                heads[number] = None if found is None else in_utc(found)
        moment = min((head for head in heads if head is not None), default=LAST_MOMENT)
        if moment > search.until or moment == LAST_MOMENT:
            return count
        count += 1


def _read_children(
    cls: type[CombinationTrigger], triggers: Iterable[BaseTrigger | Mapping[str, Any]]
) -> tuple[BaseTrigger, ...]:
    if isinstance(triggers, (str, bytes, Mapping)) or not isinstance(triggers, Iterable):
        raise ValueError(
            f"{cls.__name__}: triggers must be a list of triggers or of their records, "
            f"not {shown(triggers)}"
        )
    children: list[BaseTrigger] = []
    size = 0
    for given in triggers:
        children.append(_anchored(_read_child(cls, given)))
        size += _size(children[-1])
        # Looked at on the way, as the depth of what holds itself twice and so on is far to go.
        if size > _MOST_TRIGGERS:
            raise ValueError(
                f"{cls.__name__}: triggers are more than {_MOST_TRIGGERS} with those inside them"
            )
    if max(map(_depth, children), default=0) >= _DEEPEST:
        raise ValueError(f"{cls.__name__}: triggers are nested more than {_DEEPEST} deep")
    return tuple(children)


def _read_child(cls: type[CombinationTrigger], child: Any) -> BaseTrigger:
    if isinstance(child, BaseTrigger):
        return child
    if isinstance(child, Mapping):
        from asyncz.triggers.registry import load_trigger

        return load_trigger(child)
    raise ValueError(
        f"{cls.__name__}: triggers must hold triggers or their records, not {shown(child)}"
    )


def _anchored(child: BaseTrigger) -> BaseTrigger:
    # An interval without a start counts from the time before, which here may be another's: the
    # shorter of two would keep the longer one from ever coming.
    fields = type(child).model_fields
    if "start_at" in fields and "crontab" not in fields and getattr(child, "start_at", 0) is None:
        return child.model_copy(update={"start_at": _COMMON_START})
    return child


def _size(trigger: BaseTrigger) -> int:
    if not isinstance(trigger, CombinationTrigger):
        return 1
    return 1 + sum(map(_size, trigger.triggers))


def _depth(trigger: BaseTrigger) -> int:
    if not isinstance(trigger, CombinationTrigger):
        return 0
    return 1 + max(map(_depth, trigger.triggers), default=0)
