"""The app that the servers serve. The environment says with which scheduler.

What it prints goes to the server's log, where the tests look for it when the process has ended.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import asyncz
from asyncz import MemoryStore, SchedulerEvent
from asyncz.events.constants import TASK_EXECUTED

PATIENCE = 5.0


class BrokenStore(MemoryStore):
    """A store whose server is down."""

    async def start(self, scheduler: Any, alias: str) -> None:
        raise ConnectionError("nobody listens on port 6379")


def make_scheduler() -> Any:
    kind = getattr(asyncz, os.environ.get("SCHEDULER", "NativeAsyncIOScheduler"))
    store = BrokenStore() if "BROKEN_STORE" in os.environ else MemoryStore()
    return kind(stores={"default": store}, shutdown_timeout=20)


scheduler = make_scheduler()
ran: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def say(text: str) -> None:
    print(text, flush=True)


async def mark(name: str) -> None:
    ran[name].set()


async def add_another() -> None:
    await scheduler.aadd_task(mark, args=["task"])


def on_executed(event: SchedulerEvent) -> None:
    if getattr(event, "task_id", None) == "seed":
        scheduler.add_task(mark, args=["listener"])


scheduler.add_listener(on_executed, TASK_EXECUTED)


async def outlast() -> None:
    """Go on until the scheduler is told to stop, and for a while after that."""
    ran["outlast"].set()
    try:
        while scheduler.running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        say("the task has finished")
    except asyncio.CancelledError:
        say("the task was cut off")
        raise
    finally:
        say("the task has cleaned up")


@scheduler.add_task(trigger="shutdown")  # type: ignore[untyped-decorator]
async def farewell() -> None:
    say("the shutdown task has run")


async def add_task(request: Request) -> PlainTextResponse:
    match request.path_params["place"]:
        case "handler":
            await scheduler.aadd_task(mark, args=["handler"])
        case "thread":
            await asyncio.to_thread(scheduler.add_task, mark, args=["thread"])
        case "task":
            await scheduler.aadd_task(add_another)
        case "listener":
            await scheduler.aadd_task(mark, args=["seed"], id="seed")
        case "outlast":
            await scheduler.aadd_task(outlast)
    return PlainTextResponse("added")


async def wait_for_run(request: Request) -> PlainTextResponse:
    await asyncio.wait_for(ran[request.path_params["name"]].wait(), PATIENCE)
    return PlainTextResponse("ran")


async def home(request: Request) -> PlainTextResponse:
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    kept = request.state.scheduler is scheduler and scheduler.running
    return PlainTextResponse(f"{loop} {'running' if kept else 'stopped'}")


app = Starlette(
    lifespan=scheduler.lifespan(wait="WAIT" in os.environ),
    routes=[
        Route("/", home),
        Route("/add/{place}", add_task, methods=["POST"]),
        Route("/ran/{name}", wait_for_run),
    ],
)
