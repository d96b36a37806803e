"""The demos, as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from .servers import PATIENCE, ROOT, python_path

__all__ = ["EXAMPLES", "Demo", "answers", "demo", "wait_for"]

EXAMPLES = ROOT / "docs_src"


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Demo:
    """The demo in a process of its own, and what it has printed so far."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script)],
            env=os.environ | {"PYTHONPATH": python_path(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def output(self) -> str:
        """All of it."""
        return "".join(self.lines)

    @property
    def address(self) -> str:
        """Where it is."""
        wait_for(lambda: "Ctrl-C ends it." in self.output)
        return self.lines[0].split()[-1]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(iter(output.readline, ""))


@contextmanager
def demo(script: str = "demo.py") -> Iterator[Demo]:
    """A demo that runs."""
    started = Demo(script)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait(PATIENCE)
        started.reader.join(PATIENCE)


def answers(address: str) -> bool:
    """Whether there is a page."""
    try:
        return httpx.get(address, timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False
