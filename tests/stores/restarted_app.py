"""An app whose schedules are in a persistent store; the environment says in which.

It is served by a process of its own, which the tests end and start again. Each run is a line in
the file `RUNS`.
"""

from __future__ import annotations

import os
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.stores import BaseStore, FileStore, MongoDBStore, RedisStore, SQLAlchemyStore
from asyncz.triggers import DateTrigger, IntervalTrigger


def make_store() -> BaseStore:
    """The store that `STORE`, `PLACE` and `NAME` tell."""
    place, name = os.environ["PLACE"], os.environ["NAME"]
    match os.environ["STORE"]:
        case "file":
            return FileStore(place)
        case "redis":
            keys = f"{{{name}}}"
            return RedisStore(url=place, tasks_key=f"{keys}.tasks", run_times_key=f"{keys}.times")
        case "mongodb":
            return MongoDBStore(uri=place, database=name)
        case _:
            return SQLAlchemyStore(place)


scheduler = NativeAsyncIOScheduler(
    stores={"default": make_store()}, timezone="UTC", startup_timeout=10
)


async def note(word: str) -> None:
    number = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(number, f"{word}\n".encode())
    os.close(number)


# Declared anew at every start.
scheduler.add_task(note, "interval", hours=1, args=["hourly"], id="hourly", replace_existing=True)


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("running" if scheduler.running else "stopped")


async def add(request: Request) -> PlainTextResponse:
    """Add tasks that are declared nowhere: often, once at a given time, and a paused one."""
    due = datetime.fromisoformat(request.query_params["due"])
    often = IntervalTrigger(seconds=0.2)
    await scheduler.aadd_tasks(
        [
            Task(note, id="often", trigger=often, args=["often"]),
            Task(note, id="once", trigger=DateTrigger(due), args=["once"]),
            Task(note, id="paused", trigger=often, args=["paused"], next_run_time=None),
        ]
    )
    return PlainTextResponse("added")


async def tasks(request: Request) -> JSONResponse:
    """When each task is due."""
    infos = await scheduler.aget_task_infos()
    return JSONResponse({i.id: i.next_run_time and i.next_run_time.isoformat() for i in infos})


app = Starlette(
    lifespan=scheduler.lifespan(),
    routes=[Route("/", home), Route("/add", add, methods=["POST"]), Route("/tasks", tasks)],
)
