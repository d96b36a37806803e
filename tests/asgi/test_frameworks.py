"""Starlette, FastAPI and Litestar, as their documentation says to use them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.websockets import WebSocket

from asyncz import NativeAsyncIOScheduler

from .clients import TestClient
from .protocol import PATIENCE, SCHEDULERS, AnyScheduler, BrokenStore


@pytest.fixture(params=SCHEDULERS)
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def scheduler(make: Any) -> AnyScheduler:
    made: AnyScheduler = make(shutdown_timeout=PATIENCE)
    return made


class Log:
    """A lifespan of an app's own, which notes whether the scheduler was running then."""

    def __init__(self, scheduler: AnyScheduler) -> None:
        self.scheduler = scheduler
        self.seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[dict[str, str]]:
        self.seen.append(("startup", self.scheduler.running))
        yield {"pool": "ten connections"}
        self.seen.append(("shutdown", self.scheduler.running))


async def show_state(request: StarletteRequest) -> JSONResponse:
    scheduler = request.state.scheduler
    return JSONResponse({"running": scheduler.running, "pool": request.state.pool})


def test_a_starlette_lifespan_runs_around_the_apps_own(scheduler: AnyScheduler) -> None:
    log = Log(scheduler)
    app = Starlette(lifespan=scheduler.lifespan(log.lifespan), routes=[Route("/", show_state)])
    with TestClient(app) as client:
        assert client.get("/").json() == {"running": True, "pool": "ten connections"}
    assert log.seen == [("startup", True), ("shutdown", False)]


def test_a_lifespan_may_be_an_undecorated_generator_function(scheduler: AnyScheduler) -> None:
    async def lifespan(app: object) -> AsyncIterator[dict[str, str]]:
        yield {"pool": "two connections"}

    own: Any = lifespan
    app = Starlette(lifespan=scheduler.lifespan(own), routes=[Route("/", show_state)])
    with TestClient(app) as client:
        assert client.get("/").json()["pool"] == "two connections"


def test_a_wrapped_starlette_app_keeps_its_lifespan_and_its_attributes(
    scheduler: AnyScheduler,
) -> None:
    log = Log(scheduler)
    inner = Starlette(lifespan=log.lifespan, routes=[Route("/", show_state)])
    app = scheduler.asgi(inner)
    app.state.answer = 42
    with TestClient(app) as client:
        assert client.get("/").json() == {"running": True, "pool": "ten connections"}
    assert inner.state.answer == 42
    assert log.seen == [("startup", True), ("shutdown", False)]


def test_it_works_as_starlette_middleware(scheduler: AnyScheduler) -> None:
    log = Log(scheduler)
    app = Starlette(
        lifespan=log.lifespan,
        routes=[Route("/", show_state)],
        middleware=[Middleware(scheduler.asgi, wait=True)],
    )
    with TestClient(app) as client:
        assert client.get("/").json() == {"running": True, "pool": "ten connections"}
    assert log.seen == [("startup", True), ("shutdown", False)]


def test_middleware_and_lifespan_together_count(scheduler: AnyScheduler) -> None:
    log = Log(scheduler)
    inner = Starlette(lifespan=scheduler.lifespan(log.lifespan), routes=[Route("/", show_state)])
    with TestClient(scheduler.asgi(inner)) as client:
        assert client.get("/").json()["running"]
    assert log.seen == [("startup", True), ("shutdown", False)]
    assert not scheduler.running


def test_the_scheduler_of_a_mounted_app_runs_with_the_outer_app(scheduler: AnyScheduler) -> None:
    async def count(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(str(len(await scheduler.aget_task_infos())))

    api = Starlette(routes=[Route("/tasks", count)])
    app = Starlette(lifespan=scheduler.lifespan(), routes=[Mount("/api", api)])
    with TestClient(app) as client:
        assert client.get("/api/tasks").text == "0"


def test_a_websocket_reaches_the_app(scheduler: AnyScheduler) -> None:
    app = FastAPI()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json({"running": websocket.state.scheduler.running})
        await websocket.close()

    with (
        TestClient(scheduler.asgi(app)) as client,
        client.websocket_connect("/ws") as connection,
    ):
        assert connection.receive_json() == {"running": True}


def test_a_fastapi_app_keeps_its_lifespan_and_gets_the_scheduler_by_dependency(
    scheduler: AnyScheduler,
) -> None:
    log = Log(scheduler)
    app = FastAPI(lifespan=scheduler.lifespan(log.lifespan))
    ran = threading.Event()

    def find(request: Request) -> Any:
        return request.state.scheduler

    @app.post("/tasks")
    async def add(request: Request, found: Any = Depends(find)) -> dict[str, str]:  # noqa: B008
        await found.aadd_task(ran.set)
        return {"pool": request.state.pool}

    with TestClient(app) as client:
        assert client.post("/tasks").json() == {"pool": "ten connections"}
        assert ran.wait(PATIENCE)
    assert log.seen == [("startup", True), ("shutdown", False)]


def test_a_fastapi_app_can_be_wrapped_and_decorated_further(scheduler: AnyScheduler) -> None:
    app = scheduler.asgi(FastAPI())

    @app.get("/")  # type: ignore[untyped-decorator]
    async def home() -> bool:
        return scheduler.running

    with TestClient(app) as client:
        assert client.get("/").json() is True


def test_a_litestar_app_runs_it_after_its_other_lifespans(scheduler: AnyScheduler) -> None:
    litestar = pytest.importorskip("litestar", reason="pip install litestar")
    log = Log(scheduler)

    @litestar.get("/")  # type: ignore[untyped-decorator]
    async def home() -> bool:
        return scheduler.running

    app = litestar.Litestar([home], lifespan=[log.lifespan, scheduler.lifespan()])
    with TestClient(app) as client:
        assert client.get("/").json() is True
    assert log.seen == [("startup", False), ("shutdown", False)]


def test_a_litestar_app_can_be_wrapped(scheduler: AnyScheduler) -> None:
    litestar = pytest.importorskip("litestar", reason="pip install litestar")

    @litestar.get("/")  # type: ignore[untyped-decorator]
    async def home() -> bool:
        return scheduler.running

    with TestClient(scheduler.asgi(litestar.Litestar([home]))) as client:
        assert client.get("/").json() is True


@pytest.mark.parametrize("use", ["lifespan", "wrapper"])
def test_a_test_client_is_told_of_a_failed_start(make: Any, use: str) -> None:
    scheduler = make(stores={"default": BrokenStore()})
    app = Starlette(lifespan=scheduler.lifespan()) if use == "lifespan" else Starlette()
    served = app if use == "lifespan" else scheduler.asgi(app)
    with pytest.raises(ConnectionError, match="nobody listens"), TestClient(served):
        pass
    assert not scheduler.running


@pytest.mark.parametrize("use", ["lifespan", "wrapper"])
def test_an_app_whose_startup_fails_stops_the_scheduler(scheduler: AnyScheduler, use: str) -> None:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        assert scheduler.running
        raise LookupError("no database")
        yield

    own = scheduler.lifespan(lifespan) if use == "lifespan" else lifespan
    app: Any = Starlette(lifespan=own)
    with (
        pytest.raises(LookupError, match="no database"),
        TestClient(app if use == "lifespan" else scheduler.asgi(app)),
    ):
        pass
    assert not scheduler.running


@pytest.mark.parametrize("use", ["lifespan", "wrapper"])
def test_an_app_whose_shutdown_fails_has_stopped_the_scheduler(
    scheduler: AnyScheduler, use: str
) -> None:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        yield
        raise LookupError("not flushed")

    own = scheduler.lifespan(lifespan) if use == "lifespan" else lifespan
    app: Any = Starlette(lifespan=own)
    with (
        pytest.raises(LookupError, match="not flushed"),
        TestClient(app if use == "lifespan" else scheduler.asgi(app)),
    ):
        assert scheduler.running
    assert not scheduler.running


class Unstoppable(NativeAsyncIOScheduler):
    """A scheduler whose shutdown fails when it is done."""

    async def ashutdown(self, wait: bool = True) -> bool:
        await super().ashutdown(wait)
        raise OSError("no threads left")


def test_a_scheduler_that_cannot_stop_does_not_keep_the_app_from_closing() -> None:
    scheduler = Unstoppable()
    log = Log(scheduler)
    app = Starlette(lifespan=scheduler.lifespan(log.lifespan))
    with pytest.raises(OSError, match="no threads left"), TestClient(app):
        pass
    assert [step for step, _ in log.seen] == ["startup", "shutdown"]


def test_a_client_can_be_entered_again_and_the_declared_tasks_are_there(
    scheduler: AnyScheduler,
) -> None:
    @scheduler.add_task(trigger="interval", hours=1, id="hourly")
    async def hourly() -> None: ...

    app = Starlette(lifespan=scheduler.lifespan())
    for _ in range(3):
        with TestClient(app):
            assert [info.id for info in scheduler.get_task_infos()] == ["hourly"]
