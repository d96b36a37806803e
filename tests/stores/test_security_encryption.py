"""Stores with a key: who can write to the directory or server can neither read, change nor swap."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pytest

from asyncz.exceptions import ConfigurationError
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.serializers.envelope import KEY_VARIABLE, is_encrypted
from asyncz.stores.file import FileStore
from asyncz.stores.serializing import SerializingStore
from asyncz.tasks.query import TaskQuery
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task

from .conftest import SetHost, file_of
from .dict_store import DictStore
from .mongo_databases import mongodb_url
from .places import KINDS, SERVER_KINDS, Place, motor_is_warm, place_of

__all__ = ["mongodb_url", "motor_is_warm"]

OLD = "the old key, and it is certainly long enough"
NEW = "the new key, and it is certainly long enough"


NIGHTLY = os.environ.get("ASYNCZ_NIGHTLY") == "1"


class KeyedPlace:
    """A place, and stores on it with one key or another."""

    def __init__(self, kind: str, place: Place) -> None:
        self.has_server = kind in SERVER_KINDS
        self.read, self.write = place.read, place.write
        self._place = place

    async def store(self, *keys: str, **options: Any) -> SerializingStore:
        """A store that has started; without keys it writes in the clear."""
        options["serializer"] = EncryptedSerializer(keys) if keys else JSONSerializer()
        store: SerializingStore = await self._place.started(**options)
        return store


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, directory: Path) -> Iterator[KeyedPlace]:
    with place_of(request, directory) as made:
        yield KeyedPlace(request.param, made)


async def filled(place: KeyedPlace, *keys: str, tasks: int = 2) -> list[str]:
    """Ids of tasks that a store with those keys has been given."""
    store = await place.store(*keys)
    ids = [f"t{number:03}" for number in range(tasks)]
    await store.add_tasks([make_task(task_id, args=("canary",)) for task_id in ids])
    await store.shutdown()
    return ids


async def test_a_wrong_key_loses_none_of_a_thousand_tasks(place: KeyedPlace) -> None:
    number = 100 if place.has_server and not NIGHTLY else 1_000
    ids = await filled(place, OLD, tasks=number)
    before = {task_id: place.read(task_id) for task_id in ids}

    store = await place.store(NEW)
    assert await store.get_due_tasks(after(9)) == []
    assert await store.get_all_tasks() == []
    quarantined = await store.get_quarantined_tasks()
    await store.remove_all_tasks()
    await store.shutdown()

    assert sorted(kept.task_id for kept in quarantined) == ids
    assert {task_id: place.read(task_id) for task_id in ids} == before
    store = await place.store(OLD)
    assert sorted(task.id or "" for task in await store.get_due_tasks(NOON)) == ids
    assert await store.get_quarantined_tasks() == []
    await store.shutdown()


async def test_a_key_that_comes_back_is_enough_for_running_stores(place: KeyedPlace) -> None:
    ids = await filled(place, OLD)
    store = await place.store(NEW)
    assert await store.get_due_tasks(NOON) == []
    await store.shutdown()
    store = await place.store(NEW, OLD)
    assert ids_of(await store.get_due_tasks(NOON)) == ids
    await store.shutdown()


async def test_records_cannot_be_swapped_between_tasks(place: KeyedPlace) -> None:
    ids = await filled(place, NEW)
    one, other = (place.read(task_id) for task_id in ids)
    place.write(ids[0], other)
    place.write(ids[1], one)

    store = await place.store(NEW)
    assert await store.get_all_tasks() == []
    assert len(await store.get_quarantined_tasks()) == 2
    place.write(ids[0], one)
    place.write(ids[1], other)
    assert ids_of(await store.get_all_tasks()) == ids
    await store.shutdown()


async def test_every_flipped_byte_is_quarantined_and_mended(place: KeyedPlace) -> None:
    (task_id, _) = await filled(place, NEW)
    good = place.read(task_id)
    store = await place.store(NEW)
    # Of a server one in each stretch; what is read of its bytes is the same for all.
    step = 8 if place.has_server and not NIGHTLY else 1
    for position in sorted({*range(0, len(good), step), *range(8), len(good) - 1}):
        place.write(task_id, good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        assert len(await store.get_quarantined_tasks()) == 1
        assert await store.lookup_task(task_id) is None
    place.write(task_id, good)
    assert await store.lookup_task(task_id) is not None
    await store.shutdown()


async def test_a_plain_record_is_quarantined_once_there_is_a_key(place: KeyedPlace) -> None:
    ids = await filled(place)
    before = place.read(ids[0])
    store = await place.store(NEW)
    assert await store.get_due_tasks(NOON) == []
    assert all("not encrypted" in kept.error for kept in await store.get_quarantined_tasks())
    await store.shutdown()
    assert place.read(ids[0]) == before


async def test_an_encrypted_record_without_a_key_says_what_to_set(place: KeyedPlace) -> None:
    await filled(place, NEW)
    store = await place.store()
    assert await store.get_due_tasks(NOON) == []
    assert all(KEY_VARIABLE in kept.error for kept in await store.get_quarantined_tasks())
    await store.shutdown()


async def test_keys_are_rotated_while_both_releases_run(place: KeyedPlace) -> None:
    """The key is first given to all behind the old one, then put in front, then left alone."""
    await filled(place, OLD)
    first, second = await place.store(OLD, NEW), await place.store(NEW, OLD)
    await first.add_task(make_task("by first"))
    await second.add_task(make_task("by second"))
    for store in (first, second):
        assert len(await store.get_all_tasks()) == 4
        assert await store.get_quarantined_tasks() == []
    for task in await second.get_all_tasks():
        await second.update_task(task)
    await first.shutdown()
    await second.shutdown()
    last = await place.store(NEW)
    assert len(await last.get_all_tasks()) == 4
    assert await last.get_quarantined_tasks() == []
    await last.shutdown()


async def test_a_moved_function_is_repaired_in_an_encrypted_record(place: KeyedPlace) -> None:
    (task_id, _) = await filled(place, NEW)
    store = await place.store(NEW)
    record = json.loads(store.conditional_decrypt(place.read(task_id)))
    lost = json.dumps({**record, "fn": "asyncz:lost"}).encode()
    place.write(task_id, store.conditional_encrypt(lost))
    assert [kept.task_id for kept in await store.get_quarantined_tasks()] == [task_id]
    task = await store.repair_task(task_id, "asyncz.testing.store_suite_tools:job")
    assert task.args == ("canary",)
    assert is_encrypted(place.read(task_id))
    assert json.loads(store.conditional_decrypt(place.read(task_id))) == record
    await store.shutdown()


async def test_the_environment_gives_a_store_its_keys(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{NEW.replace(',', ';')},{OLD.replace(',', ';')}")
    store = FileStore(directory, max_payload=1_000, allowed_callables=("asyncz.testing.*:*",))
    await store.start(SetHost(), "jobs")
    await store.add_task(make_task("a", args=("canary",)))
    assert is_encrypted(file_of(directory, "a").read_bytes())
    with pytest.raises(ValueError, match="max_payload=1,000"):
        await store.add_task(make_task("b", args=("x" * 1_000,)))
    with pytest.raises(ValueError, match="allowed_callables"):
        await store.add_task(make_task("b", fn=is_encrypted, args=(b"",)))
    await store.shutdown()


def test_an_empty_key_in_the_environment_does_not_mean_no_encryption(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "")
    with pytest.raises(ConfigurationError, match=KEY_VARIABLE):
        FileStore(directory)


@pytest.mark.parametrize("option", [{"allowed_callables": ("a:*",)}, {"max_payload": 5_000}])
def test_options_of_a_serializer_are_given_to_it(directory: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"give {next(iter(option))} to the serializer"):
        FileStore(directory, serializer=JSONSerializer(), **option)


class SearchingStore(DictStore):
    """Has a server that could search, if there were anything to search in."""

    async def _find(self, query: TaskQuery, exclude: Set[str]) -> None:
        raise AssertionError("the server was asked")


async def test_nothing_is_kept_beside_an_encrypted_record() -> None:
    store = SearchingStore(serializer=EncryptedSerializer(NEW))
    await store.start(SetHost(), "jobs")
    await store.add_task(make_task("a", name="canary", args=("canary",)))
    await store.add_task(make_task("b", name="other"))
    await store.update_task(make_task("a", after(1), name="canary again"))
    assert [row.summary for row in store.server.values()] == [None, None]
    assert "canary" not in repr(store.server)
    found = await store.find_tasks(TaskQuery(q="CANARY"))
    assert ([info.id for info in found.infos], found.total) == (["a"], 1)
    await store.shutdown()


async def test_a_store_with_an_encryption_of_its_own_keeps_nothing_beside_it_either() -> None:
    class Reversing(DictStore):
        def conditional_encrypt(self, inp: bytes) -> bytes:
            return inp[::-1]

        def conditional_decrypt(self, inp: bytes) -> bytes:
            return inp[::-1]

    store = Reversing()
    await store.start(SetHost(), "jobs")
    await store.add_task(make_task("a", name="canary"))
    assert store.server["a"].summary is None
    assert store.server["a"].data.startswith(b"}")
    assert ids_of(await store.get_all_tasks()) == ["a"]
    await store.shutdown()


async def test_in_the_clear_there_is_a_summary() -> None:
    store = DictStore()
    await store.start(SetHost(), "jobs")
    await store.add_task(make_task("a", name="Daily"))
    summary = store.server["a"].summary
    assert summary is not None
    assert summary.name == "daily"
    await store.shutdown()
