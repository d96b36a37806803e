"""What the tests of the stores share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

# Before the suite is imported: its failures then show the values that were compared.
pytest.register_assert_rewrite(
    "asyncz.testing.store_suite_basics",
    "asyncz.testing.store_suite_persistence",
    "asyncz.testing.store_suite_quarantine",
    "asyncz.testing.store_suite_queries",
    "asyncz.testing.store_suite_schedule",
)

from asyncz.clock import SystemClock  # noqa: E402
from asyncz.stores.file_index import name_of  # noqa: E402
from asyncz.testing.store_suite_tools import SuiteHost  # noqa: E402

IN_MEMORY = Path("/dev/shm")  # noqa: S108  # thousands of fsyncs would take their time elsewhere


class SetClock(SystemClock):
    """The machine's clock, but its monotonic one goes on only when told."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class SetHost(SuiteHost):
    """A host whose clock can be set."""

    clock: SetClock = field(default_factory=SetClock)


@pytest.fixture
def host() -> SetHost:
    return SetHost()


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a store may make its directory `tasks`."""
    parent = Path(mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    yield parent / "tasks"
    rmtree(parent)


def file_of(directory: Path, task_id: str) -> Path:
    return directory / name_of(task_id, ".task")


def make_old(directory: Path) -> None:
    """As if the files had been there for long."""
    for file in directory.glob("*.task"):
        os.utime(file, (1_000_000_000, 1_000_000_000))
