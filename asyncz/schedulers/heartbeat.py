"""The heartbeat of a node: a thread with an event loop and connections of its own.

It also listens there for what other nodes announce.

It does not live on the app's loop, since a loop that user code blocks must not look like a worker
that was killed, whose runs others take over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from logging import Logger
from threading import Event, Thread
from typing import Any

from asyncz.clock import Clock
from asyncz.stores.cluster import Pulse

__all__ = ["Heartbeat"]

BEATS_IN_A_LEASE = 3
TRIES_IN_A_LEASE = 6
"""One attempt may take a sixth of the lease, so that at least four fit in it."""
GAPS_IN_A_LEASE = 2
"""Beats further apart than half of the lease are no unbroken contact."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
LONGEST_SILENCE = 30.0
"""Seconds until it is tried again to listen, where that fails; the store is polled anyway."""
TRIES_TO_CANCEL = 5
"""PyMongo overhears a cancellation when an answer has come at the same moment."""
GOODBYE = 1.0
"""Seconds that the thread has to end when it is told to."""


class Heartbeat:
    """Renews the lease of one node until it is stopped, or refused.

    Args:
        pulse: How.
        clock: What says how long ago a beat was.
        joined_at: When the node was about to join; of the clock's `monotonic`.
        lease: Seconds.
        running: How many runs go on; called in the thread.
        refused: Called in the thread when the node is not alive any more; nothing follows.
        heard: Called in the thread when another node has announced something.
        name: For people.
        logger: For what goes wrong.
    """

    def __init__(
        self,
        pulse: Pulse,
        clock: Clock,
        joined_at: float,
        lease: float,
        running: Callable[[], int],
        refused: Callable[[], None],
        heard: Callable[[], None],
        name: str,
        logger: Logger,
    ) -> None:
        self._pulse = pulse
        self._clock = clock
        self._lease = lease
        self._running = running
        self._refused = refused
        self._heard = heard
        self._name = name
        self._logger = logger
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beating: asyncio.Task[Any] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._stopped = Event()
        self._is_open = self._is_resting = False
        self.last_success = self.contact_since = joined_at
        """When the last beat that came through was begun, and since when every one has come
        through, and in time; of the clock's `monotonic`."""
        self._thread = Thread(target=self._run, name=name, daemon=True)

    @property
    def trusted_until(self) -> float:
        """Until when the lease can be relied on, of the clock's `monotonic`."""
        return self.last_success + self._lease - self._lease / TRIES_IN_A_LEASE

    def has_contact_for(self, seconds: float) -> bool:
        """Whether beats have come through for so long, without a gap.

        A process that was suspended has not seen an outage of the store meanwhile: a beat that is
        overdue is a gap, as one that failed is.
        """
        now = self._clock.monotonic()
        return now - self.contact_since >= seconds and not self._is_overdue(now)

    def _is_overdue(self, now: float) -> bool:
        return now - self.last_success > self._lease / GAPS_IN_A_LEASE

    def start(self) -> None:
        """Begin; the node has just joined."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting. A beat that goes on has a moment, as drivers do not like to be cut
        off while they connect."""
        self._stopped.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._loop is None or self._beating is None:
            return
        if self._is_resting:
            self._beating.cancel()
        else:
            self._loop.call_later(GOODBYE, self._beating.cancel)

    async def ended(self) -> None:
        """Wait for the thread, a moment at most."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 2 * GOODBYE)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                asyncio.run(self._beat_on())
                return
            except Exception:
                self._logger.exception("The heartbeat %s failed; it begins anew.", self._name)
                self._stopped.wait(LONGEST_PAUSE)

    async def _beat_on(self) -> None:
        self._loop, self._beating = asyncio.get_running_loop(), asyncio.current_task()
        pause = FIRST_PAUSE
        try:
            while not self._stopped.is_set():
                alive = await self._beat()
                if alive is None:
                    await self._rest(pause)
                    pause = min(2 * pause, LONGEST_PAUSE, self._lease / 10)
                elif alive:
                    pause = FIRST_PAUSE
                    await self._rest(self._lease / BEATS_IN_A_LEASE)
                else:
                    if not self._stopped.is_set():  # otherwise it has left, and is refused rightly
                        self._refused()
                    return
        except asyncio.CancelledError:
            if not self._stopped.is_set():
                raise
        finally:
            await self._stop_listening()
            await self._close()

    async def _rest(self, seconds: float) -> None:
        if not self._stopped.is_set():
            self._is_resting = True
            await asyncio.sleep(seconds)
            self._is_resting = False

    async def _beat(self) -> bool | None:
        """Whether the node is alive; None: it is not known."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._lease / TRIES_IN_A_LEASE):
                if not self._is_open:
                    await self._pulse.open()
                    self._is_open = True
                alive = await self._pulse.beat(self._lease, self._running())
        except Exception as exc:
            self._logger.debug("A beat of %s failed: %r", self._name, exc)
            self.contact_since = float("inf")
            await self._close()
            return None
        if alive:
            if self._listening is None:
                self._listening = asyncio.create_task(self._listen_on(), name=f"{self._name} ear")
            if self._is_overdue(began):
                self.contact_since = began
            self.last_success = began
            self.contact_since = min(self.contact_since, began)
        return alive

    async def _listen_on(self) -> None:
        pause = FIRST_PAUSE

        def heard() -> None:
            nonlocal pause
            pause = FIRST_PAUSE
            self._heard()

        while not self._stopped.is_set():
            try:
                await self._pulse.listen(heard)
                return  # there is nothing to listen to
            except Exception as exc:
                self._logger.debug("Listening by %s failed: %r", self._name, exc)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_SILENCE)

    async def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is None or listening.done():
            return
        for _ in range(TRIES_TO_CANCEL):
            listening.cancel()
            await asyncio.wait([listening], timeout=GOODBYE / TRIES_TO_CANCEL)
            if listening.done():
                break

    async def _close(self) -> None:
        """Close the connections; after an error they are made anew."""
        self._is_open = False
        with suppress(Exception):
            async with asyncio.timeout(GOODBYE):
                await self._pulse.close()
