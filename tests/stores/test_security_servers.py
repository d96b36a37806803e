"""Stores with a server: what lies on it when records are encrypted, and the secrets of its URL."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.exceptions import ConflictIdError, StoreError
from asyncz.serializers import EncryptedSerializer, JSONSerializer
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.testing import VirtualClock

from .mongo_databases import mongodb_url
from .places import (
    SERVER_KINDS,
    InMongoDB,
    InRedis,
    InSQLite,
    Place,
    motor_is_warm,
    place_of,
)

__all__ = ["mongodb_url", "motor_is_warm"]

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
        f"mysql+aiomysql://me:{CANARY}@127.0.0.1:1/jobs",
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


@pytest.fixture(params=SERVER_KINDS)
def place(request: pytest.FixtureRequest, directory: Path) -> Iterator[Place]:
    with place_of(request, directory) as made:
        yield made


def break_it(place: Place) -> None:
    """Have the server answer whatever is written with an error."""
    if isinstance(place, InSQLite):
        place.connection.execute("ALTER TABLE asyncz_tasks RENAME COLUMN record TO gone")
    elif isinstance(place, InRedis):
        place.client.delete(place.options["tasks_key"])
        place.client.set(place.options["tasks_key"], "no hash")
    elif isinstance(place, InMongoDB):
        refuse = {"$jsonSchema": {"required": ["nothing has this"]}}
        place.there.database.command("collMod", "tasks", validator=refuse)


async def test_arguments_are_in_no_log_or_error_of_a_server_that_refuses_them(
    place: Place, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret: dict[str, Any] = {"args": [CANARY], "kwargs": {"password": CANARY}}
    store = place.store()
    shown: list[Any] = []
    scheduler = NativeAsyncIOScheduler(clock=clock, timezone="UTC", stores={"default": store})
    scheduler.add_listener(shown.append)
    async with scheduler:
        await scheduler.aadd_task(job, "interval", hours=1, id="taken", **secret)
        with pytest.raises(ConflictIdError) as conflict:
            await scheduler.aadd_task(job, "interval", hours=1, id="taken", **secret)
        break_it(place)
        for task_id in ("taken", "new"):
            with pytest.raises(StoreError) as failed:
                await scheduler.aadd_task(
                    job, "interval", hours=1, id=task_id, replace_existing=task_id == "taken",
                    **secret,
                )  # fmt: skip
            shown.append(failed.value)
        shown += [conflict.value, store, scheduler]
    for thing in shown:
        assert CANARY not in f"{thing!r} {thing!s}"
        error = thing if isinstance(thing, BaseException) else None
        assert error is None or CANARY not in "".join(format_exception(error))
    assert CANARY not in caplog.text
