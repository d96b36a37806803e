"""From records to tasks.

A store hands out a new task for each record it reads, and most records differ from others in their
id, times and arguments only. What they have in common is checked once, and remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from asyncz.exceptions import UnreadableRecordError
from asyncz.serializers.annotated import decode_arguments
from asyncz.serializers.base import Record, RecordHost
from asyncz.serializers.instants import from_microseconds
from asyncz.serializers.references import CallableReferences
from asyncz.serializers.values import is_clean_text
from asyncz.tasks.base import Task
from asyncz.tasks.callables import check_arguments
from asyncz.triggers import BaseTrigger, load_trigger
from asyncz.triggers.combining import CombinationTrigger
from asyncz.triggers.registry import TRIGGER_TYPES

__all__ = ["PLAIN_FIELDS", "RARE_FIELDS", "REACTIONS", "VERSION", "TaskBuilder"]

VERSION = 1

SPECIAL_FIELDS = {
    "args",
    "fn",
    "fn_reference",
    "kwargs",
    "next_run_time",
    "pending",
    "scheduler",
    "store_alias",
    "submitted",
    "trigger",
}
REACTIONS = ("on_success", "on_failure", "on_missed")
RARE_FIELDS = ("retry", "timeout", "tags", "store_result", "history", "expect_every", *REACTIONS)
"""The fields that most tasks have at their defaults, and that stand in the record otherwise."""
PLAIN_FIELDS = tuple(
    name for name in Task.model_fields if name not in SPECIAL_FIELDS and name not in RARE_FIELDS
)
"""The fields that are JSON values already and stand in the record under their own names."""
OPTIONS = tuple(name for name in (*PLAIN_FIELDS, *RARE_FIELDS) if name not in ("id", "name"))
"""Those that many tasks have in common."""

BLANK: dict[str, Any] = {
    name: None for name in (*SPECIAL_FIELDS, "id", "name") if name not in ("pending", "submitted")
}
"""What they do not."""

REMEMBERED = 1024
"""Triggers that are remembered, and sets of options."""
LONGEST_REMEMBERED = 1024
"""Characters of one."""


class TaskBuilder:
    """Makes tasks of records.

    Args:
        references: Finds their callables.
    """

    def __init__(self, references: CallableReferences) -> None:
        self._references = references
        # By their text, in which 1, 1.0 and true differ.
        self._options: dict[str, dict[str, Any]] = {}
        self._triggers: dict[str, BaseTrigger] = {}

    def build(self, record: Record, host: RecordHost, store_alias: str | None) -> Task:
        """The task of a record.

        Raises:
            UnreadableRecordError, ReferenceRefusedError, TaskOptionError: It makes none.
        """
        if record.get("v") != VERSION or isinstance(record["v"], bool):
            raise UnreadableRecordError(
                f"The record has the version {str(record.get('v'))[:20]}; this asyncz reads "
                f"version {VERSION}. Run the release that wrote it, or a newer one."
            )
        _require_id(record)
        reference = _require(record, "fn", str)
        fn = self._references.resolve(reference, host.clock.monotonic())
        args, kwargs = decode_arguments(
            fn, _require(record, "args", list), _require(record, "kwargs", dict)
        )
        values: dict[str, Any] = {
            "args": tuple(args),
            "kwargs": kwargs,
            "trigger": self._trigger_of(record.get("trigger"), host),
            "next_run_time": _next_run_time(record, host),
            "store_alias": store_alias,
            "scheduler": host,
        }
        name = record.get("name")
        if not name or not isinstance(name, str):
            return self._build_anew(record, fn, reference, values, host)
        text = repr([record.get(option, ...) for option in OPTIONS])
        known = self._options.get(text)
        if known is None:
            task = self._build_anew(record, fn, reference, values, host)
            _remember(self._options, text, task.field_values() | BLANK)
            return task
        check_arguments(fn, args, kwargs)
        values |= {"id": record["id"], "name": name, "fn": fn, "fn_reference": reference}
        return Task.of_checked(known | values)

    def _build_anew(
        self,
        record: Record,
        fn: Callable[..., Any],
        reference: str,
        values: dict[str, Any],
        host: RecordHost,
    ) -> Task:
        plain = {name: record[name] for name in (*PLAIN_FIELDS, *RARE_FIELDS) if name in record}
        for name in REACTIONS:
            if name in plain:
                named = _require(record, name, str)
                plain[name] = self._references.resolve(named, host.clock.monotonic())
        task = Task(fn, **plain, **values, pending=False, submitted=True)
        task.fn_reference = reference
        task.settle_options()
        return task

    def _trigger_of(self, record: Any, host: RecordHost) -> BaseTrigger | None:
        if record is None:
            return None
        text = repr(record)
        known = self._triggers.get(text)
        if known is not None:
            kind = type(known)
            if host.trigger_types.get(known.alias, kind) is kind:
                return known
        trigger = _load_trigger(record, host)
        # Others than these may be changed by whoever has one, or have children that may.
        kind = type(trigger)
        if TRIGGER_TYPES.get(trigger.alias) is kind and not issubclass(kind, CombinationTrigger):
            _remember(self._triggers, text, trigger)
        return trigger


def _remember(known: dict[str, Any], text: str, value: Any) -> None:
    if len(text) > LONGEST_REMEMBERED:
        return
    if len(known) >= REMEMBERED:
        # All of them: to note which was used last would cost as much as is saved. And in one
        # operation, as stores read in threads too.
        known.clear()
    known[text] = value


def _require(record: Record, name: str, kind: type) -> Any:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UnreadableRecordError(
            f"The record's {name!r} is missing or not of the JSON type for {kind.__name__}."
        )
    return value


def _require_id(record: Record) -> None:
    if not _require(record, "id", str) or not is_clean_text(record["id"]):
        raise UnreadableRecordError("The record's 'id' is empty or not valid text.")


def _next_run_time(record: Record, host: RecordHost) -> datetime | None:
    if record.get("next_run_time", "") is None:
        return None
    count = _require(record, "next_run_time", int)
    try:
        return from_microseconds(count).astimezone(host.timezone)
    except (OverflowError, ValueError):
        raise UnreadableRecordError("The record's 'next_run_time' is out of range.") from None


def _load_trigger(record: Any, host: RecordHost) -> BaseTrigger:
    try:
        return load_trigger(record, host.trigger_types)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False, include_context=False)
        why = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in errors[:5])
    except Exception as exc:  # a custom trigger's validators are the user's code
        why = str(exc)
    raise UnreadableRecordError(f"The record's trigger cannot be read: {why[:300]}")
