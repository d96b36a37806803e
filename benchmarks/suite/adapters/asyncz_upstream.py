"""asyncz 0.17: the same names in an environment of its own, with synchronous stores."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from suite.adapters import GRACE, asyncz_here

__all__ = ["LibraryAdapter"]


class LibraryAdapter(asyncz_here.LibraryAdapter):
    """The native scheduler with its defaults; a store gets synchronous drivers."""

    add_at_once = None  # it has no such call

    def store_options(self, kind: str, url: str) -> Any:
        if kind == "mongodb":
            client = importlib.import_module("pymongo").MongoClient(url)
            return {"type": "mongodb", "client": client}
        if kind == "redis":
            address = urlsplit(url)
            return {"type": "redis", "host": address.hostname, "port": address.port}
        scheme = {"sqlite": f"sqlite:///{url}", "mariadb": url.replace("mysql:", "mysql+pymysql:")}
        database = scheme.get(kind, url.replace("postgresql:", "postgresql+psycopg2:"))
        return {"type": "sqlalchemy", "database": database}

    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        add_task = self.scheduler.add_task
        for task_id, due in tasks:
            add_task(fn, "date", run_at=due, id=task_id, mistrigger_grace_time=GRACE)
