"""Executors: where runs are carried out."""

from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.executors.base import BaseExecutor
from asyncz.executors.debug import DebugExecutor
from asyncz.executors.pool import ThreadPoolExecutor
from asyncz.executors.process_pool import ProcessPoolExecutor

__all__ = [
    "AsyncIOExecutor",
    "BaseExecutor",
    "DebugExecutor",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
]
