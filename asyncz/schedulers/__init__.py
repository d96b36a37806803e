"""Schedulers: the public face."""

from asyncz.schedulers.asyncio import AsyncIOScheduler, NativeAsyncIOScheduler

__all__ = ["AsyncIOScheduler", "NativeAsyncIOScheduler"]
