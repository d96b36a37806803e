"""What anybody may have put into a store: nothing of it is executed, imported, lost or deleted."""

from __future__ import annotations

import json
import pickle
import random
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncz.serializers import EncryptedSerializer, JSONSerializer, Serializer
from asyncz.stores.file import FileStore
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task

from .conftest import SetHost, file_of, make_old
from .dict_store import DictStore
from .mongo_databases import mongodb_url
from .places import KINDS as KINDS_OF_PLACES
from .places import Place, motor_is_warm, place_of

__all__ = ["mongodb_url", "motor_is_warm"]

ALLOWED = "asyncz.testing.store_suite_tools:*"
KEY = "a key for the tests, long enough for that"
KINDS: dict[str, Serializer] = {
    "plain": JSONSerializer((ALLOWED,)),
    "encrypted": EncryptedSerializer(KEY, JSONSerializer((ALLOWED,))),
}

STRUCTURES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "os:system",
    [],
    {},
    [[]],
    {"$": "typed"},
]
MODULES = [*sorted(sys.stdlib_module_names), "asyncz.cli", "pip", "nowhere", "a.b"]
NAMES = ["system", "Popen", "loads", "__init__", "__import__", "a.__globals__"]
TAGS = ["typed", "datetime", "object", "os.system", "builtins.eval", "__import__", "dict", "\0", ""]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[DictStore]:
    """With the tasks `a` and `b`, of which `b` is good and stays so."""
    store = DictStore(serializer=KINDS[request.param])
    await store.start(SetHost(), "jobs")
    await store.add_task(make_task("a", args=(1, b"x", NOON, {"k": {1, 2}}), kwargs={"x": [1.5]}))
    await store.add_task(make_task("b", after(1)))
    yield store
    await store.shutdown()


def put(store: DictStore, data: bytes) -> None:
    store.server["a"] = store.server["a"]._replace(data=data)


def poisons(good: bytes, number: int) -> Iterator[bytes]:
    """Random bytes, and the good ones with some flipped, moved, doubled, left out or cut off."""
    draw = random.Random(41)
    for _ in range(number):
        spoilt = bytearray(good)
        kind = draw.randrange(5)
        if kind == 0:
            yield draw.randbytes(draw.randrange(600))
            continue
        for _ in range(draw.randrange(1, 5)):
            place = draw.randrange(len(spoilt))
            if kind == 1:
                spoilt[place] ^= 1 << draw.randrange(8)
            elif kind == 2:
                spoilt[place] = draw.randrange(256)
            elif kind == 3:
                del spoilt[place : place + draw.randrange(1, 9)]
            else:
                spoilt[place:place] = spoilt[draw.randrange(len(spoilt)) :][:9]
        yield bytes(spoilt[: draw.choice([len(spoilt), draw.randrange(len(spoilt) + 1)])])


async def test_ten_thousand_poisoned_records_crash_and_delete_nothing(store: DictStore) -> None:
    good = store.server["a"].data
    for poison in poisons(good, 10_000):
        put(store, poison)
        due = ids_of(await store.get_due_tasks(after(9)))
        assert due in (["b"], ["a", "b"])
        assert store.server["a"].data == poison
    put(store, good)
    assert ids_of(await store.get_due_tasks(after(9))) == ["a", "b"]
    assert (await store.count_tasks()).quarantined == 0


async def test_a_poisoned_encrypted_record_is_never_a_task(store: DictStore) -> None:
    good = store.server["a"].data
    for poison in poisons(good, 2_000):
        put(store, poison)
        task = await store.lookup_task("a")
        assert task is None or poison == good or not store.keeps_secret


async def test_poisoned_files_delete_nothing_and_harm_no_other_task(directory: Path) -> None:
    store = FileStore(directory)
    host = SetHost()
    await store.start(host, "files")
    ids = [f"t{number}" for number in range(200)]
    await store.add_tasks([make_task(task_id, args=(NOON, {1})) for task_id in [*ids, "good"]])
    written = {}
    for task_id, poison in zip(
        ids, poisons(file_of(directory, "t0").read_bytes(), 200), strict=True
    ):
        written[task_id] = poison
        file_of(directory, task_id).write_bytes(poison)
    make_old(directory)
    host.clock.seconds += 1
    assert "good" in ids_of(await store.get_due_tasks(NOON))
    readable = set(ids_of(await store.get_all_tasks()))
    assert len(readable) + len(await store.get_quarantined_tasks()) == 201
    await store.shutdown()
    assert {task_id: file_of(directory, task_id).read_bytes() for task_id in ids} == written


class Exploit:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, str, bool]]:
        return setattr, (Exploit, "ran", True)


def malicious(number: int) -> bytes:
    """A pickle that does something when it is read, alone or in a record's clothes."""
    data = pickle.dumps(Exploit(), protocol=number % 6)
    record: dict[str, Any] = {"v": 1, "id": "a", "args": [], "kwargs": {}, "next_run_time": None}
    dressed = {
        **record,
        "fn": "pickle:loads",
        "args": [{"$": "bytes", "v": b64encode(data).decode()}],
    }
    wrappings = [data, json.dumps(dressed).encode(), b'{"v":1}' + data, data + b"{}"]
    return wrappings[number % len(wrappings)]


async def test_no_pickle_is_executed(store: DictStore) -> None:
    for number in range(50):
        for data in (malicious(number), store.conditional_encrypt(malicious(number))):
            put(store, data)
            assert await store.lookup_task("a") is None
            assert await store.get_all_tasks() != []
    assert not Exploit.ran


@pytest.fixture(params=KINDS_OF_PLACES)
def place(request: pytest.FixtureRequest, directory: Path) -> Iterator[Place]:
    with place_of(request, directory) as made:
        yield made


async def test_fifty_pickles_in_any_store_are_kept_and_not_executed(place: Place) -> None:
    store = await place.started(serializer=KINDS["plain"])
    ids = [f"t{number:02}" for number in range(50)]
    await store.add_tasks([make_task(task_id) for task_id in [*ids, "good"]])
    await store.shutdown()
    pickles = {task_id: malicious(number) for number, task_id in enumerate(ids)}
    for task_id, data in pickles.items():
        place.write(task_id, data)

    store = await place.started(serializer=KINDS["plain"])
    assert ids_of(await store.get_due_tasks(after(9))) == ["good"]
    assert ids_of(await store.get_all_tasks()) == ["good"]
    quarantined = await store.get_quarantined_tasks()
    await store.remove_all_tasks()
    await store.shutdown()

    # What a file with nothing readable in it is of, its name does not say.
    assert len({kept.task_id for kept in quarantined}) == len(ids)
    assert {task_id: place.read(task_id) for task_id in ids} == pickles
    assert not Exploit.ran


class Hook:
    """Knows which modules somebody has tried to import."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.asked.add(name)


def forged(draw: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    """A record whose references, tags and types are somebody's choice."""
    module, name = draw.choice(MODULES), draw.choice(NAMES)
    name = f"{module}{draw.choice([':', '.', ''])}{name}"
    tag = draw.choice([*TAGS, name, module])
    value: Any = {"$": tag, "v": draw.choice([name, [name], {"__module__": module}, *STRUCTURES])}
    changes: list[dict[str, Any]] = [
        {"fn": name},
        {"args": [value]},
        {"kwargs": {"x": [value], "y": {"py/object": name}}},
        {"trigger": {"type": name}},
        {"trigger": {"type": module, "__class__": name}},
        {"trigger": {"type": "date", "timezone": name}},
        {"executor": name, "name": name, "class": name, "serializer": name},
        {draw.choice(list(record)): draw.choice([*STRUCTURES, value])},
    ]
    return {**record, **draw.choice(changes)}


async def test_ten_thousand_forged_references_import_nothing(
    store: DictStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads(store.conditional_decrypt(store.server["a"].data))
    hook, draw = Hook(), random.Random(43)
    loaded = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [hook, *sys.meta_path])
    for _ in range(10_000):
        put(store, store.conditional_encrypt(json.dumps(forged(draw, record)).encode()))
        await store.lookup_task("a")
    assert {name for name in hook.asked if not name.startswith("tzdata")} == set()
    assert {name for name in set(sys.modules) - loaded if not name.startswith("tzdata")} == set()
    assert [row.key for row in store.server.values()] == ["a", "b"]
