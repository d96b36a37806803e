"""What the jobs of the old scheduler call."""

from __future__ import annotations

from typing import Any

from apscheduler.triggers.base import BaseTrigger

calls: list[tuple[Any, ...]] = []


def work(*args: Any, **kwargs: Any) -> None:
    calls.append((*args, *sorted(kwargs.items())))


def other_work() -> None: ...


class Worker:
    """A method of an object, which APScheduler pickles with the object."""

    def work(self) -> None: ...


class Lunar(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """A trigger of the app's own."""

    def get_next_fire_time(self, previous: Any, now: Any) -> Any:
        return now


class Exploit:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, str, bool]]:
        return setattr, (Exploit, "ran", True)
