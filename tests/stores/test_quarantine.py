"""Records that cannot be read, as an app sees them: told once, listed, repaired."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncz import FileStore, NativeAsyncIOScheduler, TaskEvent
from asyncz.events.constants import TASK_EXECUTED, TASK_MODIFIED, TASK_QUARANTINED, TASK_RECOVERED
from asyncz.exceptions import (
    BlockingCallError,
    SchedulerNotRunningError,
    TaskLookupError,
    TaskOptionError,
    TransientTaskError,
    UnreadableRecordError,
)
from asyncz.serializers import EncryptedSerializer, JSONSerializer, Serializer
from asyncz.stores.file_index import name_of
from asyncz.testing import VirtualClock

from .dict_store import DictStore

HERE = __name__
KEY = "a key for the tests, long enough for that"

ran: list[str] = []


async def moved_job(word: str) -> None:
    ran.append(word)


async def job(*args: Any) -> None: ...


class Files:
    """Tasks in a directory, and how to spoil one behind the store's back."""

    def __init__(self, directory: Path, serializer: Serializer) -> None:
        self.directory = directory
        self.store = FileStore(directory, serializer=serializer)

    def change(self, task_id: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        file = self.directory / name_of(task_id, ".task")
        record = json.loads(self.store.conditional_decrypt(file.read_bytes()))
        file.write_bytes(self.store.conditional_encrypt(json.dumps(edit(record)).encode()))


class Rows:
    """The same in a store whose server is a dictionary."""

    def __init__(self, directory: Path, serializer: Serializer) -> None:
        self.store = DictStore(serializer=serializer)

    def change(self, task_id: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        row = self.store.server[task_id]
        record = json.loads(self.store.conditional_decrypt(row.data))
        data = self.store.conditional_encrypt(json.dumps(edit(record)).encode())
        self.store.server[task_id] = row._replace(data=data)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture(params=[Files, Rows])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Files | Rows:
    found: Files | Rows = request.param(tmp_path / "tasks", EncryptedSerializer(KEY))
    return found


@pytest.fixture
async def app(place: Files | Rows, clock: VirtualClock) -> AsyncIterator[NativeAsyncIOScheduler]:
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": "memory", "jobs": place.store}
    ) as scheduler:
        yield scheduler


def listen(scheduler: NativeAsyncIOScheduler, *codes: int) -> list[TaskEvent]:
    seen: list[Any] = []
    scheduler.add_listener(seen.append, sum(codes))
    return seen


def lost(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "fn": f"{HERE}:lost_job"}


async def test_an_app_is_told_lists_and_repairs_a_task_whose_function_moved(
    app: NativeAsyncIOScheduler, place: Files | Rows, clock: VirtualClock
) -> None:
    seen = listen(app, TASK_QUARANTINED, TASK_RECOVERED, TASK_MODIFIED, TASK_EXECUTED)
    await app.aadd_task(
        job,
        "interval",
        hours=1,
        args=["hello"],
        id="hourly",
        store="jobs",
        mistrigger_grace_time=None,
    )
    place.change("hourly", lost)

    await clock.advance(minutes=90)
    (info,) = await app.aget_task_infos(schedule_state="quarantined")
    assert (info.id, info.store_alias) == ("hourly", "jobs")
    assert "lost_job" in (info.error or "")
    assert ran == []
    repaired = await app.arepair_task("hourly", moved_job)
    await clock.advance(minutes=30)

    assert [(event.code_name, event.task_id, event.store) for event in seen] == [
        ("TASK_QUARANTINED", "hourly", "jobs"),
        ("TASK_RECOVERED", "hourly", "jobs"),
        ("TASK_MODIFIED", "hourly", "jobs"),
        ("TASK_EXECUTED", "hourly", "jobs"),
        ("TASK_EXECUTED", "hourly", "jobs"),
    ]
    assert "lost_job" in (seen[0].detail or "")
    assert ran == ["hello", "hello"], "what came due meanwhile, and what came due after"
    assert repaired.name == "job", "only the reference is changed"
    assert await app.aget_task_infos(schedule_state="quarantined") == []


async def test_it_is_told_once_however_often_it_is_come_across(
    app: NativeAsyncIOScheduler,
    place: Files | Rows,
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "asyncz.schedulers")
    seen = listen(app, TASK_QUARANTINED, TASK_RECOVERED)
    await app.aadd_task(job, "interval", hours=1, id="hourly", store="jobs")
    place.change("hourly", lost)
    for _ in range(5):
        await clock.advance(hours=1)
        await app.aget_task_infos()
    place.change("hourly", lambda record: {**record, "fn": f"{HERE}:job"})
    for _ in range(3):
        await clock.advance(hours=1)
        await app.aget_task_infos()

    assert [event.code_name for event in seen] == ["TASK_QUARANTINED", "TASK_RECOVERED"]
    about = [record for record in caplog.records if "'hourly'" in record.getMessage()]
    assert [record.levelname for record in about if "mistrigger" not in record.getMessage()] == [
        "ERROR",
        "INFO",
    ]
    assert "'jobs'" in about[0].getMessage()
    assert "lost_job" in about[0].getMessage()


async def test_a_task_held_back_by_its_executor_is_told_both_ways(clock: VirtualClock) -> None:
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as scheduler:
        seen = listen(scheduler, TASK_QUARANTINED, TASK_RECOVERED)
        scheduler.add_executor("debug", "other")
        scheduler.add_task(job, "interval", hours=1, id="hourly", executor="other")
        scheduler.remove_executor("other")
        await clock.advance(hours=1)
        scheduler.add_executor("debug", "other")
        await clock.advance(hours=1)
    assert [event.code_name for event in seen] == ["TASK_QUARANTINED", "TASK_RECOVERED"]


async def test_declaring_it_again_takes_it_out_of_the_quarantine(
    app: NativeAsyncIOScheduler, place: Files | Rows, clock: VirtualClock
) -> None:
    seen = listen(app, TASK_QUARANTINED, TASK_RECOVERED)
    options: dict[str, Any] = {"hours": 1, "id": "hourly", "store": "jobs"}
    await app.aadd_task(job, "interval", **options)
    place.change("hourly", lost)
    await app.aget_task_infos(schedule_state="quarantined")
    await app.aadd_task(job, "interval", replace_existing=True, **options)
    assert [event.code_name for event in seen] == ["TASK_QUARANTINED", "TASK_RECOVERED"]


async def test_what_cannot_be_repaired_says_why_and_stays_as_it_is(
    app: NativeAsyncIOScheduler, place: Files | Rows
) -> None:
    await app.aadd_task(job, "interval", hours=1, id="a", store="jobs")
    with pytest.raises(TaskOptionError, match=r"'a'.*update_task"):
        await app.arepair_task("a", moved_job)
    with pytest.raises(TaskLookupError, match="'nobody'"):
        await app.arepair_task("nobody", moved_job)
    with pytest.raises(TaskLookupError, match="'default'"):
        await app.arepair_task("a", moved_job, store="default")
    place.change("a", lost)
    await app.aget_task_infos(schedule_state="quarantined")
    with pytest.raises(TaskOptionError, match="nowhere"):
        await app.arepair_task("a", "nowhere:job")
    with pytest.raises(TransientTaskError, match="top level"):
        await app.arepair_task("a", lambda: None)
    with pytest.raises(UnreadableRecordError, match=r"'a'.*left as it is.*standard library"):
        await app.arepair_task("a", print)
    with pytest.raises(UnreadableRecordError, match=r"'a'.*left as it is.*do not fit"):
        await app.arepair_task("a", moved_job)  # wants an argument, the record has none
    (info,) = await app.aget_task_infos(schedule_state="quarantined")
    assert "lost_job" in (info.error or "")


async def test_before_the_start_there_are_no_records() -> None:
    with pytest.raises(SchedulerNotRunningError):
        NativeAsyncIOScheduler(timezone="UTC").repair_task("a", job)


async def test_the_plain_form_names_the_coroutine_where_it_would_block(
    app: NativeAsyncIOScheduler,
) -> None:
    with pytest.raises(BlockingCallError, match=r"await scheduler\.arepair_task\("):
        app.repair_task("a", job, store="jobs")


async def test_with_a_wrong_key_every_task_is_told_of(tmp_path: Path, clock: VirtualClock) -> None:
    first = FileStore(tmp_path, serializer=JSONSerializer())
    options: dict[str, Any] = {"clock": clock, "timezone": "UTC"}
    async with NativeAsyncIOScheduler(stores={"default": first}, **options) as scheduler:
        for number in range(300):
            await scheduler.aadd_task(job, "interval", hours=1, id=f"t{number}")

    second = FileStore(tmp_path, serializer=EncryptedSerializer(KEY))
    again = NativeAsyncIOScheduler(stores={"default": second}, **options)
    seen = listen(again, TASK_QUARANTINED)
    async with again:
        infos = await again.aget_task_infos(schedule_state="quarantined")
    assert len(infos) == 300
    assert len(seen) == 300
