"""The Redis store against the suite for stores that several schedulers share, on real servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from asyncz.serializers import EncryptedSerializer
from asyncz.stores.redis import RedisStore
from asyncz.testing.store_suite import ClusterStoreConformance
from asyncz.testing.store_suite_cluster import ClusterBase
from asyncz.testing.store_suite_takeover import TakingOver
from tests.services.redis import RedisClusterServers, RedisServer, new_keys, valkey_program

KEY = "a key for the tests, long enough for that"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisClusterServers]:
    servers = RedisClusterServers().start()
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    server = RedisServer(valkey_program()).start()
    yield server
    server.close()


class TestSharedRedisStore(ClusterStoreConformance):
    @pytest.fixture(autouse=True)
    def set_options(self) -> Iterator[None]:
        with new_keys() as self.options:
            yield

    async def make_store(self) -> RedisStore:
        return RedisStore(**self.options)

    async def another(self, store: Any) -> RedisStore:
        return await self.make_store()


class TestSharedEncryptedRedisStore(TestSharedRedisStore):
    async def make_store(self) -> RedisStore:
        return RedisStore(**self.options, serializer=EncryptedSerializer(KEY))


class OnACluster(ClusterBase):
    """A client of a cluster takes long to connect, three times for each case."""

    @pytest.fixture(autouse=True)
    def set_options(self, cluster: RedisClusterServers) -> None:
        tag = os.urandom(4).hex()
        self.options = {
            "url": cluster.url,
            "cluster": True,
            "tasks_key": f"{{{tag}}}.tasks",
            "run_times_key": f"{{{tag}}}.run_times",
        }

    async def make_store(self) -> RedisStore:
        return RedisStore(**self.options)

    async def another(self, store: Any) -> RedisStore:
        return await self.make_store()


class TestTakingOverOnACluster(OnACluster, TakingOver):
    """Which has each kind of script in it."""


@pytest.mark.nightly
class TestSharedRedisStoreOnACluster(OnACluster, ClusterStoreConformance):
    """All of it."""


@pytest.mark.nightly
class TestSharedRedisStoreOnValkey(ClusterStoreConformance):
    @pytest.fixture(autouse=True)
    def set_options(self, valkey: RedisServer) -> Iterator[None]:
        with new_keys(valkey.url) as self.options:
            yield

    async def make_store(self) -> RedisStore:
        return RedisStore(**self.options)

    async def another(self, store: Any) -> RedisStore:
        return await self.make_store()
