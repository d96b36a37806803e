"""Functions that other processes can import."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

started: list[str] = []


def add(first: int, second: int = 0) -> int:
    return first + second


async def add_later(first: int, second: int = 0) -> int:
    await asyncio.sleep(0)
    return first + second


def own_pid() -> int:
    return os.getpid()


async def own_pid_later() -> int:
    return os.getpid()


def thread_name() -> str:
    return threading.current_thread().name


def fail(text: str = "on purpose") -> NoReturn:
    raise ValueError(text)


async def fail_later(text: str = "on purpose") -> NoReturn:
    raise ValueError(text)


class Obstinate(Exception):
    """Pickles, but does not come back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_obstinately() -> NoReturn:
    raise Obstinate("not", "portable")


def return_a_lock() -> Any:
    return threading.Lock()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> NoReturn:
    raise SystemExit(3)


async def leave_later() -> NoReturn:
    raise SystemExit(3)


def block_for_ever() -> None:
    threading.Event().wait()


def note_start(name: str) -> None:
    started.append(name)


def started_names() -> list[str]:
    return started


class Unreturnable:
    """An argument that pickles, but that a worker cannot make again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> NoReturn:
    raise LookupError("not here")


def take(value: object) -> None:
    """Accepts anything."""


def hold_a_lock(path: str) -> None:
    """Until its process ends, after saying which one that is."""
    with Path(path).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print(os.getpid(), file=file, flush=True)
        threading.Event().wait()
