"""A web app with tasks. Save it as app.py and run `uvicorn app:app`."""

import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asyncz import FileStore, NativeAsyncIOScheduler, SchedulerEvent, TaskExecutionEvent
from asyncz.events.constants import TASK_ERROR, TASK_EXECUTED

log = logging.getLogger("app")
scheduler = NativeAsyncIOScheduler(stores={"default": FileStore("tasks")})
outcomes: Counter[str] = Counter()


@scheduler.add_task(trigger="interval", seconds=2, id="heartbeat")
async def heartbeat() -> None:
    log.info("still here")


@scheduler.add_task(trigger="cron", second="*/10", id="report")
def report() -> None:  # a plain function runs in a thread, never on the event loop
    log.info("so far: %s", dict(outcomes))


@scheduler.add_task(trigger="date", id="welcome")
async def welcome() -> None:
    log.info("once, at the start")


@scheduler.add_task(trigger="interval", seconds=7, id="newsletter")
async def newsletter() -> None:
    raise ConnectionError("the mail server does not answer")


@scheduler.add_task(trigger="shutdown", id="goodbye")
async def goodbye() -> None:
    log.info("goodbye, after %d runs", outcomes.total())


async def remind(text: str) -> None:
    log.info("reminder: %s", text)


def count(event: SchedulerEvent) -> None:
    if isinstance(event, TaskExecutionEvent):
        outcomes[f"{event.task_id} {'failed' if event.exception else 'succeeded'}"] += 1


scheduler.add_listener(count, TASK_EXECUTED | TASK_ERROR)


async def home(request: Request) -> JSONResponse:
    info = await scheduler.aget_scheduler_info()
    return JSONResponse({"state": info.state_label, "tasks": info.task_count, "ran": outcomes})


async def show_tasks(request: Request) -> JSONResponse:
    infos = await scheduler.aget_task_infos()
    hidden = {"args", "kwargs"}  # they may hold what is nobody else's business
    return JSONResponse([info.model_dump(mode="json", exclude=hidden) for info in infos])


async def add_reminder(request: Request) -> JSONResponse:
    when = datetime.now(UTC) + timedelta(seconds=min(request.path_params["seconds"], 3600))
    text = request.query_params.get("text", "it is time")
    task = await scheduler.aadd_task(remind, trigger="date", run_at=when, args=[text])
    return JSONResponse({"id": task.id, "due": when.isoformat()}, status_code=201)


app = Starlette(
    lifespan=scheduler.lifespan(),
    routes=[
        Route("/", home),
        Route("/tasks", show_tasks),
        Route("/tasks/in/{seconds:int}", add_reminder, methods=["POST"]),
    ],
)
