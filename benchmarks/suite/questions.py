"""What a server says it was asked so far, as far as that can be had cheaply.

By the server's own count, so that no connection is forgotten: neither that of the heartbeat nor
what a driver asks of its own accord.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["questions_of"]


async def questions_of(found: Mapping[str, str]) -> float | None:
    """Statements or commands since the server has started; None: nobody counts them.

    Args:
        found: The kind of a store and its URL, see `suite.servers.place`.
    """
    asking = _ASKING.get(found["kind"])
    return None if asking is None else float(await asking(found["url"]))


async def _of_postgresql(url: str) -> float:
    # Transactions: what idle workers ask is one statement each.
    return await _first_number(
        url, "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database", 0
    )


async def _of_mariadb(url: str) -> float:
    return await _first_number(url, "SHOW GLOBAL STATUS LIKE 'Questions'", 1)


async def _first_number(url: str, statement: str, column: int) -> float:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    from asyncz.stores.sqlalchemy_dialects import async_url

    engine = create_async_engine(async_url(url))
    try:
        async with engine.connect() as connection:
            return float((await connection.execute(text(statement))).one()[column])
    finally:
        await engine.dispose()


async def _of_redis(url: str) -> float:
    """Commands that were sent; what a script calls by itself is one with it."""
    from redis.asyncio import Redis

    client = Redis.from_url(url)
    try:
        found: Any = await client.info("commandstats")
    finally:
        await client.aclose()
    names = ("evalsha", "eval", "publish", "subscribe", "ping")
    return sum(found.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)


async def _of_mongodb(url: str) -> float:
    from pymongo import MongoClient

    with MongoClient[dict[str, Any]](url, directConnection=True) as client:
        counted = client.admin.command("serverStatus")["opcounters"]
    # Not `command`, in which are the greetings that drivers send by themselves.
    return sum(counted[name] for name in ("query", "insert", "update", "delete", "getmore"))


_ASKING: Mapping[str, Callable[[str], Awaitable[float]]] = {
    "postgresql": _of_postgresql,
    "mariadb": _of_mariadb,
    "redis": _of_redis,
    "mongodb": _of_mongodb,
}
