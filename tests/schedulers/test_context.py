"""Whose context variables a scheduled run has."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from asyncz import NativeAsyncIOScheduler
from asyncz.testing import VirtualClock

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def read() -> str:
    return tenant.get()


async def read_later() -> str:
    return tenant.get()


@pytest.mark.parametrize("fn", [read, read_later])
async def test_a_run_does_not_see_the_request_that_happened_to_wake_the_scheduler(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock, fn: Any
) -> None:
    scheduler.pause()
    scheduler.add_task(fn, "interval", minutes=1, id="app's own")
    await clock.advance(minutes=1)

    async def request() -> None:
        tenant.set("mallory")
        scheduler.resume()

    await asyncio.get_running_loop().create_task(request(), context=copy_context())
    assert [run.return_value for run in await clock.advance()] == ["nobody"]
