"""What is said of a run, as the bytes that a database has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from asyncz.exceptions import UnreadableRecordError
from asyncz.runs.base import readable_notes
from asyncz.stores.serializing import Codec
from asyncz.stores.sqlalchemy_runs import Explain

__all__ = ["amend", "because", "read_asker", "seal", "seal_asker", "unseal"]

TEXTS = ("reason", "error", "traceback")


def seal(
    codec: Codec,
    task_id: str,
    reason: str | None,
    error: str | None = None,
    traceback: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> bytes | None:
    """What is said of a run, as bytes; encrypted if the records are, and bound to the task."""
    if reason is error is traceback is None and not notes:
        return None
    said = {"reason": reason, "error": error, "traceback": traceback, "notes": notes or None}
    return _seal(codec, task_id, said)


def unseal(codec: Codec, task_id: str, data: bytes | None) -> dict[str, Any]:
    """What is said of a run, by fields of `Run`."""
    try:
        said = _read(codec, task_id, data)
    except ValueError as exc:
        return {"reason": f"what was said of it cannot be read here: {exc}"}
    texts = {name: said[name] for name in TEXTS if isinstance(said.get(name), str)}
    return texts | readable_notes(said.get("notes"))


def amend(codec: Codec, task_id: str, data: bytes | None, **changes: Any) -> bytes:
    """What is said of a run, with changes; what cannot be read here gives way to them."""
    try:
        said = _read(codec, task_id, data)
    except ValueError:
        said = {}
    said |= changes
    return _seal(codec, task_id, said)


def because(codec: Codec, task_id: str, reason: str) -> Explain:
    """What adds a reason to what is said of a run of this task."""
    return lambda data: amend(codec, task_id, data, reason=reason)


def seal_asker(codec: Codec, task_id: str, by: str) -> bytes:
    """Who has asked to cancel a run, as bytes likewise."""
    return _seal(codec, task_id, {"by": by})


def read_asker(codec: Codec, task_id: str, data: bytes) -> str:
    """Who has asked to cancel a run."""
    try:
        by = _read(codec, task_id, data).get("by")
    except ValueError:
        by = None
    return by if isinstance(by, str) else "somebody whose name cannot be read here"


def _seal(codec: Codec, task_id: str, said: Mapping[str, Any]) -> bytes:
    there = {name: value for name, value in said.items() if value is not None}
    # An error may have half of a surrogate pair in its text, which is no UTF-8.
    return codec.encrypt(json.dumps({"id": task_id, **there}, ensure_ascii=True).encode())


def _read(codec: Codec, task_id: str, data: bytes | None) -> dict[str, Any]:
    """Raises ValueError if it cannot be read, or is of another task."""
    if data is None:
        return {}
    try:
        said = json.loads(codec.decrypt(bytes(data)))
    except (UnreadableRecordError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
    if not isinstance(said, dict) or said.pop("id", None) != task_id:
        raise ValueError("it is of another task")
    return said
