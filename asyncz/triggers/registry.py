"""Triggers by their names: how a JSON record becomes a trigger again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncz.triggers.arguments import shown
from asyncz.triggers.base import BaseTrigger
from asyncz.triggers.calendarinterval import CalendarIntervalTrigger
from asyncz.triggers.combination import AndTrigger, OrTrigger
from asyncz.triggers.combining import CombinationTrigger
from asyncz.triggers.cron.trigger import CronTrigger
from asyncz.triggers.date import DateTrigger
from asyncz.triggers.interval import IntervalTrigger
from asyncz.triggers.shutdown import ShutdownTrigger

# A record deeper than any trigger can be is refused before the recursion goes as deep.
_DEEPEST = 20

TRIGGER_TYPES: Mapping[str, type[BaseTrigger]] = {
    trigger.alias: trigger
    for trigger in (
        DateTrigger,
        IntervalTrigger,
        CronTrigger,
        CalendarIntervalTrigger,
        AndTrigger,
        OrTrigger,
        ShutdownTrigger,
    )
}


def load_trigger(
    record: Mapping[str, Any], types: Mapping[str, type[BaseTrigger]] | None = None
) -> BaseTrigger:
    """Return the trigger of a JSON record such as `{"type": "cron", "hour": "9"}`.

    Args:
        record: what `trigger.model_dump(mode="json")` returned.
        types: classes by their type, which add to the ones here or take their place.

    Raises `LookupError` for a type that is not known and `ValueError` for a record that is not
    one or does not fit its type. Nothing is ever imported by a name from the record.
    """
    return _load(record, {} if types is None else types, 0)


def _load(record: Any, types: Mapping[str, type[BaseTrigger]], depth: int) -> BaseTrigger:
    if not isinstance(record, Mapping) or not isinstance(record.get("type"), str):
        raise ValueError(
            f"a trigger's record must be an object with a 'type', "
            f"for example {{'type': 'cron', 'hour': '9'}}, not {shown(record)}"
        )
    if depth > _DEEPEST:
        raise ValueError(f"a trigger's record is nested more than {_DEEPEST} deep")
    fields = dict(record)
    name = fields.pop("type")
    cls = types.get(name) or TRIGGER_TYPES.get(name)
    if cls is None:
        known = ", ".join(sorted({*TRIGGER_TYPES, *types}))
        raise LookupError(f"unknown trigger type {name[:80]!r}; known are {known}")
    children = fields.get("triggers")
    if issubclass(cls, CombinationTrigger) and isinstance(children, (list, tuple)):
        fields["triggers"] = [
            _load(child, types, depth + 1) if isinstance(child, Mapping) else child
            for child in children
        ]
    return cls.model_validate(fields)
