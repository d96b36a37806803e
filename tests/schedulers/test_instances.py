"""The schedulers of a store, as each of them sees the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from asyncz import NativeAsyncIOScheduler
from asyncz.exceptions import StoreError
from asyncz.schedulers.inspection import SchedulerInstanceInfo
from asyncz.stores.cluster import Pulse
from asyncz.stores.sqlalchemy import SQLAlchemyStore

LEASE = 0.6


class Faint(Pulse):
    """A heartbeat that reaches the store only while its store object says so."""

    def __init__(self, store: FaintStore, inner: Pulse) -> None:
        self._store, self._inner = store, inner

    async def open(self) -> None:
        await self._inner.open()

    async def beat(self, lease: float, running: int) -> bool:
        if self._store._is_silent:
            raise StoreError("no answer")
        return await self._inner.beat(lease, running)

    async def close(self) -> None:
        await self._inner.close()


class FaintStore(SQLAlchemyStore):
    """A store whose schedulers may fall silent."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._is_silent = False

    def pulse(self, node_id: str) -> Pulse:
        inner = super().pulse(node_id)
        assert inner is not None
        return Faint(self, inner)


async def until(condition: Callable[[dict[str, SchedulerInstanceInfo]], bool], of: Any) -> None:
    """Wait, within bounds, for what a scheduler sees of the others."""
    async with asyncio.timeout(10):
        while not condition(await seen_by(of)):
            await asyncio.sleep(0.02)


async def seen_by(scheduler: NativeAsyncIOScheduler) -> dict[str, SchedulerInstanceInfo]:
    """What it says of all of them, by identity."""
    infos = await scheduler.aget_scheduler_instance_infos()
    found = {info.identity: info for info in infos}
    assert len(found) == len(infos)
    return found


async def test_of_three_schedulers_the_one_whose_lease_has_run_out_is_stale(tmp_path: Path) -> None:
    url, names = f"sqlite:///{tmp_path}/tasks.db", ("one", "two", "three")
    silent = FaintStore(database=url)
    stores = [*(SQLAlchemyStore(url) for _ in range(2)), silent]
    async with AsyncExitStack() as stack:
        one, two, _ = [
            await stack.enter_async_context(
                NativeAsyncIOScheduler(
                    stores={"default": store},
                    identity=name,
                    timezone="UTC",
                    lease=LEASE,
                    poll_interval=0.05,
                )
            )
            for name, store in zip(names, stores, strict=True)
        ]
        before = await seen_by(one)
        silent._is_silent = True
        await until(lambda seen: seen["three"].stale, one)
        by_one, by_two = await seen_by(one), await seen_by(two)
        silent._is_silent = False
        await until(lambda seen: not seen["three"].stale, one)
        after = await seen_by(one)

    assert [info.scope for info in before.values()] == ["this", "store", "store"]
    assert all(info.active and not info.stale for info in before.values())
    for seen in (by_one, by_two):
        assert {name: info.stale for name, info in seen.items()} == {
            "one": False, "two": False, "three": True,
        }  # fmt: skip
        assert not seen["three"].active
        assert seen["three"].heartbeat_age_seconds >= LEASE
    assert set(after) == set(names)
    assert after["three"].active
    assert after["three"].store_aliases == ("default",)
