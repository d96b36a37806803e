"""Tasks on a Redis or Valkey server."""

from __future__ import annotations

try:
    # Here, and not in the modules that use it: this is the first that is imported.
    import redis.asyncio  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "RedisStore needs the package redis; pip install 'asyncz[redis]'.", name=exc.name
    ) from exc

import asyncio
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from functools import partial
from logging import Logger, getLogger
from typing import Any
from uuid import uuid4

from asyncz.clock import SystemClock
from asyncz.enums import RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import Run, RunQuery
from asyncz.serializers.json import to_microseconds
from asyncz.stores.base import NO_IDS, ExpectingTasks
from asyncz.stores.cluster import (
    Attended,
    ClusterStore,
    Fired,
    Firing,
    Look,
    Node,
    NodeRecord,
    OpenRun,
    Pulse,
    Reaped,
    RunEnd,
    RunRef,
)
from asyncz.stores.expecting import expecting_tasks
from asyncz.stores.records import PAGE, RecordStore
from asyncz.stores.redis_batches import RedisBatches
from asyncz.stores.redis_calls import RedisCalls
from asyncz.stores.redis_find import BYTES, fetch_expecting, find_rows
from asyncz.stores.redis_options import RedisOptions
from asyncz.stores.redis_pulse import RedisPulse, twin_of
from asyncz.stores.redis_rows import (
    PLACE_LENGTH,
    encode_key,
    encode_place,
    encode_summary,
    encode_time,
    first_behind,
    pack_step,
    read_row,
    read_rows,
)
from asyncz.stores.redis_run_rows import RunTexts
from asyncz.stores.redis_runs import RedisRuns
from asyncz.stores.redis_server import check_durability, open_keys
from asyncz.stores.rows import Place, Row, Step, StoredRow
from asyncz.tasks.base import Task
from asyncz.tasks.query import TaskQuery

__all__ = ["RedisStore"]

HANDED_OUT_MS = 1_000
"""For how long what was handed out last is remembered. It can be had again when nobody asks for
more for so long, or all was handed out, so that the pages of a worker that was killed are not
waited for."""


class RedisStore(RedisOptions, RecordStore, ClusterStore):
    """Keeps tasks on a Redis server, 6.2 or newer, or a Valkey server.

    Each change is one script, so it is made as a whole or not at all, and once, also when the
    connection breaks while it is made: it is then repeated, and the server knows a repetition.
    Several schedulers may use the same keys. If the records are encrypted, so is what is said of
    runs: reasons, errors, tracebacks, their own notes, and who has asked to cancel one.

    Args:
        database: The number of the database.
        tasks_key: Of the hash of records. Other keys are named after it.
        run_times_key: Of the sorted set of run times. On a cluster, both need the same text in
            braces.
        url: `redis://user:password@host:port/database`; `rediss` for TLS, or `unix`.
        host, port, username, password, unix_socket_path, ssl, ssl_ca_certs, ssl_certfile,
            ssl_keyfile, ssl_password, ssl_check_hostname, client_name, health_check_interval:
            Instead of a url. Left out: localhost, port 6379.
        client: Instead of both: a `redis.asyncio.Redis` or `RedisCluster`. It is used on the
            event loop that is running here, or, if none is, on the one that starts the store;
            and it is not closed.
        cluster: Whether the server is a cluster.
        require_durable: Do not start on a server that may lose tasks.
        timeout: Seconds for one try of a call.
        retry_timeout: Seconds for which a change is tried again whose answer was lost.
        serializer, allowed_callables: See `SerializingStore`.

    Raises:
        ConfigurationError: Options that do not go together.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.check_options()
        self._loop_of_client: asyncio.AbstractEventLoop | None = None
        if self.client is not None:
            with suppress(RuntimeError):
                self._loop_of_client = asyncio.get_running_loop()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._asks_as = uuid4().bytes
        self._calls_in_use: RedisCalls | None = None
        self._batches: RedisBatches | None = None
        self._runs_in_use: RedisRuns | None = None

    async def _open(self) -> None:
        own_loop = asyncio.get_running_loop()
        client = self.client if self.client is not None else self.make_client()
        calls = RedisCalls(
            client, self._loop_of_client or own_loop, self.keys, str(self.alias),
            self.timeout, self.retry_timeout,
        )  # fmt: skip
        self._calls_in_use = calls
        self._batches = RedisBatches(calls)
        texts = RunTexts(
            str(self.alias), self.keeps_secret, self.conditional_encrypt, self.conditional_decrypt
        )
        self._runs_in_use = RedisRuns(
            calls, self.host.clock, texts, self._task_of, self._quarantine.__contains__
        )
        is_cluster = self.check_cluster(client)
        await open_keys(calls)
        await check_durability(calls, self.require_durable, self._logger, is_cluster)
        await self._batches.finish()

    async def _close(self) -> None:
        calls, self._calls_in_use = self._calls_in_use, None
        self._batches = self._runs_in_use = None
        if calls is None:
            return
        try:
            await calls.forget()
        finally:
            if self.client is None:
                await calls.client.aclose()

    async def _insert(self, rows: Sequence[Row]) -> str | None:
        return await self._started_batches.insert(rows)

    async def _replace(self, row: Row, before: StoredRow | None = None) -> bool:
        expected = b"" if before is None else encode_time(before.next_run)
        values = encode_time(row.next_run), row.data, encode_summary(row.summary), expected
        return bool(await self._calls("replace", encode_key(row.key), *values) == b"1")

    async def _remove(self, keys: Sequence[str]) -> int:
        return int(await self._calls("remove", *map(encode_key, keys))) if keys else 0

    async def _set_aside(self, row: StoredRow) -> bool:
        place = encode_place(row.next_run, row.order)
        return bool(await self._calls("set_aside", encode_key(row.key), place, row.data) == b"1")

    async def _fetch(self, key: str) -> StoredRow | None:
        name = encode_key(key)
        data, place = await self._calls("fetch", name)
        if data is None and place is None:
            return None
        if place is None:
            # Somebody put a record there by hand; without a place it is never due.
            place = encode_place(None, 0)
        return read_row(place[:PLACE_LENGTH] + name, data or b"")

    async def _fetch_page(
        self, after: Place | None, limit: int, until: int | None = None
    ) -> list[StoredRow]:
        end = b"+" if until is None else b"(" + encode_time(until + 1)
        rows: list[StoredRow] = []
        more = True
        while more and len(rows) < limit:
            begin = first_behind(rows[-1].place if rows else after)
            page = await self._calls("page", begin, end, limit - len(rows), BYTES)
            unfinished, more, packed = page
            rows += read_rows(packed)
            if unfinished:
                await self._started_batches.finish()
        return rows

    async def _advance(self, steps: Sequence[Step]) -> list[bool]:
        if not steps:
            return []
        made = await self._calls("advance", b"".join(map(pack_step, steps)))
        return [digit == ord("1") for digit in made]

    async def _count(self) -> tuple[int, int]:
        scheduled, paused = await self._calls("count")
        return scheduled, paused

    async def _find(
        self, query: TaskQuery, exclude: Set[str]
    ) -> tuple[list[StoredRow], int] | None:
        return await find_rows(self._calls, query, exclude)

    async def get_expecting_tasks(self, rest: Any = None) -> ExpectingTasks:
        return await expecting_tasks(self, partial(fetch_expecting, self._calls), rest)

    # Sharing it.

    @property
    def hands_out(self) -> bool:
        return True

    async def get_due_tasks_apart(
        self, now: datetime, limit: int, exclude: Set[str] = NO_IDS
    ) -> tuple[list[Task], bool]:
        end = b"(" + encode_time(to_microseconds(now) + 1)
        given = self._asks_as, end, min(limit, PAGE), BYTES, HANDED_OUT_MS
        unfinished, is_all, packed = await self._calls("page_apart", *given)
        if unfinished:
            await self._started_batches.finish()
        due = await self._tasks_but(set(map(self.key_of, exclude)), read_rows(packed))
        return due, bool(is_all)

    async def join_node(self, node: Node, lease: float) -> None:
        await self._runs.join(node, lease)

    async def renew_node(self, node_id: str, lease: float, running: int) -> bool:
        return await self._runs.renew(node_id, lease, running)

    async def leave_node(self, node_id: str) -> None:
        await self._runs.leave(node_id)

    async def get_nodes(self) -> list[NodeRecord]:
        return await self._runs.nodes()

    def pulse(self, node_id: str) -> Pulse | None:
        if not isinstance(self.host.clock, SystemClock):
            return None
        return RedisPulse(node_id, self._make_twin, self.keys, str(self.alias), self.timeout)

    @property
    def announces(self) -> bool:
        return True

    async def announce(self, node_id: str) -> None:
        await self._calls.command("PUBLISH", self.keys.channel.decode(), node_id)

    async def look(self) -> Look:
        seen = await self._runs.look()
        if seen.has_batches:
            await self._started_batches.finish()
        return Look(seen.now, seen.next_run_time, seen.unowned > 0, seen.attend_at)

    async def fire(self, node_id: str, claim: str, firings: Sequence[Firing]) -> list[Fired]:
        if any(firing.forget for firing in firings):
            self._count_again_at = float("-inf")
        return await self._runs.fire(node_id, claim, firings)

    async def start_runs(self, node_id: str, refs: Sequence[RunRef]) -> list[bool]:
        return await self._runs.start(node_id, refs)

    async def finish_runs(self, node_id: str, ends: Sequence[RunEnd]) -> list[bool]:
        return await self._runs.finish(node_id, ends)

    async def release_runs(self, node_id: str, refs: Sequence[RunRef]) -> None:
        await self._runs.release(node_id, refs)

    async def get_own_runs(self, node_id: str) -> list[OpenRun]:
        return await self._runs.own_runs(node_id)

    async def reap(
        self, node_id: str, *, bury: datetime | None, max_attempts: int, limit: int = 100
    ) -> Reaped:
        return await self._runs.reap(node_id, bury, max_attempts, limit)

    async def note_runs(
        self, node_id: str, notes: Sequence[tuple[RunRef, Mapping[str, Any]]]
    ) -> list[bool]:
        return await self._runs.attempts.note(node_id, notes)

    async def attend(self, node_id: str, limit: int = 100) -> Attended:
        return await self._runs.attempts.attend(node_id, limit)

    async def cancel_run(self, task_id: str, scheduled_time: datetime, by: str) -> RunState | None:
        return await self._runs.attempts.cancel(task_id, scheduled_time, by)

    async def get_runs(self, query: RunQuery) -> list[Run]:
        return await self._runs.runs(query)

    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        return await self._runs.count_active(task_ids)

    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        return await self._runs.last_runs(task_ids)

    async def prune_runs(
        self,
        task_id: str,
        states: frozenset[RunState],
        keep: int,
        before: datetime,
        limit: int = 1_000,
    ) -> int:
        return await self._runs.attempts.prune(task_id, states, keep, before, limit)

    async def forget_runs(self, before: datetime, limit: int = 1_000) -> int:
        return await self._runs.forget(before, limit)

    def _make_twin(self) -> Any:
        return self.make_client() if self.client is None else twin_of(self.client)

    def _task_of(self, row: StoredRow) -> Task:
        return self._started_codec.build(self._unpack(row))

    @property
    def _logger(self) -> Logger:
        return self.host.loggers.get("asyncz.stores") or getLogger("asyncz.stores")

    @property
    def _calls(self) -> RedisCalls:
        if self._calls_in_use is None:
            raise StoreError(f"The store {self.alias!r} ({type(self).__name__}) is not started.")
        return self._calls_in_use

    @property
    def _runs(self) -> RedisRuns:
        if self._runs_in_use is None:
            raise StoreError(f"The store {self.alias!r} ({type(self).__name__}) is not started.")
        return self._runs_in_use

    @property
    def _started_batches(self) -> RedisBatches:
        if self._batches is None:
            raise StoreError(f"The store {self.alias!r} ({type(self).__name__}) is not started.")
        return self._batches
