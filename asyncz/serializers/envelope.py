"""What encrypted records look like from outside: told from plain ones without any key."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from asyncz.exceptions import UnreadableRecordError

__all__ = [
    "KEY_ID_BYTES",
    "KEY_VARIABLE",
    "LONGEST_ID",
    "NONCE_BYTES",
    "Envelope",
    "is_encrypted",
    "open_envelope",
]

KEY_VARIABLE = "ASYNCZ_STORE_ENCRYPTION_KEY"
MARK = b"\0asyncz"
"""No JSON begins with a zero byte."""
VERSION = 1
KEY_ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
LONGEST_ID = 65_535
_HEAD = Struct(f">{len(MARK)}sB{KEY_ID_BYTES}s{NONCE_BYTES}sH")


class Envelope(NamedTuple):
    """An encrypted record in its parts. All but `sealed` can be read by anybody.

    Args:
        key_id: Which key it was written with.
        nonce: Never used twice with one key.
        task_id: UTF-8.
        sealed: The encrypted record and its authentication tag.
    """

    key_id: bytes
    nonce: bytes
    task_id: bytes
    sealed: bytes = b""

    @property
    def header(self) -> bytes:
        """All that comes before `sealed`; it is authenticated with it."""
        head = _HEAD.pack(MARK, VERSION, self.key_id, self.nonce, len(self.task_id))
        return head + self.task_id


def is_encrypted(data: bytes) -> bool:
    """Whether these bytes say of themselves that they are an encrypted record."""
    return data.startswith(MARK)


def open_envelope(data: bytes) -> Envelope:
    """Take an encrypted record apart. Nothing of it is to be believed before it is decrypted.

    Raises:
        UnreadableRecordError: It is not encrypted, is cut off, or is of a newer release.
    """
    if not is_encrypted(data):
        raise UnreadableRecordError(
            "The record is not encrypted. This store has a key, and then trusts no plain record: "
            "whoever can write to the store could have put it there. Add the task again, or take "
            "the key away to read it."
        )
    if len(data) > len(MARK) and data[len(MARK)] != VERSION:
        raise UnreadableRecordError(
            f"The record is encrypted in version {data[len(MARK)]}; this asyncz reads version "
            f"{VERSION}. Run the release that wrote it, or a newer one."
        )
    if len(data) >= _HEAD.size:
        _, _, key_id, nonce, length = _HEAD.unpack_from(data)
        end = _HEAD.size + length
        if len(data) >= end + TAG_BYTES:
            return Envelope(key_id, nonce, data[_HEAD.size : end], data[end:])
    raise UnreadableRecordError("The record is encrypted, and cut off.")
