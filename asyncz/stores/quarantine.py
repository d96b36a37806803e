"""The records of a store that could not be read: which, why, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from asyncz.text import printable, text_of

__all__ = ["QuarantineBook", "reason"]

FIRST_RETRY = 1.0
LAST_RETRY = 30.0
LONGEST_REASON = 500


def reason(error: BaseException) -> str:
    """What an error says, on one line: parts of it may come from a record that anybody wrote."""
    return printable(text_of(error), LONGEST_REASON)


@dataclass(slots=True)
class _Note:
    digest: bytes
    error: str
    retry_at: float
    delay: float = FIRST_RETRY


class QuarantineBook:
    """Remembers unreadable records by key, so that they are not read in vain at each pass.

    A record is tried again when its bytes have changed, and now and then although they have not:
    what it needs may have come, such as a newer release of the code or a key. Times are those of
    the clock's `monotonic()`.
    """

    __slots__ = ("_notes",)

    def __init__(self) -> None:
        self._notes: dict[str, _Note] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def __contains__(self, key: str) -> bool:
        return key in self._notes

    def is_known(self, key: str, data: bytes, now: float) -> bool:
        """Whether reading this record again would be in vain."""
        note = self._notes.get(key)
        return note is not None and now < note.retry_at and note.digest == _digest(data)

    def note(self, key: str, data: bytes, error: str, now: float) -> bool:
        """A record could not be read. Returns whether that is news."""
        before, digest = self._notes.get(key), _digest(data)
        delay = FIRST_RETRY
        if before is not None and before.digest == digest:
            delay = min(before.delay * 2, LAST_RETRY)
        self._notes[key] = _Note(digest, error, now + delay, delay)
        return before is None or before.error != error

    def forget(self, key: str) -> bool:
        """The record is gone, or can be read. Returns whether it was one of these."""
        return self._notes.pop(key, None) is not None

    def error_of(self, key: str) -> str:
        """Why it could not be read."""
        return self._notes[key].error

    def try_all_again(self) -> None:
        """Read every one of them when it is next come across."""
        for note in self._notes.values():
            note.retry_at = float("-inf")

    def clear(self) -> None:
        """Forget everything."""
        self._notes.clear()


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()
