"""Tasks as JSON: readable by people and other programs, and safe to read from anybody."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from asyncz.exceptions import (
    SerializationError,
    TaskOptionError,
    TransientTaskError,
    UnreadableRecordError,
)
from asyncz.serializers.annotated import encode_arguments
from asyncz.serializers.base import Record, RecordHost
from asyncz.serializers.building import (
    PLAIN_FIELDS,
    RARE_FIELDS,
    REACTIONS,
    VERSION,
    TaskBuilder,
)
from asyncz.serializers.envelope import KEY_VARIABLE, is_encrypted
from asyncz.serializers.instants import from_microseconds, to_microseconds
from asyncz.serializers.references import CallableReferences, ReferenceRefusedError
from asyncz.tasks.base import Task
from asyncz.tasks.callables import callable_name, reference_to
from asyncz.triggers import BaseTrigger

__all__ = ["DEFAULT_MAX_PAYLOAD", "JSONSerializer", "from_microseconds", "to_microseconds"]

RARE = tuple((name, Task.model_fields[name].default) for name in RARE_FIELDS)
DEFAULT_MAX_PAYLOAD = 2 * 1024 * 1024
"""Room for 1 MiB of arguments, also when they are bytes, which take a third more as text."""


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
        self._builder = TaskBuilder(self._references)

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
        for name, usual in RARE:
            if (value := getattr(task, name)) is not usual and value != usual:
                record[name] = self._rare(task, name, value)
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
            return self._builder.build(record, host, store_alias)
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

    def _rare(self, task: Task, name: str, value: Any) -> Any:
        if name in REACTIONS:
            return self._checked_reference(task, value, reference_to(value))
        if not isinstance(value, BaseModel):
            return list(value) if isinstance(value, tuple) else value
        try:
            return value.model_dump(mode="json")
        except ValueError as exc:
            why = str(exc).rpartition("Error calling function")[0] or str(exc)
            raise SerializationError(f"Task {task.id!r}: its {name}: {why}") from None

    def _reference_of(self, task: Task) -> str:
        fn = task.fn
        if fn is None:
            raise SerializationError(f"Task {task.id!r} has no callable; give it fn.")
        return self._checked_reference(task, fn, task.fn_reference or reference_to(fn))

    def _checked_reference(self, task: Task, fn: Callable[..., Any], reference: str | None) -> str:
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


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


# Made once: `json.dumps` and `json.loads` make new ones at each call with such options.
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


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
