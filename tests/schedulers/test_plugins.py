"""Triggers, stores and executors by alias, by class and by entry point."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from asyncz import (
    AsyncIOExecutor,
    AsyncIOScheduler,
    BaseExecutor,
    BaseStore,
    BaseTrigger,
    CronTrigger,
    DebugExecutor,
    IntervalTrigger,
    MemoryStore,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from asyncz.exceptions import ConfigurationError, PluginLookupError
from asyncz.schedulers.plugins import BUILT_IN, PluginRegistry, load_class

BASES = {"trigger": BaseTrigger, "store": BaseStore, "executor": BaseExecutor}


class MyTrigger(IntervalTrigger):
    """A trigger of somebody else."""

    alias = "mine"


class FakeEntryPoint:
    """An installed plugin."""

    def __init__(self, name: str, plugin: Any) -> None:
        self.name = name
        self.plugin = plugin
        self.loaded = 0

    def load(self) -> Any:
        self.loaded += 1
        return self.plugin


def install(monkeypatch: pytest.MonkeyPatch, group: str, *points: FakeEntryPoint) -> list[str]:
    asked: list[str] = []

    def entry_points(*, group: str) -> list[FakeEntryPoint]:
        asked.append(group)
        return list(points) if group == wanted else []

    wanted = group
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return asked


@pytest.mark.parametrize(
    ("kind", "alias"), [(kind, alias) for kind, found in BUILT_IN.items() for alias in found]
)
def test_every_built_in_alias_leads_to_a_class_of_its_kind(kind: str, alias: str) -> None:
    assert issubclass(PluginRegistry().find(kind, alias), BASES[kind])


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("asyncio", AsyncIOExecutor),
        ("debug", DebugExecutor),
        ("pool", ThreadPoolExecutor),
        ("threadpool", ThreadPoolExecutor),
        ("processpool", ProcessPoolExecutor),
    ],
)
def test_executors_have_the_aliases_of_upstream(alias: str, expected: type) -> None:
    assert type(PluginRegistry().create("executor", alias, {})) is expected


@pytest.mark.parametrize("kind", ["trigger", "store", "executor"])
def test_an_unknown_alias_is_an_error_that_lists_the_known_ones(kind: str) -> None:
    known = ", ".join(sorted(BUILT_IN[kind]))
    with pytest.raises(PluginLookupError, match=f"no {kind} 'nope'; there are {known}"):
        PluginRegistry().find(kind, "nope")


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(PluginLookupError, match="'clock' is not one of trigger, executor, store"):
        PluginRegistry().find("clock", "x")


def test_a_class_is_registered_as_itself_or_by_reference() -> None:
    registry = PluginRegistry()
    registry.register("trigger", "mine", MyTrigger)
    registry.register("store", "ram", "asyncz.stores.memory:MemoryStore")
    assert registry.find("trigger", "mine") is MyTrigger
    assert registry.find("store", "ram") is MemoryStore


@pytest.mark.parametrize("plugin", [CronTrigger(hour=1), int, MemoryStore, None])
def test_what_is_not_a_class_of_the_kind_is_refused(plugin: Any) -> None:
    with pytest.raises(ConfigurationError, match="'mine' must be a subclass of BaseTrigger"):
        PluginRegistry().register("trigger", "mine", plugin)


@pytest.mark.parametrize(
    "reference", ["no colon", ":x", "x:", "asyncz:NoSuch", "no_such_package_at_all:X"]
)
def test_a_reference_that_leads_nowhere_is_an_import_error(reference: str) -> None:
    with pytest.raises(ImportError):
        load_class(reference)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_workers": 0}, "max_workers: Input should be greater than or equal to 1"),
        ({"workers": 5}, r"workers: Extra inputs.* \(the options are max_workers, pool_kwargs\)"),
    ],
)
def test_bad_options_of_a_plugin_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"of the executor 'threadpool': {complaint}"):
        PluginRegistry().create("executor", "threadpool", options)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"database": "sqlite://"}, r"'jobs' is a mapping without 'type'.*file, memory, mongo"),
        ({"type": None}, r"'jobs' is a mapping without 'type'"),
        ("postgresql://u:s3cr3t@h/d", r"type of the store 'jobs' is a URL.*'database': URL"),
        ({"type": "redis://:s3cr3t@h"}, "type of the store 'jobs' is a URL"),
        (MemoryStore, "'jobs' must be a BaseStore.*not the class MemoryStore"),
        (5, "'jobs' must be a BaseStore.*not an object of the type int"),
        ({"type": "sqlalchemy", "url": "s3cr3t"}, r"'sqlalchemy': database is missing.* schema,"),
        ({"type": "file"}, "'file': directory is missing"),
        ({"type": "redis", "pasword": "s3cr3t"}, r"'redis': pasword: Extra.* host, .*password"),
    ],
)
def test_what_is_wrong_with_a_store_is_said_without_secrets(config: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        AsyncIOScheduler(stores={"jobs": config})
    assert "s3cr3t" not in str(caught.value)


def test_a_scheduler_takes_triggers_as_an_option() -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", triggers={"mine": MyTrigger})
    task = scheduler.add_task(print, "mine", hours=1)
    assert type(task.trigger) is MyTrigger
    assert scheduler.create_plugin_instance("trigger", "mine", {"hours": 2}).alias == "mine"


def test_an_installed_plugin_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = FakeEntryPoint("mine", MyTrigger)
    install(monkeypatch, "asyncz.triggers", point)
    registry = PluginRegistry()
    assert [registry.find("trigger", "mine") for _ in range(3)] == [MyTrigger] * 3
    assert point.loaded == 1


def test_an_installed_plugin_of_the_wrong_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "asyncz.stores", FakeEntryPoint("mine", MyTrigger))
    with pytest.raises(ConfigurationError, match="'mine' must be a subclass of BaseStore"):
        PluginRegistry().find("store", "mine")


def test_installed_plugins_are_looked_for_only_when_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = install(monkeypatch, "asyncz.triggers")
    registry = PluginRegistry()
    registry.find("trigger", "cron")
    assert asked == []
    for _ in range(2):
        with pytest.raises(PluginLookupError):
            registry.find("trigger", "nope")
    assert asked == ["asyncz.triggers"]


def test_an_installed_plugin_does_not_replace_a_built_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "asyncz.triggers", FakeEntryPoint("cron", MyTrigger))
    assert PluginRegistry().find("trigger", "cron") is CronTrigger


def test_a_stored_trigger_may_be_of_any_known_type(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "asyncz.triggers", FakeEntryPoint("theirs", MyTrigger))
    registry = PluginRegistry()
    registry.register("trigger", "mine", MyTrigger)
    types = registry.trigger_types
    assert set(types) == {*BUILT_IN["trigger"], "mine"}
    assert (types["mine"], types["theirs"], types["cron"]) == (MyTrigger, MyTrigger, CronTrigger)
    assert "nope" not in types
    assert set(types) == {*BUILT_IN["trigger"], "mine", "theirs"}
    assert len(types) == len(BUILT_IN["trigger"]) + 2
