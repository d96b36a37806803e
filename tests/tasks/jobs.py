"""Callables of every kind, to be named by reference."""

from __future__ import annotations

from functools import partial
from typing import Any


def plain(first: int, second: int = 2, *, third: int = 3) -> int:
    return first + second + third


def nothing() -> None:
    """Takes nothing."""


def anything(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, kwargs


async def coroutine(first: int) -> int:
    return first


class Worker:
    """Has methods of each kind."""

    def method(self, first: int) -> int:
        return first

    async def coroutine_method(self, first: int) -> int:
        return first

    @classmethod
    def class_method(cls, first: int) -> int:
        return first

    @staticmethod
    def static_method(first: int) -> int:
        return first


class CallableObject:
    """An object that is called like a function."""

    def __call__(self, first: int) -> int:
        return first


class CoroutineObject:
    """An object that is called like a coroutine function."""

    async def __call__(self, first: int) -> int:
        return first


class Unhashable:
    """A callable that cannot be the key of a dictionary."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, first: int) -> int:
        return first


worker = Worker()
callable_object = CallableObject()
ready_made = partial(plain, 1, third=5)
not_callable = 5
