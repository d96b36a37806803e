"""What can be said about the Redis server of a store, and the client made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from asyncz.exceptions import ConfigurationError
from asyncz.stores.redis_keys import RedisKeys, tag_of

__all__ = ["RedisOptions"]

SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
CONNECTION = frozenset(
    {
        "url", "server_host", "port", "username", "password", "unix_socket_path", "ssl",
        "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_check_hostname",
        "client_name", "health_check_interval",
    }
)  # fmt: skip
ALIASES = {"server_host": "host"}
KEY = r"^[^{}\x00-\x1f\x7f]*(\{[^{}\x00-\x1f\x7f]+\}[^{}\x00-\x1f\x7f]*)?$"
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=KEY)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RedisOptions(BaseModel):
    """The options of `RedisStore` that are about the server; see there."""

    # The value of a wrong option may be a password.
    model_config = ConfigDict(hide_input_in_errors=True, populate_by_name=True)

    client: Any = Field(default=None, repr=False, exclude=True)
    url: SecretStr | None = None
    database: Annotated[int, Field(ge=0, le=2**31)] = 0
    tasks_key: Key = "{asyncz}.tasks"
    run_times_key: Key = "{asyncz}.run_times"
    # Under another name here: a store's `host` is the scheduler.
    server_host: str | None = Field(default=None, alias="host")
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    username: str | None = None
    password: SecretStr | None = None
    unix_socket_path: Path | None = None
    ssl: bool = False
    ssl_ca_certs: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: SecretStr | None = None
    ssl_check_hostname: bool = True
    client_name: str | None = None
    health_check_interval: Annotated[int, Field(ge=0)] = 30
    cluster: bool = False
    require_durable: bool = False
    timeout: Seconds = 5.0
    retry_timeout: Seconds = 25.0

    def check_options(self) -> None:
        """Raise ConfigurationError if they do not go together. No secret is in its text."""
        given = sorted(ALIASES.get(name, name) for name in CONNECTION & self.model_fields_set)
        if self.client is not None:
            self._check_client(given)
        elif self.url is not None:
            if len(given) > 1:
                rest = ", ".join(name for name in given if name != "url")
                raise ConfigurationError(f"RedisStore: put {rest} into the url, or leave url out.")
            self._check_url(self.url.get_secret_value())
        elif self.unix_socket_path is not None and {"host", "port", "ssl"} & set(given):
            raise ConfigurationError("RedisStore: give unix_socket_path, or host, port and ssl.")
        if self.cluster and self.database:
            raise ConfigurationError("RedisStore: a cluster has the database 0 only.")
        names = self.keys
        if len(set(names)) < len(names):
            raise ConfigurationError("RedisStore: tasks_key and run_times_key must be different.")

    @property
    def keys(self) -> RedisKeys:
        """The names of all keys of the store, but those of single calls."""
        return RedisKeys.of(self.tasks_key, self.run_times_key)

    def make_client(self) -> Any:
        """A client for the options. It does not repeat anything: that is for `RedisCalls`."""
        options = self._client_options()
        kind = RedisCluster if self.cluster else Redis
        if self.url is not None:
            url = self._check_url(self.url.get_secret_value())
            if "database" in self.model_fields_set:
                options["db"] = self.database
            return kind.from_url(url, **options)
        if not self.cluster:
            options["db"] = self.database
        return kind(**options)

    def check_cluster(self, client: Any) -> bool:
        """Whether it is a cluster's. ConfigurationError if the keys would be on several nodes."""
        is_cluster = isinstance(client, RedisCluster)
        if is_cluster and len({key_slot(key) for key in self.keys}) > 1:
            raise ConfigurationError(
                f"RedisStore: tasks_key {self.tasks_key!r} and run_times_key "
                f"{self.run_times_key!r} would be on different nodes of the cluster; give both the "
                f"same text in braces, such as '{{{tag_of(self.tasks_key)}}}.tasks'."
            )
        return is_cluster

    def _check_client(self, given: list[str]) -> None:
        beside = [*given, *sorted({"cluster", "database"} & self.model_fields_set)]
        if beside:
            raise ConfigurationError(
                f"RedisStore: {', '.join(beside)} cannot be given beside client, which has its own."
            )
        if not isinstance(self.client, Redis | RedisCluster):
            kind = f"{type(self.client).__module__}.{type(self.client).__name__}"
            raise ConfigurationError(
                "RedisStore: client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, "
                f"not a {kind}."
            )

    def _check_url(self, url: str) -> str:
        """The url as the client wants it. No part of a wrong one is shown: it has a password."""
        scheme, separator, rest = url.partition("://")
        if not separator or scheme.lower() not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise ConfigurationError(f"RedisStore: url must begin with one of {known} and '://'.")
        known_url = f"{SCHEMES[scheme.lower()]}://{rest}"
        try:
            parsed = parse_url(known_url)
        except (TypeError, ValueError):
            raise ConfigurationError(
                "RedisStore: url cannot be read; it must look like redis://user:password@host:6379"
                "/0, with %XX in place of special characters in the user and the password."
            ) from None
        if "database" in self.model_fields_set and parsed.get("db", self.database) != self.database:
            raise ConfigurationError(
                "RedisStore: url and database name different databases; leave database out."
            )
        return known_url

    def _client_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": None,  # each try as a whole has one, which costs less than several
            "socket_connect_timeout": self.timeout,
            "health_check_interval": self.health_check_interval,
            "retry": Retry(NoBackoff(), 0),
        }
        url = self.url.get_secret_value().lower() if self.url else ""
        if not url:
            options |= self._address()
        if self.ssl or url.startswith(("rediss:", "valkeys:")):
            options["ssl_check_hostname"] = self.ssl_check_hostname
        return options

    def _address(self) -> dict[str, Any]:
        secrets = {"password": self.password, "ssl_password": self.ssl_password}
        files = {
            "unix_socket_path": self.unix_socket_path,
            "ssl_ca_certs": self.ssl_ca_certs,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
        }
        options: dict[str, Any] = {
            "host": self.server_host or "localhost",
            "port": self.port or 6379,
            "username": self.username,
            "client_name": self.client_name,
            "ssl": self.ssl,
        }
        options |= {name: secret.get_secret_value() for name, secret in secrets.items() if secret}
        options |= {name: str(path) for name, path in files.items() if path}
        return {name: value for name, value in options.items() if value is not None}
