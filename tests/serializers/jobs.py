"""Callables and types for the serializer's tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from functools import lru_cache, partial
from os import system
from typing import Any

from pydantic import BaseModel, SecretStr

__all__ = ["system"]


class Color(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Order(BaseModel):
    number: int
    points: list[Point] = []


class SpecialOrder(Order):
    extra: int = 1


class Login(BaseModel):
    password: SecretStr


class Plain:
    pass


def anything(*args: Any, **kwargs: Any) -> None: ...


def bare(value, other=None): ...  # type: ignore[no-untyped-def]


def typed(
    order: Order,
    /,
    color: Color | None = None,
    *points: Point,
    level: Level = Level.LOW,
    words: dict[str, list[Word]] | None = None,
    **logins: Login,
) -> None: ...


def loose(order: Order, value: object = None, plain: Plain | None = None) -> None: ...


class Service:
    def __call__(self, order: Order) -> None: ...

    @classmethod
    def build(cls, order: Order) -> None: ...

    @staticmethod
    def static(order: Order) -> None: ...

    def method(self) -> None: ...


service = Service()
prepared = partial(anything, 1)
prepared_print = partial(print, 1)
settings: dict[str, int] = {}


@lru_cache
def cached(value: int) -> None: ...
