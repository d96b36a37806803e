"""What the parts of a file store are handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Companion", "FileOptions"]


@dataclass(frozen=True)
class FileOptions:
    """What a file store was made with; see there."""

    directory: Path
    suffix: str
    mode: int
    lock_timeout: float
    alias: str


class Companion(Protocol):
    """What is kept beside the tasks."""

    def remove(self) -> None:
        """Remove it, if nobody uses it."""

    def close(self) -> None:
        """Let go of it."""
