"""A store whose package is not installed says which extra brings it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = {
    "redis": ("RedisStore", ["redis"], "RedisStore needs the package redis; pip install '{}'."),
    "mongo": (
        "MongoDBStore",
        ["pymongo", "bson", "motor"],
        "MongoDBStore needs the package pymongo; pip install '{}'.",
    ),
    "sqlalchemy": (
        "SQLAlchemyStore",
        ["sqlalchemy"],
        "SQLAlchemyStore needs SQLAlchemy 2 with greenlet; pip install '{}'.",
    ),
}


def error_without(packages: list[str], code: str) -> str:
    """The last line of what Python says to this, where these are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{blocked}\n{code}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("extra", BLOCKED)
def test_the_error_names_the_extra(extra: str) -> None:
    name, packages, text = BLOCKED[extra]
    error = error_without(packages, f"from asyncz.stores import {name}")
    assert error == "ImportError: " + text.format(f"asyncz[{extra}]")


@pytest.mark.parametrize("extra", BLOCKED)
def test_so_does_that_of_a_store_by_its_alias(extra: str) -> None:
    _, packages, text = BLOCKED[extra]
    code = f"import asyncz; asyncz.AsyncIOScheduler(stores={{'default': {{'type': {extra!r}}}}})"
    assert error_without(packages, code) == "ImportError: " + text.format(f"asyncz[{extra}]")


@pytest.mark.parametrize(
    ("url", "driver", "install"),
    [
        ("postgresql+psycopg://h/d", "psycopg", "'psycopg[binary]'"),
        ("mysql+aiomysql://h/d", "aiomysql", "aiomysql"),
        ("postgresql+asyncpg://h/d", "asyncpg", "'asyncz[postgresql]'"),
    ],
)
def test_a_driver_that_the_url_names_is_what_is_to_be_installed(
    url: str, driver: str, install: str
) -> None:
    code = f"from asyncz.stores import SQLAlchemyStore; SQLAlchemyStore({url!r})"
    error = error_without([driver], code)
    assert error == f"ImportError: {driver} is not installed; pip install {install}"


def test_sqlalchemy_without_greenlet_is_not_enough() -> None:
    error = error_without(["greenlet"], "import asyncz.stores.sqlalchemy")
    assert "with greenlet; pip install 'asyncz[sqlalchemy]'" in error
