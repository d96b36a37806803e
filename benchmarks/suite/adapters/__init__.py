"""One adapter for each library: the same few verbs, spoken to the library's own public API.

An adapter's module imports its library, so it is loaded in that library's environment only.
Two of the libraries share the name ``asyncz`` and two share ``apscheduler``; adapters therefore
resolve names at run time, and leave types to the few verbs below.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime

#: No library may drop a late run: it would leave out part of the work and look faster for it.
GRACE = None


class Adapter(ABC):
    """A scheduler on the running loop: UTC, coroutines run on the loop, late runs kept.

    The functions given are coroutine functions at the top level of a module.

    Args:
        store: Its kind and URL, see `suite.servers.place`; None: in memory.
    """

    def __init__(self, store: Mapping[str, str] | None = None) -> None:
        self.store = store

    @abstractmethod
    async def start(self) -> None:
        """Start an empty scheduler."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop it and wait until its last callback has been called."""

    @abstractmethod
    async def add_once(
        self, fn: Callable[[], Awaitable[None]], tasks: Iterable[tuple[str, datetime]]
    ) -> None:
        """Add a one-off task for each (id, due instant), one call of the library for each."""

    @abstractmethod
    async def add_every_second(
        self, fn: Callable[[int], Awaitable[None]], tasks: Iterable[tuple[str, datetime, int]]
    ) -> None:
        """Add a one-second interval task for each (id, first due instant, argument)."""


def load(name: str) -> type[Adapter]:
    """Import the adapter's module, and with it the library it is for."""
    adapter: type[Adapter] = importlib.import_module(f"{__name__}.{name}").LibraryAdapter
    return adapter
