"""Server processes of the tests' own: started as an ordinary user, killed, frozen, thawed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import pytest

__all__ = ["ServerProcess", "free_port", "give_up"]

IN_MEMORY = Path("/dev/shm")  # noqa: S108  # where flushing takes no time
PATIENCE = 30.0


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def give_up(how: str) -> None:
    """Skip the test, or fail it where CI is set: a server that it needs cannot be had."""
    if os.environ.get("CI"):
        pytest.fail(how)
    pytest.skip(how)


class ServerProcess(ABC):
    """A server on a free loopback port. Its data outlives `kill` and `start`.

    Args:
        users: Users to run it as, when this is root; the first that there is.
    """

    def __init__(self, *users: str) -> None:
        self._user = _ordinary_user(*users)
        self.directory = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.directory, self._user)

    @property
    @abstractmethod
    def url(self) -> str:
        """Of its only database, without a driver."""

    @abstractmethod
    def make_data(self) -> None:
        """Make its data directory, where there is none."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    def start(self) -> Self:
        """Start it, and return when it answers."""
        try:
            self.make_data()
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    user=self._user, cwd=self.directory,
                )  # fmt: skip
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, as when the machine's memory is out."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and says nothing."""
        self._send_to_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        self._send_to_all(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command: str) -> None:
        """Run a program to its end as the server's user."""
        done = subprocess.run(
            command, user=self._user, cwd=self.directory, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")

    def _send_to_all(self, sign: signal.Signals) -> None:
        for number in self._family():
            with suppress(ProcessLookupError):  # one that served a connection has ended meanwhile
                os.kill(number, sign)

    def _family(self) -> list[int]:
        """The server's process and those that it started."""
        assert self._process is not None, "it is not running"
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        return [number, *map(int, children)]

    def _wait(self) -> None:
        ends = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > ends:
                log = (self.directory / "log").read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"{type(self).__name__} did not get ready:\n{log}")
            time.sleep(0.02)


def _ordinary_user(*names: str) -> str | None:
    if os.getuid() != 0:
        return None
    for name in (*names, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("There is no user but root.")
