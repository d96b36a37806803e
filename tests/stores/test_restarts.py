"""A Starlette app under uvicorn, ended and started again, goes on with its schedules."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from pymongo import MongoClient
from redis import Redis

from tests.asgi.servers import PATIENCE, ServerProcess, serving
from tests.services.databases import new_database
from tests.services.mongodb import mongodb_url, warm_motor
from tests.services.redis import redis_url

__all__ = ["mongodb_url"]

SQL = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+asyncpg",
    "mariadb": "mysql+asyncmy",
}
SOON = 2.0
"""Seconds until the one-off task is due: the process has ended by then, and not begun again."""


def serve(port: int) -> list[str]:
    return ["-m", "uvicorn", "tests.stores.restarted_app:app", "--port", str(port)]


class App:
    """The app, its store and what it has run, whichever process serves it."""

    def __init__(self, path: Path, store: str, place: str, name: str) -> None:
        self.path = path
        self.runs = path / "runs"
        self.environment = {
            "STORE": store, "PLACE": place, "NAME": name, "RUNS": str(self.runs)
        }  # fmt: skip

    def serving(self) -> Any:
        return serving(serve, self.path / "log", **self.environment)

    def count(self) -> Counter[str]:
        """How often each task has been run."""
        return Counter(self.runs.read_text().split() if self.runs.exists() else [])

    def wait_for_more(self, word: str) -> None:
        """Wait until a task is run once more."""
        before, deadline = self.count()[word], time.monotonic() + PATIENCE
        while self.count()[word] == before:
            assert time.monotonic() < deadline, f"{word!r} is not run"
            time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def threads_of_motor() -> None:
    """Those are there before a test that is asked what threads it leaves."""
    warm_motor()


@pytest.fixture(params=["file", *SQL, "redis", "mongodb"])
def restarted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """The app on each store, with a place of its own there."""
    store, name = str(request.param), f"t{uuid4().hex[:12]}"
    if store == "file":
        yield App(tmp_path, store, str(tmp_path / "tasks"), name)
    elif store in SQL:
        with new_database(SQL[store]) as url:
            yield App(tmp_path, store, url.render_as_string(hide_password=False), name)
    elif store == "redis":
        yield App(tmp_path, store, redis_url(), name)
        with Redis.from_url(redis_url()) as client:
            if keys := list(client.scan_iter(f"*{name}*", count=1_000)):
                client.unlink(*keys)
    else:
        url = request.getfixturevalue("mongodb_url")
        yield App(tmp_path, store, url, name)
        with MongoClient[dict[str, Any]](url) as client:
            client.drop_database(name)


def due_times(server: ServerProcess) -> dict[str, str | None]:
    return cast("dict[str, str | None]", server.client.get("/tasks").raise_for_status().json())


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_schedules_go_on_where_they_were(restarted: App, sign: signal.Signals) -> None:
    with restarted.serving() as server:
        due = datetime.now(UTC) + timedelta(seconds=SOON)
        server.client.post("/add", params={"due": due.isoformat()}).raise_for_status()
        restarted.wait_for_more("often")
        before = due_times(server)
        server.end(sign)
    assert datetime.now(UTC) < due, "the machine is too slow for this test"
    while datetime.now(UTC) < due:
        time.sleep(0.02)

    with restarted.serving() as server:
        restarted.wait_for_more("often")
        # Once more: what was due with the first of these has not only run, but is noted as run.
        restarted.wait_for_more("often")
        after = due_times(server)
        server.end(sign)

    assert after.keys() == {"hourly", "often", "paused"}
    assert after["hourly"] == before["hourly"]
    assert after["paused"] is None
    with restarted.serving():
        restarted.wait_for_more("often")
    assert restarted.count().keys() == {"often", "once"}
    assert restarted.count()["once"] == 1
