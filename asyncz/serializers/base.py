"""The contract of a serializer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Protocol, runtime_checkable

from asyncz.clock import Clock
from asyncz.tasks.base import Task
from asyncz.triggers.base import BaseTrigger

__all__ = ["EncryptingSerializer", "Record", "RecordHost", "Serializer"]

Record = dict[str, Any]
"""A task as JSON values: `{"v": 1, "id": …, "fn": "module:name", "trigger": {"type": …}, …}`."""


class RecordHost(Protocol):
    """What is needed of the scheduler to read a record; every `StoreHost` has it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def timezone(self) -> tzinfo: ...
    @property
    def trigger_types(self) -> Mapping[str, type[BaseTrigger]]: ...


@runtime_checkable
class Serializer(Protocol):
    """Makes records of tasks and tasks of records, in two steps each.

    Task and record: `to_record`, `from_record`. Record and bytes: `pack`, `unpack`; a serializer
    that encrypts has its own two of these. A store that keeps columns of its own, or that changes
    only a time, works on the record in between.

    All raise SerializationError (TransientTaskError for a callable) for what cannot be written,
    and UnreadableRecordError for what cannot be read, and nothing else.
    """

    def to_record(self, task: Task, notes: Mapping[str, int] | None = None) -> Record:
        """The task as a record.

        Args:
            task: With its id and callable.
            notes: What the store wants to know of it beside; kept as the record's `store`.
        """

    def from_record(self, record: Record, host: RecordHost, store_alias: str | None) -> Task:
        """A new task, as its store hands it out: settled, submitted, of that host and alias."""

    def pack(self, record: Record) -> bytes:
        """The record as bytes."""

    def unpack(self, data: bytes) -> Record:
        """The record of those bytes: an object of JSON values, otherwise unchecked."""

    def dumps(self, task: Task, notes: Mapping[str, int] | None = None) -> bytes:
        """`to_record` and `pack`."""

    def loads(self, data: bytes, host: RecordHost, store_alias: str | None) -> Task:
        """`unpack` and `from_record`."""


@runtime_checkable
class EncryptingSerializer(Serializer, Protocol):
    """A serializer whose bytes are those of another one, encrypted."""

    @property
    def plain(self) -> Serializer:
        """The other one."""

    def encrypt(self, data: bytes) -> bytes:
        """What `plain` has packed, encrypted."""

    def decrypt(self, data: bytes) -> bytes:
        """The reverse. Raises UnreadableRecordError unless a holder of a key has written it."""

    def identify(self, data: bytes) -> str | None:
        """The task's id that encrypted bytes claim; None if they claim none."""
