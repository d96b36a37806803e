"""The file store against those who choose ids, or can write to its directory."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import pytest

from asyncz.exceptions import StoreError
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import LOCK_NAME
from asyncz.testing.store_suite_tools import ids_of, make_task

from .conftest import SetHost, file_of

PIECES = ["..", "/", "\\", "\0", "C:", "CON", ".", "~", "%2e", "\u202e", "🕐", "x" * 300, "\n"]


def everything_below(path: Path) -> set[Path]:
    return set(path.rglob("*"))


async def test_no_id_leads_out_of_the_directory(directory: Path) -> None:
    draw = random.Random(3)
    ids = {"".join(draw.choices(PIECES, k=draw.randrange(1, 8))) for _ in range(700)}
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    outside = everything_below(directory.parent) - everything_below(directory)
    for task_id in ids:
        await store.add_task(make_task(task_id))
    assert len(ids) >= 500
    assert set(ids_of(await store.get_all_tasks())) == ids
    assert everything_below(directory.parent) - everything_below(directory) == outside
    names = {path.name for path in directory.iterdir()} - {LOCK_NAME}
    assert all(len(name) == 57 and name[:52].isalnum() for name in names)
    await store.shutdown()


@pytest.mark.parametrize("slash", ["", "/", "/."])
async def test_a_symbolic_link_in_place_of_the_directory_is_refused(
    directory: Path, slash: str
) -> None:
    (directory.parent / "target").mkdir()
    directory.symlink_to(directory.parent / "target")
    store = FileStore(f"{directory}{slash}")
    with pytest.raises(StoreError, match="symbolic link"):
        await store.start(SetHost(), "files")
    assert list((directory.parent / "target").iterdir()) == []


async def test_a_symbolic_link_in_place_of_the_lock_is_refused(directory: Path) -> None:
    directory.mkdir()
    (directory / LOCK_NAME).symlink_to(directory.parent / "outside")
    store = FileStore(directory)
    with pytest.raises(StoreError, match="symbolic link"):
        await store.start(SetHost(), "files")
    assert not (directory.parent / "outside").exists()


async def test_writing_over_a_symbolic_link_leaves_its_target(directory: Path) -> None:
    outside = directory.parent / "outside"
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    await store.add_task(make_task("a"))
    outside.write_bytes(file_of(directory, "a").read_bytes())
    before = outside.read_bytes()
    file_of(directory, "a").unlink()
    file_of(directory, "a").symlink_to(outside)
    await store.update_task(make_task("a", name="new"))
    assert outside.read_bytes() == before
    assert not file_of(directory, "a").is_symlink()
    await store.shutdown()


class Exploit:
    ran = False

    def __reduce__(self) -> tuple[object, tuple[object, str, bool]]:
        return setattr, (Exploit, "ran", True)


async def test_no_pickle_in_the_directory_is_executed(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    for number in range(50):
        data = pickle.dumps(Exploit(), protocol=number % 6)
        file_of(directory, f"t{number}").write_bytes(data)
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    assert await store.get_all_tasks() == []
    assert len(await store.get_quarantined_tasks()) == 50
    await store.shutdown()
    assert not Exploit.ran


async def test_secrets_are_not_in_reprs_and_reasons(directory: Path) -> None:
    store = FileStore(directory)
    await store.start(SetHost(), "files")
    await store.add_task(make_task("a", args=("hunter2",), kwargs={"password": "hunter2"}))
    (task,) = await store.get_all_tasks()
    file = file_of(directory, "a")
    for good, bad in (('"args":["hunter2"]', '"args":"hunter2"'), ('"v":1', '"v":"1'), ("{", "")):
        file.write_text(file.read_text().replace(good, bad, 1))
        (kept,) = await store.get_quarantined_tasks()
        assert "hunter2" not in kept.error
    assert "hunter2" not in f"{store!r} {store} {task!r} {task}"
    await store.shutdown()


@pytest.mark.skipif(os.name != "posix", reason="about POSIX's rights")
async def test_a_wide_umask_does_not_widen_the_files(directory: Path) -> None:
    before = os.umask(0)
    try:
        store = FileStore(directory)
        await store.start(SetHost(), "files")
        await store.add_task(make_task("a"))
        await store.shutdown()
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
