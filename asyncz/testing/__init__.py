"""For tests: a clock that stands still until it is moved, and the suite that stores must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncz.testing.clock import VirtualClock

if TYPE_CHECKING:
    from asyncz.testing.store_suite import PersistentStoreConformance, StoreConformance

__all__ = ["PersistentStoreConformance", "StoreConformance", "VirtualClock"]


def __getattr__(name: str) -> Any:
    # pytest can show what an assert of the suite compared only if told so before its import.
    if name in {"PersistentStoreConformance", "StoreConformance"}:
        from asyncz.testing import store_suite

        return getattr(store_suite, name)
    raise AttributeError(f"module 'asyncz.testing' has no attribute {name!r}")
