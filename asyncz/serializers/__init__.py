"""How a task becomes a record that a store can keep, and a record a task again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncz.serializers.base import EncryptingSerializer, Record, RecordHost, Serializer
from asyncz.serializers.json import JSONSerializer

if TYPE_CHECKING:
    from asyncz.serializers.encrypted import EncryptedSerializer

__all__ = [
    "EncryptedSerializer",
    "EncryptingSerializer",
    "JSONSerializer",
    "Record",
    "RecordHost",
    "Serializer",
]


def __getattr__(name: str) -> Any:
    # It needs a package of its own.
    if name == "EncryptedSerializer":
        from asyncz.serializers.encrypted import EncryptedSerializer

        return EncryptedSerializer
    raise AttributeError(f"module 'asyncz.serializers' has no attribute {name!r}")
