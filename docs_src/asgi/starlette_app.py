from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncz import NativeAsyncIOScheduler

scheduler = NativeAsyncIOScheduler()
database: dict[str, int] = {}


@scheduler.add_task(trigger="interval", minutes=5, id="refresh")
async def refresh() -> None:
    database["refreshed"] += 1  # it is open whenever a task runs


@asynccontextmanager
async def open_database(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    database["refreshed"] = 0
    yield {"database": database}
    database.clear()


async def refresh_now(request: Request) -> JSONResponse:
    await request.state.scheduler.arun_task("refresh")
    return JSONResponse({"refreshed": request.state.database["refreshed"]})


app = Starlette(
    lifespan=scheduler.lifespan(open_database),
    routes=[Route("/refresh", refresh_now, methods=["POST"])],
)
