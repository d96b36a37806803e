"""Calls to a Redis server: repeated when the connection fails, and yet made once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asyncz.exceptions import StoreError, StoreTimeoutError
from asyncz.stores.redis_keys import RedisKeys, new_id
from asyncz.stores.redis_scripts import Script, scripts

__all__ = ["RedisCalls"]

AT_ONCE = 8
"""Calls that are under way at a time: the server makes one after the other anyway."""
PATIENCE = 1.0
"""Seconds for which a call is repeated that surely changed nothing yet."""
FIRST_DELAY = 0.02
LAST_DELAY = 1.0
FAREWELL = 1.0
STEPS = "advance"
"""The call that gets the answer it would have had when it is made again after an error: who makes
steps has to know of each whether it was the one who made it."""
MOST_UNANSWERED = 64
KEPT_CLAIMS = 32
"""Claims whose answers are known; more are only if they are not answered yet."""

PASSING = (
    BusyLoadingError, ClusterDownError, MasterDownError, MaxConnectionsError, ReadOnlyError,
    TryAgainError,
)  # fmt: skip
"""Answers that say: not now."""
LOST = (RedisConnectionError, RedisTimeoutError, RedisClusterException, TimeoutError, OSError)
"""Errors after which nobody knows whether the server did it."""
NOT_SENT = (ConnectionRefusedError, FileNotFoundError, PermissionError)
HINTS = {
    OutOfMemoryError: "it has reached its maxmemory; give it more, or make room",
    NoPermissionError: "give the user of the store the rights that the documentation lists",
    MovedError: "it is a cluster; give cluster=True, or a RedisCluster as client",
}
"""What to do, by the kind of error."""
FORBIDDEN = ("can't run this command", "has no permissions")
"""What Redis and Valkey say of a right that a script lacks. Clients have no class for it."""


@dataclass
class Slot:
    """Where one call at a time has its answer remembered."""

    key: bytes
    number: int = 0
    is_answered: bool = False

    @property
    def token(self) -> bytes:
        return b"%d:" % self.number


@dataclass
class RedisCalls:
    """Makes the calls of one store.

    Every call that changes something carries a token, by which the server knows a repetition and
    gives the answer that it gave before.

    Args:
        client: Of `redis.asyncio`.
        loop: The event loop that the client belongs to.
        keys: Of the store.
        alias: Of the store, for errors.
        timeout: Seconds for one try.
        retry_timeout: Seconds for which a change is repeated that may have been made.
    """

    client: Any
    loop: asyncio.AbstractEventLoop
    keys: RedisKeys
    alias: str
    timeout: float
    retry_timeout: float
    _free: list[Slot] = field(default_factory=list)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _unanswered: dict[tuple[bytes | str | int, ...], Slot] = field(default_factory=dict)
    _claims: dict[str, Slot] = field(default_factory=dict)
    _name: str = field(default_factory=new_id)
    _slots: int = 0

    async def __call__(
        self, name: str, *args: bytes | str | int, batch: bytes = b"", claim: str = ""
    ) -> Any:
        """Run a script and return what it answers.

        Args:
            name: Of the script.
            args: Its arguments, without the token.
            batch: The key that it knows as `batch`.
            claim: What the call is known by: made again, it gets the answer it had.

        Raises:
            StoreError: The server refused, or could not be reached. Where it may have made the
                change all the same, the text says so.
        """
        script = scripts[name]
        async with self._room:
            slot = self._slot_for(name, args, claim)
            values: list[Any] = [self._key(key, slot, batch) for key in script.keys]
            values += [slot.token, *args] if script.once else args
            settled = False
            try:
                answer = await self._until_answered(script, values)
                settled = True
                return answer
            finally:
                # A try that was given up may still come through: its slot is not used again,
                # except for the same steps.
                if claim:
                    self._keep_claim(claim, slot, settled)
                elif settled or not script.once:
                    self._free.append(slot)
                elif name == STEPS:
                    self._remember(args, slot)

    async def command(self, *words: str) -> Any:
        """Send another command to the only server, once. Raises StoreError."""
        try:
            async with asyncio.timeout(self.timeout):
                return await self._on_its_loop(words, [])
        except (RedisError, *LOST) as exc:
            raise self._error(exc, False) from exc

    async def forget(self) -> None:
        """Remove what the server remembers for this store."""
        keys = [slot.key for slot in (*self._free, *self._claims.values())]
        self._free.clear()
        self._claims.clear()
        if keys:
            # They go by themselves if this fails, in a while.
            with suppress(RedisError, StoreError, *LOST):
                async with asyncio.timeout(FAREWELL):
                    await self._on_its_loop(["UNLINK", *keys], [])

    def _key(self, name: str, slot: Slot, batch: bytes) -> bytes:
        if name == "call":
            return slot.key
        found: bytes = batch if name == "batch" else getattr(self.keys, name)
        return found

    def _slot_for(self, name: str, args: tuple[bytes | str | int, ...], claim: str) -> Slot:
        known = self._unanswered.pop(args, None) if name == STEPS else self._claims.get(claim)
        if known is not None:
            return known
        if not self._free:
            self._slots += 1
            self._free.append(Slot(self.keys.call(f"{self._name}-{self._slots}")))
        slot = self._free.pop()
        slot.number += 1
        if claim:
            slot.is_answered = False
            self._claims[claim] = slot
        return slot

    def _keep_claim(self, claim: str, slot: Slot, is_answered: bool) -> None:
        slot.is_answered = is_answered
        self._claims[claim] = self._claims.pop(claim, slot)  # the last now
        # One that is not answered may still be on its way to the server: its key is not used again.
        answered = [claim for claim, slot in self._claims.items() if slot.is_answered]
        for claim in answered[: max(0, len(answered) - KEPT_CLAIMS)]:
            self._free.append(self._claims.pop(claim))
        if len(self._claims) > KEPT_CLAIMS + MOST_UNANSWERED:
            self._claims.pop(next(iter(self._claims)))

    def _remember(self, args: tuple[bytes | str | int, ...], slot: Slot) -> None:
        self._unanswered[args] = slot
        if len(self._unanswered) > MOST_UNANSWERED:
            self._unanswered.pop(next(iter(self._unanswered)))

    async def _until_answered(self, script: Script, values: Sequence[Any]) -> Any:
        began, delay, unsure = self._now(), FIRST_DELAY, False
        while True:
            try:
                return await self._try(script, values)
            except (RedisError, *LOST) as exc:
                self._raise_if_final(exc, unsure)
                unsure = unsure or (script.once and _may_have_been_made(exc))
                patience = self.retry_timeout if unsure else PATIENCE
                if self._now() - began + delay > patience:
                    raise self._error(exc, unsure) from exc
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311  # not a secret
            delay = min(2 * delay, LAST_DELAY)

    async def _try(self, script: Script, values: Sequence[Any]) -> Any:
        begun: list[bool] = []
        try:
            async with asyncio.timeout(self.timeout):
                count = len(script.keys)
                try:
                    return await self._on_its_loop(["EVALSHA", script.sha, count, *values], begun)
                except NoScriptError:
                    # The server was restarted, or its scripts were flushed; it keeps this one.
                    return await self._on_its_loop(["EVAL", script.text, count, *values], begun)
        except TimeoutError as exc:
            if begun:
                raise
            raise StoreError(
                f"The store {self.alias!r}: the event loop that its client belongs to is blocked. "
                "If it is start() that blocks it, use NativeAsyncIOScheduler, or give the store "
                "a url in place of the client."
            ) from exc

    async def _on_its_loop(self, words: Sequence[Any], begun: list[bool]) -> Any:
        if asyncio.get_running_loop() is self.loop:
            return await self._execute(words, begun)
        if not self.loop.is_running():
            raise StoreError(
                f"The store {self.alias!r}: the event loop that its client belongs to is not "
                "running any more; make the client on the loop that it is used on."
            )
        future = asyncio.run_coroutine_threadsafe(self._execute(words, begun), self.loop)
        return await asyncio.wrap_future(future)

    async def _execute(self, words: Sequence[Any], begun: list[bool]) -> Any:
        begun.append(True)
        # The client may be set up to make text of answers; ours are bytes.
        return await self.client.execute_command(*words, NEVER_DECODE=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _raise_if_final(self, error: Exception, unsure: bool) -> None:
        refused = isinstance(error, ResponseError | AuthenticationError | ClusterError)
        busy = str(error).startswith("BUSY")
        if refused and not busy and not isinstance(error, PASSING):
            self._refuse(error, unsure)
        if not isinstance(error, (*LOST, *PASSING)) and not busy:
            self._refuse(error, unsure)

    def _refuse(self, error: Exception, unsure: bool) -> NoReturn:
        raise self._error(error, unsure) from error

    def _error(self, error: Exception, unsure: bool) -> StoreError:
        late = isinstance(error, RedisTimeoutError | TimeoutError)
        text = f"it did not answer within {self.timeout} s" if late else _words_of(error)
        if unsure:
            text += "; whether the change was made is not known"
        made = StoreTimeoutError if late else StoreError
        return made(f"The Redis server of the store {self.alias!r} failed: {text}.")


def _may_have_been_made(error: Exception) -> bool:
    if not isinstance(error, LOST) or isinstance(error, PASSING):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NOT_SENT):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _words_of(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    kind = type(error)
    if any(words in text for words in FORBIDDEN):
        kind = NoPermissionError
    elif text.startswith("MOVED"):  # it has no class in older clients
        kind = MovedError
    hint = HINTS.get(kind)
    return f"{words} ({hint})" if hint else words
