"""The examples of the documentation, and the demo, do what the text says."""

from __future__ import annotations

import importlib
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .clients import TestClient
from .demos import EXAMPLES, answers, demo, wait_for
from .servers import PATIENCE, ROOT

PAGE = ROOT / "docs" / "asgi.md"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Imports an example as if it had just been saved to a directory of its own."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES / "asgi")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def load(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the test client's, about httpx
            return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


def test_every_example_is_on_the_page() -> None:
    page = PAGE.read_text()
    examples = sorted((EXAMPLES / "asgi").glob("*.py"))
    assert examples
    assert [path.name for path in examples if f"docs_src/asgi/{path.name}" not in page] == []


def test_starlette(load: Any) -> None:
    example = load("starlette_app")
    with TestClient(example.app) as client:
        assert client.post("/refresh").json()["refreshed"] in (0, 1)
        wait_for(lambda: example.database.get("refreshed") == 1)
    assert example.database == {}


def test_fastapi(load: Any) -> None:
    example = load("fastapi_app")
    with TestClient(example.app) as client:
        assert client.post("/orders?to=ada").status_code == 201
        wait_for(lambda: example.sent)
        assert client.get("/tasks").json() == []
    assert example.sent == ["shop@example.com -> ada"]


def test_a_test_of_a_fastapi_app(load: Any) -> None:
    load("fastapi_test").test_an_order_is_taken()


def test_litestar(load: Any) -> None:
    pytest.importorskip("litestar", reason="pip install litestar")
    with TestClient(load("litestar_app").app) as client:
        assert client.get("/tasks").json() == ["cleanup"]


def test_any_app(load: Any) -> None:
    with TestClient(load("any_app").app) as client:
        assert client.get("/").text == "1 tasks"


def test_middleware(load: Any) -> None:
    example = load("middleware_app")
    with TestClient(example.app):
        assert example.scheduler.running
    assert not example.scheduler.running


def test_the_app_of_the_readme_runs_its_tasks_and_keeps_them(load: Any, tmp_path: Path) -> None:
    example = load("app")
    with TestClient(example.app) as client:
        wait_for(lambda: client.get("/").json()["ran"].get("welcome succeeded"))
        assert client.post("/tasks/in/600?text=tea").status_code == 201
        tasks = client.get("/tasks").json()
        assert {task["id"] for task in tasks} > {"heartbeat", "report", "newsletter", "goodbye"}
        assert not any("args" in task or "tea" in str(task) for task in tasks)
        assert client.get("/").json()["state"] == "running"
    assert example.outcomes["goodbye succeeded"] == 1
    with TestClient(example.app) as client:
        references = [task["callable_reference"] for task in client.get("/tasks").json()]
        assert "app:remind" in references
    assert list((tmp_path / "tasks").iterdir())


def test_the_demo_shows_its_tasks_and_ctrl_c_ends_it_cleanly() -> None:
    with demo() as running:
        address = running.address
        wait_for(lambda: answers(address))
        wait_for(lambda: "once, at the start" in running.output)
        triggers = {task["trigger_alias"] for task in httpx.get(f"{address}/tasks").json()}
        assert triggers >= {"cron", "interval", "shutdown"}
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(2) == 0
        running.reader.join(PATIENCE)
        assert "goodbye, after" in running.output
        assert "Traceback" not in running.output


def test_ctrl_c_pressed_twice_ends_the_demo_as_cleanly_as_once() -> None:
    with demo() as running:
        address = running.address
        wait_for(lambda: answers(address))
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(2) == 0
        running.reader.join(PATIENCE)
        assert "has been shut down" in running.output
        assert "Traceback" not in running.output


def test_the_demo_takes_another_port_when_its_own_is_taken() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8000))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which will do
        with demo() as running:
            address = running.address
            assert not address.endswith(":8000")
            wait_for(lambda: answers(address))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(2) == 0
