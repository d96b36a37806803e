"""Triggers, stores and executors by alias: our own, registered ones, and entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, TypeVar

from pydantic import ValidationError

from asyncz.exceptions import ConfigurationError, PluginLookupError
from asyncz.executors.base import BaseExecutor
from asyncz.stores.base import BaseStore
from asyncz.triggers.base import BaseTrigger

__all__ = ["PluginRegistry", "load_class", "pick"]

T = TypeVar("T")

BUILT_IN: dict[str, dict[str, str]] = {
    "trigger": {
        "date": "asyncz.triggers.date:DateTrigger",
        "interval": "asyncz.triggers.interval:IntervalTrigger",
        "cron": "asyncz.triggers.cron.trigger:CronTrigger",
        "and": "asyncz.triggers.combination:AndTrigger",
        "or": "asyncz.triggers.combination:OrTrigger",
        "shutdown": "asyncz.triggers.shutdown:ShutdownTrigger",
        "calendarinterval": "asyncz.triggers.calendarinterval:CalendarIntervalTrigger",
    },
    "executor": {
        "asyncio": "asyncz.executors.asyncio:AsyncIOExecutor",
        "debug": "asyncz.executors.debug:DebugExecutor",
        "pool": "asyncz.executors.pool:ThreadPoolExecutor",
        "threadpool": "asyncz.executors.pool:ThreadPoolExecutor",
        "processpool": "asyncz.executors.process_pool:ProcessPoolExecutor",
    },
    "store": {
        "memory": "asyncz.stores.memory:MemoryStore",
        "file": "asyncz.stores.file:FileStore",
        "sqlalchemy": "asyncz.stores.sqlalchemy:SQLAlchemyStore",
        "redis": "asyncz.stores.redis:RedisStore",
        "mongo": "asyncz.stores.mongo:MongoDBStore",
        "mongodb": "asyncz.stores.mongo:MongoDBStore",
    },
}
BASES: dict[str, type] = {"trigger": BaseTrigger, "executor": BaseExecutor, "store": BaseStore}


def load_class(reference: str) -> Any:
    """Import `package.module:Class`. Raises ImportError if there is no such thing."""
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise ImportError(f"{reference!r} does not have the form 'package.module:Class'.")
    try:
        return getattr(import_module(module_name), name)
    except AttributeError as exc:
        raise ImportError(f"{module_name!r} has no {name!r}.") from exc


def _needed(plugin: type) -> list[str]:
    """The arguments that a class's own `__init__` cannot do without; of fields Pydantic tells."""
    return [
        name
        for name, parameter in signature(plugin).parameters.items()
        if parameter.default is Parameter.empty
        and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
    ]


class PluginRegistry:
    """Finds plugin classes of one scheduler, each imported when it is first asked for."""

    def __init__(self) -> None:
        self._classes: dict[str, dict[str, type]] = {kind: {} for kind in BUILT_IN}
        self._entry_points: dict[str, dict[str, Any]] = {}
        self._trigger_types = _TriggerTypes(self)

    def register(self, kind: str, alias: str, plugin: Any) -> None:
        """Add a class, or a `package.module:Class` reference to one, under an alias."""
        self._classes[kind][alias] = self.resolve(kind, alias, plugin)

    def resolve(self, kind: str, alias: str, plugin: Any) -> type[Any]:
        """The class that would be registered. Raises ConfigurationError if it is none."""
        found = load_class(plugin) if isinstance(plugin, str) else plugin
        return self._checked(kind, alias, found)

    def find(self, kind: str, alias: str) -> type[Any]:
        """The class of that alias.

        Raises:
            PluginLookupError: There is none; the message lists those there are.
            ConfigurationError: It is not a class of that kind.
        """
        if kind not in BASES:
            raise PluginLookupError(f"{kind!r} is not one of {', '.join(BASES)}.")
        classes = self._classes[kind]
        if alias not in classes:
            if alias in BUILT_IN[kind]:
                classes[alias] = load_class(BUILT_IN[kind][alias])
            elif alias in (points := self._installed(kind)):
                classes[alias] = self._checked(kind, alias, points[alias].load())
            else:
                known = ", ".join(sorted({*classes, *BUILT_IN[kind], *points}))
                raise PluginLookupError(f"There is no {kind} {alias!r}; there are {known}.")
        return classes[alias]

    def create_for(self, kind: str, name: str, config: Mapping[str, Any]) -> Any:
        """An object as a configuration describes it: its `type`, and options.

        Args:
            kind, name: What it is to be, for errors.
            config: It.

        Raises:
            ConfigurationError: There is no type, or what `create` raises.
        """
        options = dict(config)
        alias = options.pop("type", None)
        if alias is not None and "://" not in str(alias):
            return self.create(kind, alias, options)
        types = ", ".join(sorted({*self.names(kind), *self._installed(kind)}))
        if alias is None:
            raise ConfigurationError(
                f"The {kind} {name!r} is a mapping without 'type', which says what it is; the "
                f"types are {types}."
            )
        # It is not shown: it may hold a password.
        raise ConfigurationError(
            f"The type of the {kind} {name!r} is a URL; give one of {types}, and the URL as its "
            "option, such as {'type': 'sqlalchemy', 'database': URL}."
        )

    def create(self, kind: str, alias: str, options: Mapping[str, Any]) -> Any:
        """An object of the class of that alias.

        Raises:
            PluginLookupError: There is no such class.
            ConfigurationError: An option is unknown or has a bad value.
        """
        found = self.find(kind, alias)
        problems = [f"{name} is missing" for name in _needed(found) if name not in options]
        if not problems:
            try:
                return found(**options)
            except ValidationError as exc:
                # Without the values: the options of a store may hold a password.
                problems = [
                    f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in exc.errors()
                ]
        known = ", ".join(sorted(field.alias or key for key, field in found.model_fields.items()))
        raise ConfigurationError(
            f"Bad options of the {kind} {alias!r}: {'; '.join(problems)} (the options are {known})."
        )

    @property
    def trigger_types(self) -> Mapping[str, type[BaseTrigger]]:
        """The trigger classes that a stored record may name."""
        return self._trigger_types

    def names(self, kind: str) -> set[str]:
        """The aliases that are known without looking for entry points."""
        return {*BUILT_IN[kind], *self._classes[kind]}

    def _installed(self, kind: str) -> dict[str, Any]:
        if kind not in self._entry_points:
            # Reading the metadata of all that is installed takes a while; most never need it.
            from importlib.metadata import entry_points

            points = entry_points(group=f"asyncz.{kind}s")
            self._entry_points[kind] = {point.name: point for point in points}
        return self._entry_points[kind]

    def _checked(self, kind: str, alias: str, found: Any) -> type:
        if not (isinstance(found, type) and issubclass(found, BASES[kind])):
            raise ConfigurationError(
                f"The {kind} {alias!r} must be a subclass of {BASES[kind].__name__}, not {found!r}."
            )
        return found


class _TriggerTypes(Mapping[str, type[BaseTrigger]]):
    """Looks classes up when they are asked for, entry points included."""

    def __init__(self, registry: PluginRegistry) -> None:
        self._registry = registry

    def __getitem__(self, alias: str) -> type[BaseTrigger]:
        try:
            return self._registry.find("trigger", alias)
        except PluginLookupError:
            raise KeyError(alias) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.names("trigger"))

    def __len__(self) -> int:
        return len(self._registry.names("trigger"))


def pick(kind: str, items: Mapping[str, T], alias: str) -> T:
    """The item of that alias. Raises PluginLookupError, which lists those there are."""
    try:
        return items[alias]
    except (KeyError, TypeError):
        known = ", ".join(map(repr, items)) or "none"
        raise PluginLookupError(
            f"This scheduler has no {kind} {alias!r}; it has {known}."
        ) from None
