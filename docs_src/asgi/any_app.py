from typing import Any

from asyncz import NativeAsyncIOScheduler

scheduler = NativeAsyncIOScheduler()


@scheduler.asgi(wait=True)
async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError("This app knows HTTP only.")
    count = len(await scheduler.aget_task_infos())
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"{count} tasks".encode()})


@scheduler.add_task(trigger="interval", hours=1, id="hourly")
async def hourly() -> None: ...
