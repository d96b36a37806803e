"""For tests: a clock that stands still until it is moved, and the suite that stores must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncz.testing.clock import VirtualClock

if TYPE_CHECKING:
    from asyncz.testing.store_sequences import ClusterStoreSequences, StoreSequences
    from asyncz.testing.store_suite import (
        ClusterStoreConformance,
        PersistentStoreConformance,
        StoreConformance,
    )

__all__ = [
    "ClusterStoreConformance",
    "ClusterStoreSequences",
    "PersistentStoreConformance",
    "StoreConformance",
    "StoreSequences",
    "VirtualClock",
]


def __getattr__(name: str) -> Any:
    # pytest can show what an assert of the suite compared only if told so before its import.
    if name in {"ClusterStoreConformance", "PersistentStoreConformance", "StoreConformance"}:
        from asyncz.testing import store_suite

        return getattr(store_suite, name)
    if name in {"ClusterStoreSequences", "StoreSequences"}:  # which need Hypothesis
        from asyncz.testing import store_sequences

        return getattr(store_sequences, name)
    raise AttributeError(f"module 'asyncz.testing' has no attribute {name!r}")
