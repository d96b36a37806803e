"""No secret in a log, a repr or an event; no record can forge a line of a log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz.exceptions import AsynczException
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.serializers.envelope import KEY_VARIABLE
from asyncz.testing import VirtualClock

from .conftest import file_of
from .dict_store import DictStore

CANARY = "canary-3141592653"
KEY = f"{CANARY} in a key that is long enough"
OTHER_KEY = f"another {CANARY} in a key that is long enough"


class Account(BaseModel):
    """Says its secret when it is not valid."""

    password: str

    @field_validator("password")
    @classmethod
    def is_long_enough(cls, value: str) -> str:
        if len(value) < 5:
            raise ValueError(f"{CANARY}: {value} is too short")
        return value


async def job(*args: Any, **kwargs: Any) -> str:
    return CANARY


async def login(account: Account) -> None: ...


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged, at DEBUG, as a file would have it."""
    caplog.set_level(logging.DEBUG)
    return caplog


def spoil(directory: Path, task_id: str, store: FileStore) -> None:
    """Make the record of a task unreadable in ways that tempt to quote from it."""
    file = file_of(directory, task_id)
    record = json.loads(store.conditional_decrypt(file.read_bytes()))
    spoilt = {
        "bad tag": {**record, "args": [{"$": "datetime", "v": CANARY}]},
        "bad option": {**record, "max_instances": CANARY},
        "bad time": {**record, "next_run_time": CANARY},
        "bad version": {**record, "v": 2, "args": [CANARY]},
        "invalid model": {
            **record,
            "fn": f"{__name__}:login",
            "args": [{"$": "typed", "v": {"password": CANARY[:4]}}],
            "kwargs": {},
        },
        "wrong arguments": {**record, "fn": f"{__name__}:login"},
        "not json": CANARY,
    }[task_id]
    text = spoilt if isinstance(spoilt, str) else json.dumps(spoilt)
    file.write_bytes(store.conditional_encrypt(text.encode()))


SPOILT = [
    "bad tag",
    "bad option",
    "bad time",
    "bad version",
    "invalid model",
    "wrong arguments",
    "not json",
]


@pytest.mark.parametrize("encrypted", [False, True])
async def test_no_secret_is_told_of_any_record(
    encrypted: bool, directory: Path, clock: VirtualClock, log: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_debug(True)
    serializer = EncryptedSerializer([KEY, OTHER_KEY]) if encrypted else JSONSerializer()
    store = FileStore(directory, serializer=serializer)
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores={"default": store})
    seen: list[object] = []
    scheduler.add_listener(seen.append)
    async with scheduler:
        for task_id in [*SPOILT, "good"]:
            await scheduler.aadd_task(
                job, "interval", hours=1, id=task_id, args=[CANARY], kwargs={"password": CANARY}
            )
        await clock.advance(hours=1)
        for task_id in SPOILT:
            spoil(directory, task_id, store)
        await clock.advance(hours=2)
        infos = await scheduler.aget_task_infos()
        shown: list[object] = [
            scheduler,
            store,
            serializer,
            infos,
            seen,
            await scheduler.aget_tasks(),
        ]
        shown += [await scheduler.aget_scheduler_info(), store.serializer]
        for task_id in SPOILT:
            with pytest.raises(AsynczException) as caught:
                await scheduler.arepair_task(task_id, login)
            shown += [caught.value, str(caught.value)]
            await scheduler.adelete_task(task_id)

    quarantined = {info.id for info in infos if info.error}
    assert quarantined == set(SPOILT)
    assert "'bad tag'" in log.text
    for thing in [*shown, *seen, *infos, *(info.error for info in infos)]:
        assert CANARY not in f"{thing!r} {thing!s}"
    assert CANARY not in log.text
    assert "canary in a" not in log.text


async def test_no_key_is_told_when_it_is_wrong_or_missing(
    directory: Path,
    clock: VirtualClock,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[Any] = []
    for keys in (KEY, OTHER_KEY, None, f"{OTHER_KEY},{KEY}"):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        if keys is not None:
            monkeypatch.setenv(KEY_VARIABLE, keys)
        store = FileStore(directory)
        scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores={"default": store})
        scheduler.add_listener(events.append)
        scheduler.add_task(job, "interval", hours=1, id="a", args=[CANARY])
        async with scheduler:
            infos = await scheduler.aget_task_infos()
            assert CANARY not in f"{infos!r} {[info.error for info in infos]} {store!r}"
    assert {event.code_name for event in events} >= {"TASK_QUARANTINED"}
    assert all(CANARY not in f"{event!r} {event!s} {event.detail}" for event in events)
    assert "ASYNCZ_STORE_ENCRYPTION_KEY" in log.text
    assert CANARY not in log.text


CONTROLS = [*map(chr, [*range(32), 127, 133, 155, 0x2028, 0x2029, 0x202E, 0x2066, 0xFEFF])]
FORGERY = "\nERROR forged:root:all is well\r\n\x1b[2J\x1b]0;owned\x07"
INJECTIONS = [*CONTROLS, FORGERY, "\r\n" * 5, "\x1b[31m", "a\tb", "\x9b1A", "\x00\x00", "\u2028x"]


class Plain(logging.Handler):
    """Writes lines as a file or a terminal would get them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_info = record.exc_text = None  # a traceback has lines of its own
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, root = Plain(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(before)


async def test_nothing_in_a_task_can_forge_a_line_of_the_log(
    directory: Path, clock: VirtualClock, lines: list[str]
) -> None:
    assert len(INJECTIONS) >= 45
    stores = {"default": FileStore(directory), "rows": DictStore()}
    details: list[str] = []
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores=stores)
    scheduler.add_listener(lambda event: details.append(event.detail or ""))
    async with scheduler:
        for number, text in enumerate(INJECTIONS):
            task_id = f"{number}{text}"
            options: dict[str, Any] = {"id": task_id, "name": f"job{text}", "executor": "default"}
            for alias in stores:
                await scheduler.aadd_task(job, "interval", hours=1, store=alias, **options)
            await scheduler.arun_task(task_id, "default")
            file = file_of(directory, task_id)
            record = json.loads(file.read_bytes())
            file.write_text(json.dumps({**record, "trigger": {"type": f"lunar{text}"}}))
            row = stores["rows"].server[task_id]  # type: ignore[attr-defined]
            lost = json.dumps({**record, "fn": f"lost{text}:x"}).encode()
            stores["rows"].server[task_id] = row._replace(data=lost)  # type: ignore[attr-defined]
        await clock.advance(hours=1)
        infos = await scheduler.aget_task_infos(schedule_state="quarantined")
        await scheduler.adelete_task(f"0{INJECTIONS[0]}", "default")

    assert len(infos) == 2 * len(INJECTIONS)
    assert sum("cannot be read" in line for line in lines) >= 2 * len(INJECTIONS)
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if line.startswith("ERROR forged")] == []
    assert all(info.error and info.error.isprintable() for info in infos)
    assert all(detail.isprintable() for detail in details)
