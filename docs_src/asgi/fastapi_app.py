from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from asyncz import NativeAsyncIOScheduler

scheduler = NativeAsyncIOScheduler()
sent: list[str] = []


@asynccontextmanager
async def connect_mail(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"sender": "shop@example.com"}


app = FastAPI(lifespan=scheduler.lifespan(connect_mail, wait=True))


def get_scheduler(request: Request) -> NativeAsyncIOScheduler:
    found: NativeAsyncIOScheduler = request.state.scheduler
    return found


async def send_mail(sender: str, to: str) -> None:
    sent.append(f"{sender} -> {to}")


@app.post("/orders", status_code=201)
async def order(
    to: str, request: Request, scheduler: Annotated[NativeAsyncIOScheduler, Depends(get_scheduler)]
) -> dict[str, str | None]:
    task = await scheduler.aadd_task(send_mail, args=[request.state.sender, to])
    return {"task": task.id}


@app.get("/tasks")
async def tasks() -> list[dict[str, Any]]:
    infos = await scheduler.aget_task_infos()
    return [info.model_dump(exclude={"args", "kwargs"}) for info in infos]
