"""What the stores have in common whose tasks are records: the way from a task to bytes and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from asyncz.exceptions import ConfigurationError, UnreadableRecordError
from asyncz.serializers.base import Record, Serializer
from asyncz.serializers.json import JSONSerializer
from asyncz.serializers.values import is_clean_text
from asyncz.stores.base import BaseStore, StoreHost
from asyncz.tasks.base import Task

__all__ = ["Codec", "SerializingStore"]


@dataclass(frozen=True)
class Codec:
    """From a task to a record's bytes and back, for one scheduler."""

    serializer: Serializer
    host: StoreHost
    alias: str
    encrypt: Callable[[bytes], bytes]
    decrypt: Callable[[bytes], bytes]

    def pack(self, record: Record) -> bytes:
        return self.encrypt(self.serializer.pack(record))

    def unpack(self, data: bytes) -> Record:
        return self.serializer.unpack(self.decrypt(data))

    def build(self, record: Record) -> Task:
        return self.serializer.from_record(record, self.host, self.alias)


class SerializingStore(BaseStore):
    """A store that keeps bytes.

    Args:
        serializer: Left out: JSON.
        allowed_callables: For the JSON serializer: patterns such as `myapp.jobs:*` of what the
            store may call. Left out: anything outside the standard library.
    """

    serializer: Serializer | None = Field(default=None, repr=False)
    allowed_callables: tuple[str, ...] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Not in `model_post_init`, which would make a ValidationError of it.
        if self.serializer is not None and self.allowed_callables is not None:
            raise ConfigurationError(
                f"{type(self).__name__}: give allowed_callables to the serializer that you give, "
                "not beside it."
            )
        self._serializer: Serializer = self.serializer or JSONSerializer(self.allowed_callables)

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
        return Codec(
            self._serializer, host, alias, self.conditional_encrypt, self.conditional_decrypt
        )
