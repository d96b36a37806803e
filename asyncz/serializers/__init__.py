"""How a task becomes a record that a store can keep, and a record a task again."""

from asyncz.serializers.base import Record, RecordHost, Serializer
from asyncz.serializers.json import JSONSerializer

__all__ = ["JSONSerializer", "Record", "RecordHost", "Serializer"]
