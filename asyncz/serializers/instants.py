"""Instants as records and stores keep and compare them: whole microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["from_microseconds", "to_microseconds"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch: times as stores keep and compare them."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The reverse of `to_microseconds`, in UTC. OverflowError outside of the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=count)
