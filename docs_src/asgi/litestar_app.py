from litestar import Litestar, get

from asyncz import NativeAsyncIOScheduler

scheduler = NativeAsyncIOScheduler()


@scheduler.add_task(trigger="cron", hour=3, id="cleanup")
async def cleanup() -> None: ...


@get("/tasks")
async def tasks() -> list[str | None]:
    return [info.id for info in await scheduler.aget_task_infos()]


# Litestar enters its lifespans in order: what tasks need comes before the scheduler.
app = Litestar(route_handlers=[tasks], lifespan=[scheduler.lifespan()])
