"""What a URL says about TLS reaches the driver as it is, and nothing of ours turns it off."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from sqlalchemy import event

from asyncz.exceptions import StoreError
from asyncz.stores.mongo import MongoDBStore
from asyncz.stores.sqlalchemy import SQLAlchemyStore
from asyncz.stores.sqlalchemy_dialects import async_url, make_engine
from asyncz.testing.store_suite_tools import SuiteHost
from tests.services.databases import new_database

from .mongo_databases import mongodb_url
from .places import motor_is_warm

__all__ = ["mongodb_url", "motor_is_warm"]

CONTEXT = ssl.create_default_context()
MODES = ["disable", "require", "verify-ca", "verify-full"]


async def told_to_driver(url: str, **options: Any) -> dict[str, Any]:
    """The arguments that the driver would connect with."""
    engine = make_engine(async_url(url), {}, options)
    told: dict[str, Any] = {}

    @event.listens_for(engine.sync_engine, "do_connect")
    def note_down(_: Any, __: Any, arguments: Any, named: dict[str, Any]) -> None:
        told.update(named)
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        async with engine.connect():
            pass
    await engine.dispose()
    return told


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("driver", "name"), [("asyncpg", "ssl"), ("psycopg", "sslmode"), ("psycopg2", "ssl")]
)
async def test_the_sslmode_of_a_url_reaches_the_driver(driver: str, name: str, mode: str) -> None:
    told = await told_to_driver(f"postgresql+{driver}://me@127.0.0.1:1/jobs?sslmode={mode}")
    assert told[name] == mode


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "mysql+asyncmy", "mysql+aiomysql"])
async def test_a_context_that_is_given_reaches_the_driver(driver: str) -> None:
    given = {"connect_args": {"ssl": CONTEXT}}
    told = await told_to_driver(f"{driver}://me@127.0.0.1:1/jobs", **given)
    assert told["ssl"] is CONTEXT
    assert CONTEXT.verify_mode is ssl.CERT_REQUIRED
    assert CONTEXT.check_hostname


@pytest.mark.parametrize("backend", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy"])
async def test_a_server_that_cannot_be_verified_is_refused(backend: str) -> None:
    """Without TLS, or with a certificate that nobody knows."""
    with new_database(backend) as url:
        if url.get_backend_name() == "mysql":
            store = SQLAlchemyStore(url, engine_options={"connect_args": {"ssl": CONTEXT}})
        else:
            store = SQLAlchemyStore(url.update_query_dict({"sslmode": "verify-full"}))
        with pytest.raises(StoreError, match=r"(?i)'tasks'.*(ssl|certificate|tls)"):
            await store.start(SuiteHost(), "tasks")


async def test_mongodb_verifies_unless_its_url_says_otherwise(mongodb_url: str) -> None:
    asked = f"{mongodb_url}&tls=true&serverSelectionTimeoutMS=300"
    store = MongoDBStore(uri=asked, database="tls")
    with pytest.raises(StoreError, match=r"(?i)'tasks'.*(ssl|tls|connection)"):
        await store.start(SuiteHost(), "tasks")
