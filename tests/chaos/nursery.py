"""The warmed process that workers are forked from: a start takes milliseconds, not a second.

It has neither threads nor an event loop, and reads orders, a line of JSON each, from its input.
When that ends, so do its workers. Run as `python -m tests.chaos.nursery LOG`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import asyncmy  # noqa: F401  # what the workers will need
import asyncpg  # type: ignore[import-untyped]  # noqa: F401
import motor.motor_asyncio  # noqa: F401
import redis.asyncio  # noqa: F401

from .places import Address
from .worker import TaskPlan, WorkerPlan, run_worker

__all__ = ["main"]

PR_SET_PDEATHSIG = 1

Order = dict[str, Any]


class Nursery:
    """Forks workers, sends them signals and buries them."""

    def __init__(self, log: str) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._pid = os.getpid()
        self._alive: set[int] = set()

    def start(self, order: Order) -> Order:
        """Fork a worker."""
        plan = _plan(order["plan"])
        pid = os.fork()
        if not pid:
            os._exit(self._be_worker(plan))
        self._alive.add(pid)
        return {"pid": pid}

    def _be_worker(self, plan: WorkerPlan) -> int:
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._pid:
                return 1
            nothing = os.open(os.devnull, os.O_RDWR)
            for number, target in ((nothing, 0), (self._log, 1), (self._log, 2)):
                os.dup2(number, target)
            return run_worker(plan)
        except BaseException:
            traceback.print_exc()
            return 1

    def send(self, order: Order) -> Order:
        """Send a signal; of SIGKILL, wait for the end."""
        pid, number = order["pid"], order["signal"]
        began = time.monotonic()
        if pid in self._alive:
            os.kill(pid, number)
            if number == signal.SIGKILL:
                os.waitpid(pid, 0)
                self._alive.discard(pid)
        return {"at": began, "done": time.monotonic()}

    def poll(self, order: Order) -> Order:
        """Which workers have ended by themselves, and with what."""
        ended = {}
        for pid in list(self._alive):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._alive.discard(pid)
                ended[str(pid)] = os.waitstatus_to_exitcode(status)
        return {"ended": ended, "at": time.monotonic()}

    def end(self) -> None:
        """Kill all of them, also those that are stopped."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _plan(fields: list[Any]) -> WorkerPlan:
    plan = WorkerPlan(*fields)
    return plan._replace(
        address=Address(*plan.address),
        declared=tuple(TaskPlan(*task) for task in plan.declared),
        by_hand=tuple(plan.by_hand),
    )


def main(log: str) -> None:
    """Carry out orders until there are no more."""
    asyncio.run(asyncio.sleep(0))  # imports what loops need
    gc.collect()
    gc.freeze()
    nursery = Nursery(log)
    orders: dict[str, Callable[[Order], Order]] = {
        "start": nursery.start, "send": nursery.send, "poll": nursery.poll,
    }  # fmt: skip
    try:
        print("{}", flush=True)
        while line := sys.stdin.readline():
            order = json.loads(line)
            print(json.dumps(orders[order["do"]](order)), flush=True)
    finally:
        nursery.end()


if __name__ == "__main__":
    main(sys.argv[1])
