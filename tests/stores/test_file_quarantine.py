"""Records of a file store that cannot be read: kept, listed, and back by themselves."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncz.exceptions import ConflictIdError
from asyncz.serializers import JSONSerializer, Record
from asyncz.stores.file import FileStore
from asyncz.tasks import Task
from asyncz.testing.store_suite_tools import NOON, after, ids_of, make_task

from .conftest import SetHost, file_of, make_old

MOVED = "jobs_moved_here"


@pytest.fixture
async def store(directory: Path, host: SetHost) -> AsyncIterator[FileStore]:
    """With the tasks `a` and `b`."""
    store = FileStore(directory)
    await store.start(host, "files")
    await store.add_task(make_task("a"))
    await store.add_task(make_task("b"))
    yield store
    await store.shutdown()


def change(directory: Path, task_id: str, **values: Any) -> None:
    file = file_of(directory, task_id)
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


async def reasons(store: FileStore) -> dict[str, str]:
    return dict(await store.get_quarantined_tasks())


REASONS: list[tuple[dict[str, Any], str]] = [
    ({"v": 3}, "version 3"),
    ({"fn": "no_such_module:run"}, "no_such_module"),
    ({"fn": "asyncz:no_such_name"}, "no_such_name"),
    ({"fn": "os:system"}, "standard library"),
    ({"trigger": {"type": "lunar"}}, "lunar"),
    ({"kwargs": {"x": {"$": "person"}}}, "person"),
]


@pytest.mark.parametrize(("values", "reason"), REASONS, ids=lambda value: str(value)[:30])
async def test_the_reason_says_what_is_wrong(
    store: FileStore, directory: Path, values: dict[str, Any], reason: str
) -> None:
    change(directory, "a", **values)
    assert reason in (await reasons(store))["a"]


async def test_an_unreadable_file_is_seen_within_a_second_without_being_asked_for(
    store: FileStore, directory: Path, host: SetHost
) -> None:
    await store.get_due_tasks(NOON)
    file_of(directory, "a").write_text("spoilt")
    host.clock.seconds += 1
    assert ids_of(await store.get_due_tasks(NOON)) == ["b"]


async def test_a_file_nobody_knew_is_listed_by_its_name(store: FileStore, directory: Path) -> None:
    (directory / "stray.task").write_text("not json")
    assert list(await reasons(store)) == ["file:stray.task"]


async def test_a_record_under_another_name_is_not_run(store: FileStore, directory: Path) -> None:
    copy = file_of(directory, "elsewhere")
    copy.write_bytes(file_of(directory, "a").read_bytes())
    found = await reasons(store)
    assert list(found) == [f"file:{copy.name}"]
    assert "not the file's own" in found[f"file:{copy.name}"]
    assert ids_of(await store.get_due_tasks(NOON)) == ["a", "b"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "fifo"])
async def test_what_is_no_plain_file_is_quarantined_and_not_followed(
    store: FileStore, directory: Path, kind: str
) -> None:
    file, outside = file_of(directory, "a"), directory.parent / "outside"
    outside.write_bytes(file.read_bytes())
    file.unlink()
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(outside if kind == "link" else directory / "nowhere")
    assert list(await reasons(store)) == ["a"]
    with pytest.raises(ConflictIdError):
        await store.add_task(make_task("a"))
    await store.update_task(make_task("a", after(1)))
    assert ids_of(await store.get_all_tasks()) == ["b", "a"]
    assert os.path.lexists(directory / f"{file.name}.unreadable-1")
    assert json.loads(outside.read_text())["next_run_time"] != json.loads(file.read_text())


async def test_a_file_without_permission_counts_again_with_it(
    store: FileStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, real_open = file_of(directory, "a").name, os.open

    def refusing(path: str, *args: Any, **kwargs: Any) -> int:
        if path == name:
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **kwargs)

    # A change of rights leaves the modification time as it is; so must this.
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        file_of(directory, "a").touch()
        assert "Permission denied" in (await reasons(store))["a"]
        assert ids_of(await store.get_all_tasks()) == ["b"]
    assert ids_of(await store.get_all_tasks()) == ["a", "b"]


async def test_declaring_it_again_sets_each_old_record_aside(
    store: FileStore, directory: Path
) -> None:
    file = file_of(directory, "a")
    for text in ("one", "two", "three"):
        file.write_text(text)
        await store.get_quarantined_tasks()
        await store.update_task(make_task("a"))
    aside = [directory / f"{file.name}.unreadable-{number}" for number in (1, 2, 3)]
    assert [path.read_text() for path in aside] == ["one", "two", "three"]
    assert await reasons(store) == {}
    assert ids_of(await store.get_all_tasks()) == ["a", "b"], "in its old place"


@pytest.mark.parametrize("by_name", [False, True])
async def test_deleting_it_sets_it_aside(
    store: FileStore, directory: Path, by_name: bool, caplog: pytest.LogCaptureFixture
) -> None:
    file = directory / "stray.task" if by_name else file_of(directory, "a")
    file.write_text("spoilt")
    await store.delete_task("file:stray.task" if by_name else "a")
    assert await reasons(store) == {}
    assert not file.exists()
    assert (directory / f"{file.name}.unreadable-1").read_text() == "spoilt"
    assert f"{file.name}.unreadable-1" in caplog.text


async def test_removing_all_tasks_leaves_it(store: FileStore, directory: Path) -> None:
    file_of(directory, "a").write_text("spoilt")
    await store.remove_all_tasks()
    assert file_of(directory, "a").read_text() == "spoilt"
    assert not file_of(directory, "b").exists()


async def test_a_function_that_is_deployed_later_is_found_in_the_end(
    store: FileStore,
    directory: Path,
    host: SetHost,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    change(directory, "a", fn=f"{MOVED}:run")
    assert MOVED in (await reasons(store))["a"]
    (tmp_path / f"{MOVED}.py").write_text("def run(): pass")
    try:
        for _ in range(8):
            host.clock.seconds += 60
            if ids_of(await store.get_due_tasks(NOON)) == ["a", "b"]:
                break
        assert ids_of(await store.get_due_tasks(NOON)) == ["a", "b"]
        assert await reasons(store) == {}
    finally:
        sys.modules.pop(MOVED, None)


async def test_a_missing_function_is_not_looked_for_at_each_pass(
    store: FileStore, directory: Path, host: SetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    class Spy:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == MOVED:
                tried.append(host.clock.seconds)

    monkeypatch.setattr(sys, "meta_path", [Spy, *sys.meta_path])
    for task_id in "ab":
        change(directory, task_id, fn=f"{MOVED}:run")
    host.clock.seconds += 1
    for _ in range(600):
        host.clock.seconds += 0.5
        assert await store.get_due_tasks(NOON) == []
    assert 5 <= len(tried) <= 20


async def test_an_unknown_trigger_is_tried_more_and_more_seldom(
    store: FileStore, directory: Path, host: SetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    from_record = JSONSerializer.from_record

    def spying(self: JSONSerializer, record: Record, *more: Any) -> Task:
        tried.append(record["id"])
        return from_record(self, record, *more)

    change(directory, "a", trigger={"type": "lunar"})
    host.clock.seconds += 1
    await store.get_due_tasks(after(-1))
    make_old(directory)
    host.clock.seconds += 1
    await store.get_due_tasks(after(-1))
    monkeypatch.setattr(JSONSerializer, "from_record", spying)
    for _ in range(600):
        host.clock.seconds += 0.5
        await store.get_due_tasks(after(-1))
    assert 8 <= tried.count("a") <= 20


async def test_poison_deletes_nothing_and_harms_no_other_task(
    store: FileStore, directory: Path
) -> None:
    await store.update_task(make_task("a", args=(1, b"x", NOON, {"k": {1, 2}})))
    file = file_of(directory, "a")
    good = file.read_bytes()
    draw = random.Random(5)
    for _ in range(300):
        spoilt = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
        poison = bytes(spoilt)[: draw.choice([len(spoilt), draw.randrange(len(spoilt))])]
        file.write_bytes(poison)
        listed = ids_of(await store.get_all_tasks())
        assert "b" in listed
        assert set(listed) | set(await reasons(store)) == {"a", "b"} or len(listed) == 1
        assert file.read_bytes() == poison
    file.write_bytes(good)
    assert ids_of(await store.get_all_tasks()) == ["a", "b"]
