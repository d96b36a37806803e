"""Records that only holders of a key can read or write: AES-256-GCM."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asyncz.exceptions import ConfigurationError, SerializationError, UnreadableRecordError
from asyncz.serializers.base import Record, RecordHost, Serializer
from asyncz.serializers.envelope import (
    KEY_ID_BYTES,
    KEY_VARIABLE,
    LONGEST_ID,
    NONCE_BYTES,
    Envelope,
    is_encrypted,
    open_envelope,
)
from asyncz.serializers.json import JSONSerializer
from asyncz.serializers.values import is_clean_text
from asyncz.tasks.base import Task

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as exc:
    raise ImportError(
        "Encrypted records need the package cryptography: pip install 'asyncz[encryption]'."
    ) from exc

__all__ = ["KEY_VARIABLE", "EncryptedSerializer"]

SHORTEST_KEY = 32
AES_KEY_BYTES = 32
PURPOSE = b"asyncz record, AES-256-GCM, version 1"
HOW_TO_MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one"


class _Key(NamedTuple):
    """A key that is ready for use. Its id tells nothing of it."""

    id: bytes
    cipher: AESGCM

    def __repr__(self) -> str:
        return f"<key {self.id.hex()}>"


class EncryptedSerializer:
    """Encrypts and authenticates what another serializer writes.

    Each record is bound to its task's id, so that it cannot take the place of another task's.
    Nothing of a record is looked at before it is known to be one that a holder of a key wrote.

    Args:
        keys: Secret text or bytes, at least 32 of them and random; or several, of which the first
            writes and all read. None: those of `ASYNCZ_STORE_ENCRYPTION_KEY`, with commas between
            them.
        serializer: What it encrypts. None: a `JSONSerializer`.

    Raises:
        ConfigurationError: There is no key, or one of them is too short.
    """

    def __init__(
        self,
        keys: str | bytes | Sequence[str | bytes] | None = None,
        serializer: Serializer | None = None,
    ) -> None:
        self.plain: Serializer = serializer if serializer is not None else JSONSerializer()
        secrets = _given(keys) if keys is not None else _from_environment()
        ring = [_derive(secret) for secret in secrets]
        self._writer = ring[0]
        self._ring = {key.id: key.cipher for key in ring}

    def encrypt(self, data: bytes) -> bytes:
        """Bytes, encrypted; bound to the task's id if they are a record that `plain` has packed."""
        try:
            task_id = self.plain.unpack(data).get("id")
        except UnreadableRecordError:
            task_id = None
        return self._seal(data, task_id)

    def decrypt(self, data: bytes) -> bytes:
        """The reverse of `encrypt`. Raises UnreadableRecordError, which says why not."""
        envelope = open_envelope(data)
        cipher = self._ring.get(envelope.key_id)
        if cipher is None:
            raise UnreadableRecordError(
                f"The record is encrypted with the key {envelope.key_id.hex()}, which is not one "
                f"of those given ({', '.join(key.hex() for key in self._ring)}). Give that key "
                f"too, behind the others, if it is yours."
            )
        try:
            return cipher.decrypt(envelope.nonce, envelope.sealed, envelope.header)
        except InvalidTag:
            raise UnreadableRecordError(
                "The record is not as it was written: something in it has been changed."
            ) from None

    def identify(self, data: bytes) -> str | None:
        """The id that an encrypted record claims to have, without a key; not to be believed."""
        if not is_encrypted(data):
            return None
        try:
            return open_envelope(data).task_id.decode() or None
        except (UnreadableRecordError, UnicodeDecodeError):
            return None

    def pack(self, record: Record) -> bytes:
        """The record as encrypted bytes."""
        return self._seal(self.plain.pack(record), record.get("id"))

    def unpack(self, data: bytes) -> Record:
        """The record of those bytes. Raises UnreadableRecordError, which says why not."""
        return self.plain.unpack(self.decrypt(data))

    def to_record(self, task: Task, notes: Mapping[str, int] | None = None) -> Record:
        """The task as a record, in the clear."""
        return self.plain.to_record(task, notes)

    def from_record(self, record: Record, host: RecordHost, store_alias: str | None) -> Task:
        """The task of a record in the clear."""
        return self.plain.from_record(record, host, store_alias)

    def dumps(self, task: Task, notes: Mapping[str, int] | None = None) -> bytes:
        """`to_record` and `pack`."""
        return self.pack(self.to_record(task, notes))

    def loads(self, data: bytes, host: RecordHost, store_alias: str | None) -> Task:
        """`unpack` and `from_record`."""
        return self.from_record(self.unpack(data), host, store_alias)

    def _seal(self, data: bytes, task_id: object) -> bytes:
        key_id, cipher = self._writer
        name = task_id.encode() if isinstance(task_id, str) and is_clean_text(task_id) else b""
        if len(name) > LONGEST_ID:
            raise SerializationError(
                f"The task id {ascii(task_id)[:40]}… has {len(name):,} bytes; that of an "
                f"encrypted record can have {LONGEST_ID:,}."
            )
        envelope = Envelope(key_id, os.urandom(NONCE_BYTES), name)
        header = envelope.header
        return header + cipher.encrypt(envelope.nonce, data, header)

    def __repr__(self) -> str:
        return f"<EncryptedSerializer of {len(self._ring)} key(s), writes with {self._writer!r}>"


def _given(keys: str | bytes | Sequence[str | bytes]) -> list[bytes]:
    single = isinstance(keys, str | bytes) or not isinstance(keys, Sequence)
    several: list[Any] = [keys] if single else list(keys)
    if not several:
        raise ConfigurationError(f"EncryptedSerializer needs a key; {HOW_TO_MAKE_ONE}.")
    return [_checked(key, f"Key {number}") for number, key in enumerate(several, 1)]


def _from_environment() -> list[bytes]:
    text = os.environ.get(KEY_VARIABLE)
    if text is None:
        raise ConfigurationError(
            f"EncryptedSerializer needs a key: give keys, or set {KEY_VARIABLE}; {HOW_TO_MAKE_ONE}."
        )
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise ConfigurationError(
            f"{KEY_VARIABLE} is set, but empty. Unset it if records are not to be encrypted; "
            f"otherwise {HOW_TO_MAKE_ONE}."
        )
    return [
        _checked(part, f"Key {number} of {KEY_VARIABLE}") for number, part in enumerate(parts, 1)
    ]


def _checked(key: object, what: str) -> bytes:
    if not isinstance(key, str | bytes):
        raise ConfigurationError(f"{what} must be text or bytes, not {type(key).__name__}.")
    secret = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    length = len(secret) if secret.strip() else 0
    if length < SHORTEST_KEY:
        raise ConfigurationError(
            f"{what} is {length} bytes long, too short to be safe: at least "
            f"{SHORTEST_KEY} random ones are needed; {HOW_TO_MAKE_ONE}."
        )
    return secret


def _derive(secret: bytes) -> _Key:
    """The AES key of a secret, and an id that records can name it by."""
    kdf = HKDF(algorithm=SHA256(), length=AES_KEY_BYTES + KEY_ID_BYTES, salt=None, info=PURPOSE)
    derived = kdf.derive(secret)
    return _Key(derived[AES_KEY_BYTES:], AESGCM(derived[:AES_KEY_BYTES]))
