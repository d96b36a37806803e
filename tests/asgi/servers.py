"""Real servers in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 20.0
"""Seconds that a server may take to start, on a machine that has much else to do."""

APP = "served.app:app"


def uvicorn(port: int, *options: str) -> list[str]:
    return ["-m", "uvicorn", APP, "--port", str(port), *options]


def hypercorn(port: int, *options: str) -> list[str]:
    return ["-m", "hypercorn", APP, "--bind", f"127.0.0.1:{port}", *options]


Command = Callable[[int], list[str]]
"""The arguments of Python for a server on a port."""

COMMANDS: dict[str, Command] = {
    "uvicorn": lambda port: uvicorn(port, "--loop", "asyncio"),
    "uvicorn with --workers 1": lambda port: uvicorn(port, "--workers", "1"),
    "uvicorn with uvloop": lambda port: uvicorn(port, "--loop", "uvloop"),
    "uvicorn.run": lambda port: ["-m", "served.run", str(port)],
    "hypercorn": hypercorn,
    "hypercorn with --workers 0": lambda port: hypercorn(port, "--workers", "0"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A server, its log, and a client for it.

    Args:
        command: What serves, or a name in `COMMANDS`.
        log: The file that takes its output.
        environment: Variables beside those of this process.
    """

    def __init__(self, command: str | Command, log: Path, **environment: str) -> None:
        if command == "uvicorn with uvloop" and find_spec("uvloop") is None:
            pytest.skip("uvloop is not installed: pip install uvloop")
        port = free_port()
        arguments = COMMANDS[command] if isinstance(command, str) else command
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments(port)],
                cwd=HERE,
                env=os.environ | {"PYTHONPATH": python_path(ROOT)} | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_served(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None, f"the server has ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.client.get("/").status_code == 200
        except httpx.TransportError:
            return False

    def start_long_task(self) -> None:
        """Add a task that goes on until the scheduler stops, and wait until it has begun."""
        self.client.post("/add/outlast").raise_for_status()
        self.client.get("/ran/outlast").raise_for_status()

    def end(self, sign: signal.Signals = signal.SIGTERM, within: float = PATIENCE) -> int:
        """Send a signal and wait for the end. Returns the exit code."""
        self.process.send_signal(sign)
        return self.process.wait(within)

    def kill(self) -> None:
        """Make sure that nothing is left of it."""
        self.client.close()
        with suppress(ProcessLookupError):
            # Of the workers too, which outlive a server that is killed.
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def serving(command: str | Command, log: Path, **environment: str) -> Iterator[ServerProcess]:
    """A server that answers."""
    server = ServerProcess(command, log, **environment)
    try:
        server.wait_until_served()
        yield server
    finally:
        server.kill()


def python_path(*first: Path) -> str:
    """A PYTHONPATH that begins with these."""
    return os.pathsep.join(filter(None, [*map(str, first), os.environ.get("PYTHONPATH", "")]))
