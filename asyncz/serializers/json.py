"""Tasks as JSON: readable by people and other programs, and safe to read from anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from asyncz.exceptions import (
    SerializationError,
    TaskOptionError,
    TransientTaskError,
    UnreadableRecordError,
)
from asyncz.serializers.annotated import decode_arguments, encode_arguments
from asyncz.serializers.base import Record, RecordHost
from asyncz.serializers.envelope import KEY_VARIABLE, is_encrypted
from asyncz.serializers.references import CallableReferences, ReferenceRefusedError
from asyncz.serializers.values import is_clean_text
from asyncz.tasks.base import Task
from asyncz.tasks.callables import callable_name, reference_to
from asyncz.triggers import BaseTrigger, load_trigger

__all__ = ["DEFAULT_MAX_PAYLOAD", "JSONSerializer", "from_microseconds", "to_microseconds"]

VERSION = 1
DEFAULT_MAX_PAYLOAD = 2 * 1024 * 1024
"""Room for 1 MiB of arguments, also when they are bytes, which take a third more as text."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

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
PLAIN_FIELDS = tuple(name for name in Task.model_fields if name not in SPECIAL_FIELDS)
"""The fields that are JSON values already and stand in the record under their own names."""


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch: times as stores keep and compare them."""
    return (moment - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The reverse of `to_microseconds`, in UTC. OverflowError outside of the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=count)


class JSONSerializer:
    """Writes versioned JSON, and reads it without ever importing or running anything that the
    record names, except the task's callable, if that is allowed.

    Args:
        allowed_callables: Patterns of the references that may be called, such as `myapp.jobs:*`.
            None: any outside the standard library and the builtins.
        max_payload: Bytes that a record may have.
    """

    def __init__(
        self,
        allowed_callables: tuple[str, ...] | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
    ) -> None:
        self.max_payload = max_payload
        self._references = CallableReferences(allowed_callables)

    def dumps(self, task: Task, notes: Mapping[str, int] | None = None) -> bytes:
        """The task as bytes. Raises as `to_record` and `pack` do."""
        return self.pack(self.to_record(task, notes))

    def loads(self, data: bytes, host: RecordHost, store_alias: str | None) -> Task:
        """The task of those bytes. Raises UnreadableRecordError, which says why."""
        return self.from_record(self.unpack(data), host, store_alias)

    def to_record(self, task: Task, notes: Mapping[str, int] | None = None) -> Record:
        """The task as a record, with the store's notes.

        Raises:
            TransientTaskError: Its callable could not be found again.
            SerializationError: An argument cannot be written, or a record may not name the
                callable.
        """
        reference = self._reference_of(task)
        assert task.fn is not None  # noqa: S101  # it has a reference
        record: Record = {"v": VERSION, "fn": reference}
        record.update((name, getattr(task, name)) for name in PLAIN_FIELDS)
        moment = task.next_run_time
        record["next_run_time"] = to_microseconds(moment) if moment is not None else None
        try:
            record["args"], record["kwargs"] = encode_arguments(task.fn, task.args, task.kwargs)
            record["trigger"] = _dump_trigger(task.trigger)
        except SerializationError as exc:
            raise SerializationError(f"Task {task.id!r}: {exc}") from None
        if notes:
            record["store"] = dict(notes)
        return record

    def from_record(self, record: Record, host: RecordHost, store_alias: str | None) -> Task:
        """The task of a record. Raises UnreadableRecordError, which says why."""
        try:
            return self._build(record, host, store_alias)
        except ReferenceRefusedError as exc:
            raise UnreadableRecordError(str(exc)) from None
        except TaskOptionError as exc:
            raise UnreadableRecordError(f"The record does not make a task: {exc}") from None
        except RecursionError:
            raise UnreadableRecordError("The record is nested too deeply.") from None

    def pack(self, record: Record) -> bytes:
        """The record as bytes. Raises SerializationError if they are too many."""
        try:
            data = ENCODER.encode(record).encode()
        except (ValueError, TypeError, RecursionError) as exc:
            raise SerializationError(
                f"Task {record.get('id')!r} cannot be written as JSON ({type(exc).__name__}); "
                f"give options of plain types, and texts without half surrogate pairs."
            ) from None
        if len(data) > self.max_payload:
            raise SerializationError(
                f"The record of the task {record.get('id')!r} has {len(data):,} bytes, more than "
                f"max_payload={self.max_payload:,}; keep the data elsewhere and pass its id."
            )
        return data

    def unpack(self, data: bytes) -> Record:
        """The record of those bytes. Raises UnreadableRecordError, which says why."""
        if is_encrypted(data):
            raise UnreadableRecordError(
                f"The record is encrypted, and this store has no key. Set {KEY_VARIABLE}, or give "
                f"the store an EncryptedSerializer."
            )
        if len(data) > self.max_payload:
            raise UnreadableRecordError(
                f"The record has {len(data):,} bytes, more than max_payload={self.max_payload:,}."
            )
        try:
            record = DECODER.decode(data.decode())
        except (ValueError, RecursionError) as exc:
            raise UnreadableRecordError(f"The record is not JSON: {exc}.") from None
        if not isinstance(record, dict):
            raise UnreadableRecordError("The record is not a JSON object.")
        return record

    def _reference_of(self, task: Task) -> str:
        fn = task.fn
        if fn is None:
            raise SerializationError(f"Task {task.id!r} has no callable; give it fn.")
        reference = task.fn_reference or reference_to(fn)
        if reference is None:
            raise TransientTaskError(
                f"Task {task.id!r}: {callable_name(fn)} cannot be found again by a name, so a "
                f"persistent store cannot keep it. Define it at the top level of a module (no "
                f"lambda, nested function, partial or bound method), give a reference such as "
                f"'package.module:name', or add the task to a MemoryStore."
            )
        try:
            self._references.check(reference, fn)
        except ReferenceRefusedError as exc:
            raise SerializationError(f"Task {task.id!r}: {exc}") from None
        return reference

    def _build(self, record: Record, host: RecordHost, store_alias: str | None) -> Task:
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
        task = Task(
            fn,
            **{name: record[name] for name in PLAIN_FIELDS if name in record},
            args=args,
            kwargs=kwargs,
            trigger=_load_trigger(record.get("trigger"), host),
            next_run_time=_next_run_time(record, host),
            store_alias=store_alias,
            scheduler=host,
            pending=False,
            submitted=True,
        )
        task.fn_reference = reference
        task.settle_options()
        return task


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


# Made once: `json.dumps` and `json.loads` make new ones at each call with such options.
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


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


def _dump_trigger(trigger: BaseTrigger | None) -> Any:
    if trigger is None:
        return None
    try:
        return trigger.model_dump(mode="json")
    except Exception as exc:  # a custom trigger's serializer is the user's code
        raise SerializationError(
            f"its trigger {type(trigger).__name__} cannot be written as JSON "
            f"({type(exc).__name__}: {exc}); its fields must be of types that Pydantic can write."
        ) from None


def _load_trigger(record: Any, host: RecordHost) -> BaseTrigger | None:
    if record is None:
        return None
    try:
        return load_trigger(record, host.trigger_types)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False, include_context=False)
        why = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in errors[:5])
    except Exception as exc:  # a custom trigger's validators are the user's code
        why = str(exc)
    raise UnreadableRecordError(f"The record's trigger cannot be read: {why[:300]}")
