"""The options of a Redis store: what goes together, and that no secret of them is ever shown."""

from __future__ import annotations

import logging
import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from asyncz.exceptions import ConfigurationError, StoreError
from asyncz.schedulers.plugins import PluginRegistry
from asyncz.stores.redis import RedisStore
from asyncz.testing.store_suite_tools import SuiteHost, raises
from tests.services.redis import free_port

CANARY = "c4n4ry-s3cr3t"
CANARY_URL = f"redis://user:{CANARY}@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://localhost"}, ("url", "redis", "unix")),
        ({"url": "localhost:6379"}, ("url",)),
        ({"url": "redis://localhost/0", "host": "other"}, ("put host into", "url")),
        ({"url": "redis://localhost/0", "password": CANARY}, ("password", "url")),
        ({"url": "redis://localhost/1", "database": 2}, ("database",)),
        ({"unix_socket_path": "/run/redis.sock", "port": 6379}, ("unix_socket_path",)),
        ({"cluster": True, "database": 1}, ("cluster", "database")),
        ({"tasks_key": "same", "run_times_key": "same"}, ("different",)),
        ({"tasks_key": "{a}.t", "run_times_key": "{a}.t:places"}, ("different",)),
        ({"client": object()}, ("client", "builtins.object")),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with raises(ConfigurationError, "RedisStore", *words):
        RedisStore(**options)


@pytest.mark.parametrize("option", ["url", "host", "password", "database", "cluster", "ssl"])
def test_a_client_has_its_own_options(option: str) -> None:
    values = {"url": "redis://", "database": 1, "cluster": True, "ssl": True}
    with raises(ConfigurationError, "client", option):
        RedisStore(client=Redis(), **{option: values.get(option, "x")})


@pytest.mark.parametrize(
    "options",
    [
        {"database": -1},
        {"port": 0},
        {"tasks_key": ""},
        {"tasks_key": "a{b}{c}"},
        {"tasks_key": "a{}"},
        {"tasks_key": "a\n"},
        {"run_times_key": "x" * 201},
        {"timeout": 0},
        {"retry_timeout": float("inf")},
        {"no_such_option": 1},
        {"password": [CANARY]},
        {"url": [CANARY_URL]},
        {"host": {"x": CANARY}},
    ],
)
def test_a_wrong_value_is_refused_and_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        RedisStore(**options)
    assert CANARY not in str(caught.value)
    with pytest.raises(ConfigurationError, match="redis") as found:
        PluginRegistry().create("store", "redis", options)
    assert CANARY not in str(found.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{CANARY}@host:port/0",
        f"redis://user:{CANARY}/x#y@host/0",
        f"redis://user:{CANARY}@[host/0",
        f"redis://host/0?socket_timeout={CANARY}",
        f"{CANARY}://host",
    ],
)
def test_no_part_of_a_url_that_cannot_be_read_is_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url=url)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def secretive() -> dict[str, Any]:
    port = free_port()
    return {
        "a url": {"url": f"redis://user:{CANARY}@127.0.0.1:{port}/0"},
        "options": {"host": "127.0.0.1", "port": port, "username": "u", "password": CANARY},
        "a client": {"client": Redis(port=port, password=CANARY)},
    }


@pytest.mark.parametrize("name", list(secretive()))
async def test_a_password_is_never_shown(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = RedisStore(**secretive()[name])
    shown = [repr(store), str(store), repr(store.model_dump()), store.model_dump_json()]
    with pytest.raises(StoreError, match="'tasks'") as caught:
        await store.start(SuiteHost(), "tasks")
    shown += ["".join(traceback.format_exception(caught.value)), caplog.text]
    for text in shown:
        assert CANARY not in text


@pytest.mark.parametrize(
    ("scheme", "encrypted"),
    [("redis", False), ("rediss", True), ("valkey", False), ("valkeys", True), ("REDIS", False)],
)
def test_a_url_may_be_of_redis_or_valkey(scheme: str, encrypted: bool) -> None:
    client = RedisStore(url=f"{scheme}://user:p%40ss@example.org:7000/3").make_client()
    given = client.connection_pool.connection_kwargs
    assert {
        "host": "example.org",
        "port": 7000,
        "db": 3,
        "password": "p@ss",
    }.items() <= given.items()
    assert ("SSL" in client.connection_pool.connection_class.__name__) == encrypted


@pytest.mark.parametrize("options", [{"url": "rediss://example.org"}, {"ssl": True}])
def test_the_name_and_certificate_of_a_server_are_checked(options: dict[str, Any]) -> None:
    client = RedisStore(**options).make_client()
    context = client.connection_pool.make_connection().ssl_context
    assert context.check_hostname
    assert context.cert_reqs == ssl.CERT_REQUIRED


def test_options_reach_the_client() -> None:
    store = RedisStore(
        host="example.org", port=7000, username="me", password=CANARY, database=5,
        client_name="asyncz", timeout=2, health_check_interval=7,
    )  # fmt: skip
    given = store.make_client().connection_pool.connection_kwargs
    expected = {
        "host": "example.org", "port": 7000, "username": "me", "password": CANARY, "db": 5,
        "client_name": "asyncz", "socket_connect_timeout": 2, "health_check_interval": 7,
    }  # fmt: skip
    assert expected.items() <= given.items()


def test_a_database_can_be_given_beside_a_url_without_one() -> None:
    store = RedisStore(url="redis://example.org", database=4)
    assert store.make_client().connection_pool.connection_kwargs["db"] == 4


def test_a_socket_can_be_given() -> None:
    client = RedisStore(unix_socket_path=Path("/run/redis.sock"), database=2).make_client()
    given = client.connection_pool.connection_kwargs
    assert (given["path"], given["db"]) == ("/run/redis.sock", 2)
