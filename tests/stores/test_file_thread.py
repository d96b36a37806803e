"""The thread that a store's blocking calls are made on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from asyncz.stores.file_thread import StoreThread


def failing_with(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


async def test_calls_are_made_in_order_on_one_thread() -> None:
    thread, made = StoreThread("t"), []

    def work(number: int) -> int:
        made.append((number, threading.get_ident()))
        return number

    calls = [thread.submit(lambda number=number: work(number)) for number in range(20)]  # type: ignore[misc]
    assert await asyncio.gather(*calls) == list(range(20))
    assert await thread.end(lambda: None, 10)
    assert [number for number, _ in made] == list(range(20))
    assert len({ident for _, ident in made} - {threading.get_ident()}) == 1


async def test_an_error_is_the_callers() -> None:
    thread = StoreThread("t")
    with pytest.raises(KeyError):
        await thread.submit(failing_with(KeyError("x")))
    assert await thread.submit(lambda: 5) == 5
    await thread.end(lambda: None, 10)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration()], ids=repr)
async def test_what_would_end_or_hang_the_loop_is_an_ordinary_error(error: BaseException) -> None:
    thread = StoreThread("t")
    with pytest.raises(RuntimeError, match=type(error).__name__):
        await asyncio.wait_for(thread.submit(failing_with(error)), 10)
    await thread.end(lambda: None, 10)


def test_a_call_that_outlives_its_loop_is_forgotten() -> None:
    began, goes_on = threading.Event(), threading.Event()
    thread: list[StoreThread] = []

    def work() -> None:
        began.set()
        goes_on.wait(10)

    async def leave() -> None:
        thread.append(StoreThread("t"))
        thread[0].submit(work)
        await asyncio.to_thread(began.wait, 10)

    asyncio.run(leave())
    goes_on.set()

    async def end() -> bool:
        return await thread[0].end(lambda: None, 10)

    assert asyncio.run(end())
