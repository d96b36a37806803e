"""The scheduler under uvicorn and hypercorn, as processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import COMMANDS, PATIENCE, ServerProcess, serving

SERVERS = ["uvicorn", "hypercorn"]
SCHEDULERS = ["NativeAsyncIOScheduler", "AsyncIOScheduler"]
PLACES = ["handler", "thread", "task", "listener"]
EXIT_CODES = {"uvicorn": -signal.SIGTERM, "hypercorn": 0}
"""After SIGTERM. uvicorn shuts down in order and then lets the signal take its effect."""


# Each server with both schedulers; the other ways to start it with one.
COMBINATIONS = [
    (command, scheduler)
    for command in COMMANDS
    for scheduler in SCHEDULERS
    if command in SERVERS or scheduler == SCHEDULERS[0]
]


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=COMBINATIONS, ids=" ".join)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    command, kind = request.param
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(command, log, SCHEDULER=kind) as started:
        yield started


def test_requests_find_the_scheduler_running(server: ServerProcess) -> None:
    assert server.client.get("/").text.endswith("running")


@pytest.mark.parametrize("place", PLACES)
def test_a_task_runs_wherever_it_was_added(server: ServerProcess, place: str) -> None:
    server.client.post(f"/add/{place}").raise_for_status()
    assert server.client.get(f"/ran/{place}").text == "ran"


def test_uvicorn_on_uvloop_serves_it(tmp_path: Path) -> None:
    with serving("uvicorn with uvloop", tmp_path / "log") as server:
        assert server.client.get("/").text == "uvloop running"


@pytest.mark.parametrize("command", SERVERS)
def test_with_wait_a_task_finishes_after_sigterm(
    command: str, scheduler: str, tmp_path: Path
) -> None:
    with serving(command, tmp_path / "log", SCHEDULER=scheduler, WAIT="1") as server:
        server.start_long_task()
        assert server.end(signal.SIGTERM) == EXIT_CODES[command]
        assert "the task has finished" in server.log
        assert "the shutdown task has run" in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("command", [*SERVERS, "uvicorn.run", "uvicorn with uvloop"])
def test_without_wait_a_task_is_cut_off_by_sigterm_and_cleans_up(
    command: str, scheduler: str, tmp_path: Path
) -> None:
    with serving(command, tmp_path / "log", SCHEDULER=scheduler) as server:
        server.start_long_task()
        server.end(signal.SIGTERM, within=2)
        assert "the task was cut off" in server.log
        assert "the task has cleaned up" in server.log
        assert "the shutdown task has run" in server.log
        assert "Traceback" not in server.log


@pytest.mark.parametrize("command", [*SERVERS, "uvicorn with --workers 1"])
def test_ctrl_c_ends_the_server_in_order(command: str, tmp_path: Path) -> None:
    with serving(command, tmp_path / "log") as server:
        server.start_long_task()
        assert server.end(signal.SIGINT, within=2) == 0
        assert "the task has cleaned up" in server.log
        assert "Traceback" not in server.log


# The process that supervises hypercorn's workers ends with 0 whatever became of them.
@pytest.mark.parametrize("command", ["uvicorn", "uvicorn.run", "hypercorn with --workers 0"])
def test_a_store_that_fails_at_start_ends_the_server_with_an_error(
    command: str, scheduler: str, tmp_path: Path
) -> None:
    assert _run_with_broken_store(command, scheduler, tmp_path / "log") != 0


def test_a_store_that_fails_at_start_ends_the_workers_of_hypercorn(
    scheduler: str, tmp_path: Path
) -> None:
    _run_with_broken_store("hypercorn", scheduler, tmp_path / "log")


def _run_with_broken_store(command: str, scheduler: str, log: Path) -> int:
    server = ServerProcess(command, log, SCHEDULER=scheduler, BROKEN_STORE="1")
    try:
        exit_code = server.process.wait(PATIENCE)
        assert "nobody listens on port 6379" in server.log
        return exit_code
    finally:
        server.kill()
