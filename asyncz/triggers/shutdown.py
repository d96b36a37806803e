"""A trigger for what runs when the scheduler stops."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import ClassVar, Never

from asyncz.triggers.arguments import check_flag, check_jitter, refuse_unknown
from asyncz.triggers.base import ValueTrigger

_put = object.__setattr__


class ShutdownTrigger(ValueTrigger):
    """Never fires by time; the scheduler runs such tasks while it shuts down.

    Args:
        jitter: accepted for likeness with the other triggers; it has no effect.
        allow_mistrigger_by_default: true, a shutdown is never too late.
    """

    __slots__ = ()

    alias: ClassVar[str] = "shutdown"
    search_cost: ClassVar[int] = 1

    allow_mistrigger_by_default: bool = True

    def __init__(
        self,
        jitter: float | None = None,
        allow_mistrigger_by_default: bool = True,
        **unknown: Never,
    ) -> None:
        refuse_unknown(type(self), unknown)
        check_jitter(type(self), jitter)
        check_flag(type(self), allow_mistrigger_by_default)
        _put(self, "jitter", jitter)
        _put(self, "allow_mistrigger_by_default", allow_mistrigger_by_default)
        self._seal()

    def next_base_time(
        self, timezone: tzinfo | None, previous_time: datetime | None, now: datetime | None
    ) -> datetime | None:
        return None

    def last_before(
        self,
        moment: datetime,
        *,
        after: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> datetime | None:
        return None

    def count_between(
        self, after: datetime, until: datetime, timezone: tzinfo | None = None
    ) -> int | None:
        return 0

    def describe(self) -> str:
        return "when the scheduler shuts down"

    def __str__(self) -> str:
        return "shutdown"
