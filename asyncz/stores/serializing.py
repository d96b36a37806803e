"""What the stores have in common whose tasks are records: the way from a task to bytes and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from asyncz.exceptions import ConfigurationError, TaskOptionError, UnreadableRecordError
from asyncz.serializers.base import EncryptingSerializer, Record, Serializer
from asyncz.serializers.envelope import KEY_VARIABLE
from asyncz.serializers.json import DEFAULT_MAX_PAYLOAD, JSONSerializer
from asyncz.serializers.values import is_clean_text
from asyncz.stores.base import BaseStore, StoreHost
from asyncz.tasks.base import Task

__all__ = ["Codec", "SerializingStore"]


@dataclass(frozen=True)
class Codec:
    """From a task to a record's bytes and back, for one scheduler.

    Args:
        serializer: One that does not encrypt.
        host, alias: Whose tasks they are.
        encrypt, decrypt: Between the serializer's bytes and those in the store.
        identify: The task's id that bytes in the store claim to be of, or None.
        is_secret: Whether `encrypt` does anything.
    """

    serializer: Serializer
    host: StoreHost
    alias: str
    encrypt: Callable[[bytes], bytes]
    decrypt: Callable[[bytes], bytes]
    identify: Callable[[bytes], str | None]
    is_secret: bool = False

    def pack(self, record: Record) -> bytes:
        return self.encrypt(self.serializer.pack(record))

    def unpack(self, data: bytes) -> Record:
        return self.serializer.unpack(self.decrypt(data))

    def build(self, record: Record) -> Task:
        return self.serializer.from_record(record, self.host, self.alias)

    def repair(self, record: Record, reference: str) -> tuple[Record, Task]:
        """A record with another callable, and its task.

        Raises:
            TaskOptionError: It can be read as it is.
            UnreadableRecordError: It cannot be read with that callable either.
        """
        try:
            self.build(record)
        except UnreadableRecordError:
            repaired = {**record, "fn": reference}
        else:
            raise TaskOptionError(
                f"The task {record['id']!r} of the store {self.alias!r} can be read, so there is "
                f"nothing to repair; update_task(…, fn=…) gives it another function."
            )
        try:
            return repaired, self.build(repaired)
        except UnreadableRecordError as exc:
            raise self.left_alone(record["id"], str(exc)) from None

    def left_alone(self, task_id: str, why: str) -> UnreadableRecordError:
        """The error that says why a record could not be repaired."""
        return UnreadableRecordError(
            f"The task {task_id!r} of the store {self.alias!r} could not be repaired, and was "
            f"left as it is: {why}"
        )


class SerializingStore(BaseStore):
    """A store that keeps bytes.

    Args:
        serializer: Left out: JSON; encrypted if `ASYNCZ_STORE_ENCRYPTION_KEY` is set.
        allowed_callables: Without a serializer of your own: patterns such as `myapp.jobs:*` of
            what the store may call. Left out: anything outside the standard library.
        max_payload: Likewise: bytes that a record may have, before it is encrypted.
    """

    serializer: Serializer | None = Field(default=None, repr=False)
    allowed_callables: tuple[str, ...] | None = None
    max_payload: Annotated[int, Field(ge=1)] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Not in `model_post_init`, which would make a ValidationError of it.
        for name in ("allowed_callables", "max_payload"):
            if self.serializer is not None and getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{type(self).__name__}: give {name} to the serializer that you give, "
                    "not beside it."
                )
        self._serializer: Serializer = self.serializer or _default_serializer(
            self.allowed_callables, self.max_payload or DEFAULT_MAX_PAYLOAD
        )
        self._cipher: EncryptingSerializer | None = None
        if isinstance(self._serializer, EncryptingSerializer):
            self._cipher = self._serializer

    @property
    def keeps_secret(self) -> bool:
        """Whether what it keeps is encrypted, so that nothing of it may be kept beside it."""
        ours = type(self).conditional_encrypt is SerializingStore.conditional_encrypt
        return self._cipher is not None or not ours

    def conditional_encrypt(self, inp: bytes) -> bytes:
        """A record as it goes into the store: encrypted, if the serializer does that."""
        return inp if self._cipher is None else self._cipher.encrypt(inp)

    def conditional_decrypt(self, inp: bytes) -> bytes:
        """The reverse. Raises UnreadableRecordError unless a holder of a key has written it."""
        return inp if self._cipher is None else self._cipher.decrypt(inp)

    def rebuild_task(self, state: bytes) -> Task:
        """The task of what is stored. Raises UnreadableRecordError, which says why not."""
        codec = self._codec(self.host, self.alias or "")
        return codec.build(codec.unpack(state))

    def rebuild_tasks(self, states: list[bytes]) -> list[Task]:
        """The tasks of those that can be read."""
        tasks = []
        for state in states:
            try:
                tasks.append(self.rebuild_task(state))
            except UnreadableRecordError:
                continue
        return tasks

    async def get_tasks(self) -> list[Task]:
        """The same as `get_all_tasks`."""
        return await self.get_all_tasks()

    def check_task_id(self, task_id: str | None) -> None:
        super().check_task_id(task_id)
        if not is_clean_text(str(task_id)):
            raise ValueError(
                f"The task id {task_id!a} has half of a surrogate pair, which is no valid text."
            )

    def _codec(self, host: StoreHost, alias: str) -> Codec:
        cipher = self._cipher
        return Codec(
            self._serializer if cipher is None else cipher.plain,
            host,
            alias,
            self.conditional_encrypt,
            self.conditional_decrypt,
            _unknown if cipher is None else cipher.identify,
            self.keeps_secret,
        )


def _unknown(data: bytes) -> None:
    """Plain bytes claim nothing before they are read."""


def _default_serializer(allowed: tuple[str, ...] | None, max_payload: int) -> Serializer:
    plain = JSONSerializer(allowed, max_payload)
    if KEY_VARIABLE not in os.environ:
        return plain
    try:
        from asyncz.serializers.encrypted import EncryptedSerializer
    except ImportError as exc:
        raise ConfigurationError(f"{KEY_VARIABLE} is set. {exc}") from exc
    return EncryptedSerializer(serializer=plain)
