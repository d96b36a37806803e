from starlette.applications import Starlette
from starlette.middleware import Middleware

from asyncz import AsyncIOScheduler

scheduler = AsyncIOScheduler()

app = Starlette(middleware=[Middleware(scheduler.asgi, wait=True)])
