"""Adding several tasks to a file store at once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asyncz.exceptions import StoreError
from asyncz.stores.file import FileStore
from asyncz.stores.file_directory import RecordDirectory
from asyncz.testing.store_suite_tools import make_task

from .conftest import SetHost


async def test_tasks_added_at_once_that_find_no_room_leave_nothing(
    directory: Path, host: SetHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(directory)
    await store.start(host, "tasks")
    await store.add_task(make_task("first"))
    replace, left = RecordDirectory._replace, 300

    def full_after_some(self: RecordDirectory, temporary: str, name: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(self, temporary, name)

    monkeypatch.setattr(RecordDirectory, "_replace", full_after_some)
    with pytest.raises(StoreError, match="No space left"):
        await store.add_tasks([make_task(f"t{number}") for number in range(400)])
    assert [task.id for task in await store.get_all_tasks()] == ["first"]
    assert [file for file in os.listdir(directory) if file.endswith(".tmp")] == []
    await store.shutdown()
