"""Encrypted records: what a holder of the key wrote, as it was written, for the task it is of."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncz.exceptions import ConfigurationError, SerializationError, UnreadableRecordError
from asyncz.serializers import (
    EncryptedSerializer,
    EncryptingSerializer,
    JSONSerializer,
    Record,
    Serializer,
)
from asyncz.serializers.envelope import KEY_VARIABLE, open_envelope
from asyncz.testing.store_suite_tools import SuiteHost, make_task

from . import jobs
from .test_values import VALUES, is_same

HOST = SuiteHost()
OLD = "the old key, and it is certainly long enough"
NEW = "the new key, and it is certainly long enough"


def record_of(task_id: str = "a", **options: Any) -> Record:
    return JSONSerializer().to_record(make_task(task_id, fn=jobs.anything, **options))


def packed(task_id: str = "a", key: str = NEW, **options: Any) -> bytes:
    return EncryptedSerializer(key).pack(record_of(task_id, **options))


def test_it_is_a_serializer_that_encrypts() -> None:
    assert isinstance(EncryptedSerializer(NEW), Serializer)
    assert isinstance(EncryptedSerializer(NEW), EncryptingSerializer)
    assert not isinstance(JSONSerializer(), EncryptingSerializer)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1), st.lists(VALUES, max_size=3))
def test_a_task_comes_back_as_it_was(task_id: str, args: list[Any]) -> None:
    serializer = EncryptedSerializer(NEW)
    task = make_task(task_id, fn=jobs.anything, args=args)
    back = serializer.loads(serializer.dumps(task, {"order": 5}), HOST, "files")
    assert back.id == task_id
    assert is_same(back.args, tuple(args))
    assert back.fn is jobs.anything


def test_nothing_but_the_id_can_be_read_without_the_key() -> None:
    data = packed("the id", args=("canary",), name="canary", kwargs={"canary": "canary"})
    assert b"the id" in data
    for word in (b"canary", b"anything", b"args", b"interval", b"fn"):
        assert word not in data
    assert EncryptedSerializer(OLD).identify(data) == "the id"


def test_the_same_record_is_never_written_the_same_way() -> None:
    serializer, record = EncryptedSerializer(NEW), record_of()
    assert len({serializer.pack(record) for _ in range(1_000)}) == 1_000


def test_every_flipped_bit_is_noticed() -> None:
    serializer, data = EncryptedSerializer(NEW), packed(args=("x", 1))
    for place in range(len(data) * 8):
        spoilt = bytearray(data)
        spoilt[place // 8] ^= 1 << place % 8
        with pytest.raises(UnreadableRecordError):
            serializer.unpack(bytes(spoilt))


def test_every_swap_of_two_bytes_is_noticed() -> None:
    serializer, data = EncryptedSerializer(NEW), packed()
    draw = random.Random(2)
    for place in range(len(data)):
        other = draw.randrange(len(data))
        spoilt = bytearray(data)
        spoilt[place], spoilt[other] = data[other], data[place]
        if spoilt != data:
            with pytest.raises(UnreadableRecordError):
                serializer.unpack(bytes(spoilt))


def test_what_is_cut_off_or_added_to_is_noticed() -> None:
    serializer, data = EncryptedSerializer(NEW), packed()
    for length in range(len(data)):
        with pytest.raises(UnreadableRecordError):
            serializer.unpack(data[:length])
    for more in (b"\0", b"}", data):
        with pytest.raises(UnreadableRecordError, match="changed"):
            serializer.unpack(data + more)


def test_a_record_cannot_be_given_the_id_of_another() -> None:
    serializer = EncryptedSerializer(NEW)
    one, other = open_envelope(packed("a")), open_envelope(packed("b"))
    for forged in (
        one._replace(task_id=b"b"),
        one._replace(sealed=other.sealed),
        one._replace(sealed=other.sealed, nonce=other.nonce),
    ):
        with pytest.raises(UnreadableRecordError, match="changed"):
            serializer.unpack(forged.header + forged.sealed)


def test_the_first_key_writes_and_all_of_them_read() -> None:
    both = EncryptedSerializer([NEW, OLD])
    assert both.unpack(packed(key=OLD)) == record_of()
    assert EncryptedSerializer(NEW).unpack(both.pack(record_of())) == record_of()
    with pytest.raises(UnreadableRecordError):
        EncryptedSerializer(OLD).unpack(both.pack(record_of()))


def test_a_record_of_an_unknown_key_says_which_one_is_missing() -> None:
    data = packed(key=OLD)
    with pytest.raises(UnreadableRecordError, match=open_envelope(data).key_id.hex()) as caught:
        EncryptedSerializer(NEW).unpack(data)
    assert OLD not in str(caught.value)
    assert NEW not in str(caught.value)


def test_a_plain_record_is_not_trusted() -> None:
    with pytest.raises(UnreadableRecordError, match="not encrypted"):
        EncryptedSerializer(NEW).unpack(JSONSerializer().pack(record_of()))


def test_without_a_key_an_encrypted_record_says_what_is_missing() -> None:
    with pytest.raises(UnreadableRecordError, match=KEY_VARIABLE):
        JSONSerializer().unpack(packed())


def test_a_newer_version_is_told_from_damage() -> None:
    data = packed()
    with pytest.raises(UnreadableRecordError, match="version 2"):
        EncryptedSerializer(NEW).unpack(data[:7] + b"\x02" + data[8:])


def test_nothing_is_parsed_before_it_is_authenticated() -> None:
    class Spy(JSONSerializer):
        def unpack(self, data: bytes) -> Record:
            raise AssertionError("parsed")

    serializer = EncryptedSerializer(NEW, Spy())
    data = bytearray(packed())
    data[-1] ^= 1
    for forged in (bytes(data), packed(key=OLD), JSONSerializer().pack(record_of())):
        with pytest.raises(UnreadableRecordError):
            serializer.unpack(forged)


def test_an_id_that_does_not_fit_is_refused() -> None:
    with pytest.raises(SerializationError, match=r"70,000 bytes.*65,535"):
        packed("x" * 70_000)


KEYS: dict[str, tuple[Any, str]] = {
    "none at all": ([], "needs a key"),
    "empty text": ("", "Key 1 is 0 bytes long"),
    "empty bytes": (b"", "Key 1 is 0 bytes long"),
    "spaces": (" " * 40, "Key 1 is 0 bytes long"),
    "short": ("hunter2", "Key 1 is 7 bytes long"),
    "a short one among others": ([NEW, "hunter2"], "Key 2 is 7 bytes long"),
    "no text": (5, "must be text or bytes, not int"),
    "a number among others": ([NEW, 5], "Key 2 must be text or bytes, not int"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_that_protects_nothing_is_refused(case: str) -> None:
    keys, text = KEYS[case]
    with pytest.raises(ConfigurationError, match=text) as caught:
        EncryptedSerializer(keys)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["", " ", ",", f"{NEW},", f"{NEW},hunter2"])
def test_a_bad_key_in_the_environment_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(ConfigurationError, match=KEY_VARIABLE) as caught:
        EncryptedSerializer()
    assert "hunter2" not in str(caught.value)
    assert NEW not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"{number} is a key without a comma in it" for number in range(3)]
    monkeypatch.setenv(KEY_VARIABLE, f" {keys[0]}, {keys[1]} ,{keys[2]}")
    serializer = EncryptedSerializer()
    for key in keys:
        assert serializer.unpack(packed(key=key)) == record_of()
    assert EncryptedSerializer(keys[0]).unpack(serializer.pack(record_of())) == record_of()


def test_without_any_key_it_says_where_one_could_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=KEY_VARIABLE):
        EncryptedSerializer()


def test_random_bytes_are_a_key_whatever_they_begin_with() -> None:
    key = b" \n" + bytes(range(30))
    assert EncryptedSerializer(key).unpack(EncryptedSerializer(key).pack(record_of()))


def test_no_repr_shows_a_key() -> None:
    serializer = EncryptedSerializer([NEW, OLD])
    shown = f"{serializer!r} {serializer} {vars(serializer)!r}"
    assert "2 key(s)" in shown
    assert "the new key" not in shown
    assert "the old key" not in shown


def test_without_cryptography_the_error_names_what_to_install() -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from asyncz import FileStore\n"
        "try: FileStore('tasks')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={KEY_VARIABLE: NEW, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("ConfigurationError")
    assert "pip install 'asyncz[encryption]'" in done.stdout
