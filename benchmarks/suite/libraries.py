"""The libraries compared, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """One column of every comparison.

    `version` is the release from PyPI that an environment of its own is made for; None stands for
    asyncz as it is in this tree, under the interpreter that runs the suite.
    """

    key: str
    title: str
    adapter: str
    distribution: str
    version: str | None
    package: str
    scheduler: str
    also: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """What to install, pinned where the comparison is with a certain release."""
        if self.version is None:
            return ()
        return (f"{self.distribution}=={self.version}", *self.also)


SYNCHRONOUS_DRIVERS = ("sqlalchemy[asyncio]>=2", "psycopg2-binary", "pymysql", "redis", "pymongo")

ASYNCZ = Library(
    key="asyncz",
    title="asyncz (here)",
    adapter="asyncz_here",
    distribution="asyncz",
    version=None,
    package="import asyncz",
    scheduler="from asyncz.schedulers import AsyncIOScheduler",
)
UPSTREAM = Library(
    key="asyncz-0.17",
    title="asyncz 0.17.2",
    adapter="asyncz_upstream",
    distribution="asyncz",
    version="0.17.2",
    package="import asyncz",
    scheduler="from asyncz.schedulers import AsyncIOScheduler",
    also=SYNCHRONOUS_DRIVERS,
)
APSCHEDULER_3 = Library(
    key="apscheduler-3",
    title="APScheduler 3.11.3",
    adapter="apscheduler3",
    distribution="APScheduler",
    version="3.11.3",
    package="import apscheduler",
    scheduler="from apscheduler.schedulers.asyncio import AsyncIOScheduler",
    also=SYNCHRONOUS_DRIVERS,
)
APSCHEDULER_4 = Library(
    key="apscheduler-4",
    title="APScheduler 4.0.0a6",
    adapter="apscheduler4",
    distribution="APScheduler",
    version="4.0.0a6",
    package="import apscheduler",
    scheduler="from apscheduler import AsyncScheduler",
    # It imports sniffio and does not ask for it.
    also=("sniffio", "sqlalchemy[asyncio]>=2", "aiosqlite", "asyncpg", "asyncmy", "pymongo"),
)
LIBRARIES = (ASYNCZ, UPSTREAM, APSCHEDULER_3, APSCHEDULER_4)
PEERS = LIBRARIES[1:]
