"""Triggers that fire when others agree, or when any of them does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Never

from asyncz.triggers.base import MICROSECOND, BaseTrigger, in_utc, require_moment
from asyncz.triggers.combining import CombinationTrigger, Search, walk, within


class AndTrigger(CombinationTrigger):
    """Fires at the times on which all of its triggers agree; never when it has none.

    The search goes from one candidate to the next. It ends with None after 1,000 questions to
    the triggers, which takes some milliseconds; a question that leads into another year counts
    as more. Two triggers have then had 500 candidates, or 30 that lie years apart. Results are
    in the zone of the first trigger.
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

    def earliest(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        search: Search,
    ) -> datetime | None:
        result = None
        while self.triggers and moment <= search.until:
            latest = None
            agreed = True
            for child in self.triggers:
                found = search.first(child, moment, timezone, previous_time, now)
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

    def latest(
        self,
        moment: datetime,
        after: datetime | None,
        timezone: tzinfo | None,
        search: Search,
    ) -> datetime | None:
        while self.triggers:
            times = []
            for child in self.triggers:
                found = search.last(child, moment, after, timezone)
                if found is None:
                    return None
                times.append(found)
            instants = [in_utc(found) for found in times]
            moment = min(instants)
            if moment == max(instants):
                return times[0]
        return None

    def following(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        work: int,
    ) -> datetime | None:
        start = in_utc(require_moment(previous_time, now))
        if previous_time is not None:
            start += MICROSECOND
        return within(work, lambda s: self.earliest(start, timezone, previous_time, now, s))

    def preceding(
        self, moment: datetime, after: datetime | None, timezone: tzinfo | None, work: int
    ) -> datetime | None:
        return within(work, lambda search: self.latest(moment, after, timezone, search))

    def count(
        self, after: datetime, until: datetime, timezone: tzinfo | None, work: int
    ) -> int | None:
        return within(work, lambda s: walk([self], after, timezone, s), in_utc(until))

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

    def earliest(
        self,
        moment: datetime,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        search: Search,
    ) -> datetime | None:
        found = [
            search.part(c, partial(search.first, c, moment, timezone, previous_time, now))
            for c in self.triggers
        ]
        return min((time for time in found if time is not None), key=in_utc, default=None)

    def latest(
        self,
        moment: datetime,
        after: datetime | None,
        timezone: tzinfo | None,
        search: Search,
    ) -> datetime | None:
        found = [
            search.part(child, partial(search.last, child, moment, after, timezone))
            for child in self.triggers
        ]
        return max((time for time in found if time is not None), key=in_utc, default=None)

    def following(
        self,
        timezone: tzinfo | None,
        previous_time: datetime | None,
        now: datetime | None,
        work: int,
    ) -> datetime | None:
        start = in_utc(require_moment(previous_time, now))
        # Each has a share of its own: one that finds nothing keeps no other from firing.
        share = work // max(1, len(self.triggers))
        found = [
            child.following(timezone, previous_time, now, share)
            if isinstance(child, CombinationTrigger)
            else child.next_base_time(timezone, previous_time, now)
            for child in self.triggers
        ]
        times = [time for time in found if time is not None]
        ahead = [time for time in times if in_utc(time) >= start]
        return min(ahead or times, key=in_utc, default=None)

    def preceding(
        self, moment: datetime, after: datetime | None, timezone: tzinfo | None, work: int
    ) -> datetime | None:
        share = work // max(1, len(self.triggers))
        found = [
            child.preceding(moment, after, timezone, share)
            if isinstance(child, CombinationTrigger)
            else child.last_before(moment, after=after, timezone=timezone)
            for child in self.triggers
        ]
        return max((time for time in found if time is not None), key=in_utc, default=None)

    def count(
        self, after: datetime, until: datetime, timezone: tzinfo | None, work: int
    ) -> int | None:
        share = work // max(1, len(self.triggers))
        busy: list[int | None] = []
        for child in self.triggers:
            if isinstance(child, CombinationTrigger):
                count = child.count(after, until, timezone, share)
            else:
                count = child.count_between(after, until, timezone)
            if count != 0:
                busy.append(count)
            if len(busy) == 2:
                break
        else:
            # What is alone agrees with nothing, and need not be gone through.
            return busy[0] if busy else 0
        if any(count is None or count > work for count in busy):
            return None
        return within(work, lambda s: walk(self.triggers, after, timezone, s), in_utc(until))

    def describe(self) -> str:
        return _joined(self.triggers, ", or ") or "never"


def _joined(triggers: tuple[BaseTrigger, ...], word: str) -> str:
    return word.join(child.describe() for child in triggers)
