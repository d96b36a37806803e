"""Telling the other schedulers of a store that there is something due soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asyncz.stores.cluster import ClusterStore

if TYPE_CHECKING:
    from asyncz.schedulers.membership import Membership

__all__ = ["Announcer"]

Ask = Callable[[Awaitable[Any]], Awaitable[Any]]

HEARD_AFTER = timedelta(seconds=0.1)
"""After that, others have heard of what is announced, and have looked."""
SEEN_AFTER = timedelta(seconds=1)
"""After that, they have looked for themselves."""
GAP = 0.05
"""Seconds between announcements: many tasks that are added one by one wake the others a few times,
and not each once."""


class Announcer:
    """Announces in the background, at once or a moment after the last time.

    Args:
        alias, store: Where.
        member: Who.
        ask: Awaits an operation of the store, within the store timeout.
    """

    def __init__(self, alias: str, store: ClusterStore, member: Membership, ask: Ask) -> None:
        self._store = store
        self._member = member
        self._ask = ask
        self._name = f"asyncz announcements in {alias}"
        self._speaking: asyncio.Task[None] | None = None
        self._again = False

    @property
    def _can_announce(self) -> bool:
        """Whether there may be others, who can be told at once."""
        return self._member.is_shared and self._store.announces

    @property
    def heard_after(self) -> timedelta:
        """After so long the others know of what was changed in the store, for the most part."""
        return HEARD_AFTER if self._can_announce else SEEN_AFTER

    def announce_soon(self) -> None:
        """There is something to tell, in the store already. If nobody can be told, that is all."""
        if not self._can_announce:
            return
        self._again = True
        if self._speaking is None:
            loop = asyncio.get_running_loop()
            self._speaking = loop.create_task(self._speak(), name=self._name)

    async def announce(self) -> None:
        """Tell the others that there may be something due soon; if it fails, they look anyway."""
        if self._can_announce:
            with suppress(Exception):  # whatever a store of others' raises
                await self._ask(self._store.announce(self._member.node.id))

    def stop(self) -> None:
        """End; what is not announced yet is found by those who look."""
        if self._speaking is not None:
            self._speaking.cancel()

    async def _speak(self) -> None:
        try:
            while self._again:
                self._again = False
                await self.announce()
                await asyncio.sleep(GAP)
        finally:
            self._speaking = None
