"""Executors: where runs are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.executors.base import BaseExecutor
from asyncz.executors.debug import DebugExecutor
from asyncz.executors.pool import ThreadPoolExecutor

if TYPE_CHECKING:
    from asyncz.executors.process_pool import ProcessPoolExecutor

__all__ = [
    "AsyncIOExecutor",
    "BaseExecutor",
    "DebugExecutor",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
]


def __getattr__(name: str) -> Any:
    # Who has no processes need not import `multiprocessing`.
    if name == "ProcessPoolExecutor":
        from asyncz.executors.process_pool import ProcessPoolExecutor

        return ProcessPoolExecutor
    raise AttributeError(f"module 'asyncz.executors' has no attribute {name!r}")
