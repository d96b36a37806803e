"""The workers of a trial: started, killed, stopped and told to end, and when that was."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Self

from .worker import WorkerPlan

__all__ = ["Fates", "Fleet"]

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]


@dataclass
class Fates:
    """What was done to the workers, by process id; moments are `time.monotonic`.

    Args:
        killed: When it was sent SIGKILL. It does nothing more afterwards.
        ended: When it had ended by itself at the latest.
        stopped: From when to when it was stopped.
        codes: The exit code of those that ended by themselves.
        told: When they were sent SIGTERM, each time.
    """

    killed: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    stopped: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    told: dict[int, list[float]] = field(default_factory=dict)


class Fleet:
    """So many workers that do the same.

    Args:
        log: What they say goes there.
        seed: Of the choice of victims.
        skews: By how many seconds the clocks of the workers are wrong, one after the other.
    """

    plan: WorkerPlan
    """What each does that is started from now on."""

    def __init__(self, log: Path, seed: int, skews: Sequence[float] = (0.0,)) -> None:
        self._log = log
        self._skews = cycle(skews)
        self._random = Random(seed)
        self.fates = Fates()
        self.alive: list[int] = []
        self.spared: set[int] = set()
        """Those that nothing is done to."""
        self._stopped: dict[int, float] = {}

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.chaos.nursery", str(self._log)]
        pipe = subprocess.PIPE
        self._nursery = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT)
        self._answer()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        try:
            self._nursery.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._nursery.kill()  # its workers die with it
            self._nursery.wait()
        self._nursery.stdout.close()

    def start(self, number: int = 1, plan: WorkerPlan | None = None) -> list[int]:
        """Start workers, that do what others do, or what another plan says."""
        plan = plan or self.plan
        plans = [plan._replace(skew=next(self._skews)) for _ in range(number)]
        started = [self._order(do="start", plan=each)["pid"] for each in plans]
        self.alive += started
        return started

    @property
    def victims(self) -> list[int]:
        """The workers that go on, are not told to end, and are not spared."""
        others = {*self._stopped, *self.spared, *self.fates.told}
        return [pid for pid in self.alive if pid not in others]

    def any(self) -> int:
        """One of the victims."""
        return self._random.choice(self.victims)

    def kill(self, pid: int) -> None:
        """SIGKILL."""
        self.fates.killed[pid] = self._send(pid, signal.SIGKILL)["at"]
        self._stopped.pop(pid, None)
        self.alive.remove(pid)

    def stop(self, pid: int) -> None:
        """SIGSTOP: it holds its connections, does nothing, and does not know it."""
        self._stopped[pid] = self._send(pid, signal.SIGSTOP)["at"]

    def has_stopped(self, pid: int, at: float) -> None:
        """A worker has stopped itself."""
        self._stopped[pid] = at

    def resume(self, pid: int) -> None:
        """SIGCONT."""
        done = self._send(pid, signal.SIGCONT)["done"]
        self.fates.stopped.setdefault(pid, []).append((self._stopped.pop(pid), done))

    def tell_to_end(self, pid: int) -> None:
        """SIGTERM."""
        self.fates.told.setdefault(pid, []).append(self._send(pid, signal.SIGTERM)["at"])

    async def end(self, pids: list[int], within: float, again: float | None = None) -> None:
        """SIGTERM, and wait until they have ended.

        Args:
            pids: Who.
            within: Seconds.
            again: Seconds after which those that have not ended are told a second time.
        """
        for pid in pids:
            self.tell_to_end(pid)
        deadline = time.monotonic() + within
        hurry = float("inf") if again is None else time.monotonic() + again
        while left := [pid for pid in pids if pid in self.alive]:
            if time.monotonic() > hurry:
                hurry = float("inf")
                for pid in left:
                    self.tell_to_end(pid)
            if time.monotonic() > deadline:
                raise AssertionError(f"the workers {left} did not end within {within} s")
            await asyncio.sleep(0.01)
            self.notice_ended()

    def notice_ended(self) -> None:
        """Note down which workers have ended by themselves."""
        answer = self._order(do="poll")
        for text, code in answer["ended"].items():
            pid = int(text)
            self.fates.ended[pid], self.fates.codes[pid] = answer["at"], code
            self.alive.remove(pid)

    def _send(self, pid: int, number: signal.Signals) -> Any:
        return self._order(do="send", pid=pid, signal=int(number))

    def _order(self, **order: Any) -> Any:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        self._nursery.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        stream = self._nursery.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], PATIENCE)
        line = stream.readline() if ready else b""
        if not line:
            raise RuntimeError(f"the process that forks workers says nothing; see {self._log}")
        return json.loads(line)
