"""Triggers made of other triggers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Never

from pydantic import SerializeAsAny

from asyncz.triggers.arguments import check_flag, check_jitter, refuse_unknown, shown
from asyncz.triggers.base import (
    MICROSECOND,
    MOST_STEPS,
    BaseTrigger,
    ValueTrigger,
    in_utc,
    require_moment,
)

_put = object.__setattr__
_DEEPEST = 16
# A time on the clocks of each trigger's own zone.
_COMMON_START = "1970-01-01T00:00:00"
# Some 20 ms of search.
_MOST_CANDIDATES = 5_000
# Each may take a few steps of search.
_MOST_COUNTED = 2_000


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

    def _record(self, *, json: bool) -> dict[str, Any]:
        record = super()._record(json=json)
        record["triggers"] = [child._record(json=json) for child in self.triggers]
        return record

    def __str__(self) -> str:
        return f"{self.alias}[{', '.join(str(child) for child in self.triggers)}]"


class AndTrigger(CombinationTrigger):
    """Fires at the times on which all of its triggers agree; never when it has none.

    The search goes from one candidate to the next, at most 5,000 of them, and then answers
    None. Results are in the zone of the first trigger.
    """

    __slots__ = ()

    alias: ClassVar[str] = "and"

    if TYPE_CHECKING:
        # Type checkers make up a constructor for each model; this is the inherited one.
        def __init__(
            self,
            triggers: Iterable[BaseTrigger | Mapping[str, Any]],
            jitter: float | None = None,
            allow_mistrigger_by_default: bool = False,
            **unknown: Never,
        ) -> None: ...

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        start = in_utc(require_moment(previous_time, now))
        if previous_time is not None:
            start += MICROSECOND
        return self.first_from(start, timezone, previous_time, now)

    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        moment = in_utc(moment)
        for _ in range(_MOST_CANDIDATES if self.triggers else 0):
            result: datetime | None = None
            latest: datetime | None = None
            agreed = True
            for child in self.triggers:
                found = child.first_from(moment, timezone, previous_time, now)
                if found is None:
                    return None
                instant = in_utc(found)
                if latest is None:
                    result, latest = found, instant
                elif instant != latest:
                    agreed = False
                    latest = max(instant, latest)
            if agreed:
                return result
            moment = latest or moment
        return None

    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        """Return the latest common time t with t <= moment, and t > after where that is given.

        None when there is none among 5,000 candidates.
        """
        moment = in_utc(moment)
        for _ in range(_MOST_CANDIDATES if self.triggers else 0):
            times = []
            for child in self.triggers:
                found = child.last_before(moment, after=after, timezone=timezone)
                if found is None:
                    return None
                times.append(found)
            instants = [in_utc(found) for found in times]
            moment = min(instants)
            if moment == max(instants):
                return times[0]
        return None

    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        """Return how many common times t there are with after < t <= until.

        They are gone through; None when each of the triggers alone has more than 2,000.
        """
        counts = [child.count_between(after, until, timezone) for child in self.triggers]
        fewest = min((count for count in counts if count is not None), default=None)
        if not self.triggers or fewest == 0:
            return 0
        if fewest is None or fewest > _MOST_COUNTED:
            return None
        return super().count_between(after, until, timezone)

    def describe(self) -> str:
        return _joined(self.triggers, ", and at the same time ") or "never"


class OrTrigger(CombinationTrigger):
    """Fires at each time of any of its triggers, once where several agree.

    Asked for its first time, it passes over a one-off that is already past, unless nothing else
    is left.
    """

    __slots__ = ()

    alias: ClassVar[str] = "or"

    if TYPE_CHECKING:
        # Type checkers make up a constructor for each model; this is the inherited one.
        def __init__(
            self,
            triggers: Iterable[BaseTrigger | Mapping[str, Any]],
            jitter: float | None = None,
            allow_mistrigger_by_default: bool = False,
            **unknown: Never,
        ) -> None: ...

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        start = require_moment(previous_time, now)
        found = [child.next_base_time(timezone, previous_time, now) for child in self.triggers]
        times = [time for time in found if time is not None]
        ahead = [time for time in times if in_utc(time) >= start]
        return min(ahead or times, key=in_utc, default=None)

    def first_from(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
    ) -> datetime | None:
        found = [c.first_from(moment, timezone, previous_time, now) for c in self.triggers]
        return min((time for time in found if time is not None), key=in_utc, default=None)

    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        found = [c.last_before(moment, after=after, timezone=timezone) for c in self.triggers]
        return max((time for time in found if time is not None), key=in_utc, default=None)

    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        """Return how many times t there are with after < t <= until.

        Times on which several triggers agree count once; to know them they are gone through,
        at most 10,000 of them, and beyond that the answer is None.
        """
        counts = [child.count_between(after, until, timezone) for child in self.triggers]
        busy = [count for count in counts if count != 0]
        if len(busy) <= 1:
            return busy[0] if busy else 0
        if any(count is not None and count > MOST_STEPS for count in busy):
            return None
        return super().count_between(after, until, timezone)

    def describe(self) -> str:
        return _joined(self.triggers, ", or ") or "never"


def _read_children(
    cls: type[CombinationTrigger], triggers: Iterable[BaseTrigger | Mapping[str, Any]]
) -> tuple[BaseTrigger, ...]:
    if isinstance(triggers, (str, bytes, Mapping)) or not isinstance(triggers, Iterable):
        raise ValueError(
            f"{cls.__name__}: triggers must be a list of triggers or of their records, "
            f"not {shown(triggers)}"
        )
    children = tuple(_anchored(_read_child(cls, child)) for child in triggers)
    if max(map(_depth, children), default=0) >= _DEEPEST:
        raise ValueError(f"{cls.__name__}: triggers are nested more than {_DEEPEST} deep")
    return children


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


def _depth(trigger: BaseTrigger) -> int:
    if not isinstance(trigger, CombinationTrigger):
        return 0
    return 1 + max(map(_depth, trigger.triggers), default=0)


def _joined(triggers: tuple[BaseTrigger, ...], word: str) -> str:
    return word.join(child.describe() for child in triggers)
