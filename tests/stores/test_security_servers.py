"""Stores with a server: what lies on it when records are encrypted, and the secrets of its URL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing import VirtualClock

CANARY = "canary-1618033988"
KEY = "a key for the tests, long enough for that"


async def job(*args: Any, **kwargs: Any) -> None: ...


@pytest.mark.parametrize("encrypted", [False, True])
async def test_nothing_but_ids_and_times_lies_in_a_database_in_the_clear(
    encrypted: bool, tmp_path: Path, clock: VirtualClock
) -> None:
    serializer = EncryptedSerializer(KEY) if encrypted else JSONSerializer()
    store = SQLAlchemyStore(database=f"sqlite:///{tmp_path / 'jobs.db'}", serializer=serializer)
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", stores={"default": store}
    ) as scheduler:
        for number in range(3):
            await scheduler.aadd_task(
                job, "interval", hours=1, id=f"visible{number}", name=f"{CANARY} {number}",
                args=[CANARY], kwargs={CANARY: CANARY},
            )  # fmt: skip
        page = await scheduler.aget_task_page(q=f"{CANARY} 1", sort_by="name")
        await clock.advance(hours=1)
    lying = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert ([task.id for task in page.tasks], page.total) == (["visible1"], 1)
    assert b"visible1" in lying
    for word in (CANARY, ":job", "interval"):
        assert (word.encode() in lying.lower()) is not encrypted


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{CANARY}@127.0.0.1:1/jobs",
        f"postgresql+psycopg://me:{CANARY}@127.0.0.1:1/jobs",
        f"mysql://me:{CANARY}@127.0.0.1:1/jobs",
        f"no-such-database://me:{CANARY}@127.0.0.1:1/jobs",
    ],
)
async def test_the_password_of_a_url_is_in_no_log_error_or_repr(
    url: str, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[Any] = []
    error: BaseException | None = None
    try:
        store = SQLAlchemyStore(database=url)
        scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores={"default": store})
        shown += [store, scheduler]
        await scheduler.start()
    except Exception as exc:
        error = exc
    assert error is not None
    while error is not None:
        shown += [error]
        error = error.__cause__ or error.__context__
    for thing in shown:
        assert CANARY not in f"{thing!r} {thing!s}"
    assert CANARY not in caplog.text
