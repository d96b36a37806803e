"""The options of a scheduler, by keyword and from dotted settings."""

from __future__ import annotations

import logging
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asyncz import AsyncIOScheduler, MemoryStore, ThreadPoolExecutor
from asyncz.exceptions import ConfigurationError
from asyncz.schedulers.config import ClassicLogging, read_options
from asyncz.testing import VirtualClock


def test_without_settings_the_documented_defaults_hold() -> None:
    found = read_options(None, "asyncz.", {"timezone": "UTC"})
    times = (found.store_timeout, found.store_retry_interval, found.shutdown_timeout)
    assert times == (30, 1, 30)
    assert (found.max_catchup, found.startup_delay, found.lock_path) == (100, 1, None)
    defaults = found.task_defaults
    assert (defaults.mistrigger_grace_time, defaults.max_instances) == (60, 1)
    assert defaults.coalesce
    assert found.time is found.clock


def test_two_schedulers_without_an_identity_have_different_ones() -> None:
    one, two = (read_options(None, None, {"timezone": "UTC"}) for _ in range(2))
    assert one.identity != two.identity


def test_dotted_settings_become_a_tree() -> None:
    settings = {
        "asyncz.timezone": "Europe/Berlin",
        "asyncz.task_defaults.max_instances": "3",
        "asyncz.task_defaults.coalesce": "false",
        "asyncz.executors.threads.type": "threadpool",
        "asyncz.executors.threads.max_workers": "5",
        "other.timezone": "Mars/Olympus",
    }
    found = read_options(settings, "asyncz.", {})
    assert found.timezone == ZoneInfo("Europe/Berlin")
    assert (found.task_defaults.max_instances, found.task_defaults.coalesce) == (3, False)
    assert found.executors == {"threads": {"type": "threadpool", "max_workers": "5"}}


def test_keyword_options_win_and_are_merged_with_the_settings() -> None:
    settings = {"asyncz.timezone": "UTC", "asyncz.task_defaults.max_instances": 3}
    options = {"timezone": "Asia/Tokyo", "task_defaults": {"coalesce": False}}
    found = read_options(settings, "asyncz.", options)
    assert found.timezone == ZoneInfo("Asia/Tokyo")
    assert (found.task_defaults.max_instances, found.task_defaults.coalesce) == (3, False)


@pytest.mark.parametrize("prefix", ["mine.", "a.b.", None, ""])
def test_settings_may_have_another_prefix_or_none(prefix: str | None) -> None:
    found = read_options({f"{prefix or ''}timezone": "Asia/Tokyo"}, prefix, {})
    assert found.timezone == ZoneInfo("Asia/Tokyo")


def test_the_mappings_of_the_caller_are_left_alone() -> None:
    settings = {"asyncz.stores": {"a": {"type": "memory"}}, "asyncz.stores.b.type": "memory"}
    options = {"timezone": "UTC", "stores": {"c": {"type": "memory"}}}
    assert sorted(read_options(settings, "asyncz.", options).stores) == ["a", "b", "c"]
    assert settings["asyncz.stores"] == {"a": {"type": "memory"}}
    assert options["stores"] == {"c": {"type": "memory"}}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"asyncz.surprise": 1}, r"surprise is not an option \(the options are clock, event_loop"),
        (
            {"asyncz.task_defaults.surprise": 1},
            r"task_defaults.surprise is not an option \(the options are coalesce, max_instances",
        ),
        ({"asyncz.timezone": "UTC", "asyncz.timezone.name": "x"}, "'timezone.name' is below 'tim"),
        ({"asyncz.": 1}, "is not an option"),
    ],
)
def test_an_unknown_option_is_an_error_that_lists_the_known_ones(
    settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_options({"asyncz.timezone": "UTC", **settings}, "asyncz.", {})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timezone", "Mars/Olympus"),
        ("timezone", 5),
        ("timezone", None),
        ("identity", ""),
        ("store_timeout", 0),
        ("store_timeout", "soon"),
        ("store_retry_interval", -1),
        ("shutdown_timeout", float("inf")),
        ("shutdown_timeout", 0),
        ("max_catchup", 0),
        ("max_catchup", 10_001),
        ("startup_delay", -1),
        ("isolated_event_loop", "perhaps"),
        ("task_defaults", {"max_instances": 0}),
        ("task_defaults", {"mistrigger_grace_time": 0}),
        ("stores", ["memory"]),
        ("executors", "threadpool"),
        ("clock", 5),
        ("clock", object()),
        ("loggers_class", 5),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Bad scheduler options: {option}.*: "):
        AsyncIOScheduler(**{"timezone": "UTC", option: value})


def test_what_a_clock_lacks_is_named() -> None:
    class Half(VirtualClock):
        attach = None  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="this lacks attach"):
        AsyncIOScheduler(clock=Half(), timezone="UTC")


def test_options_cannot_be_changed_once_they_are_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_options(None, None, {"timezone": "UTC"}).max_catchup = 5


@pytest.mark.parametrize(
    "config",
    [
        {"stores": {"jobs": MemoryStore()}, "executors": {"threads": ThreadPoolExecutor()}},
        {"stores": {"jobs": "memory"}, "executors": {"threads": "threadpool"}},
        {
            "stores": {"jobs": {"type": "memory"}},
            "executors": {"threads": {"type": "threadpool", "max_workers": 2}},
        },
    ],
    ids=["objects", "aliases", "mappings"],
)
def test_stores_and_executors_are_given_in_three_ways(config: dict[str, Any]) -> None:
    scheduler = AsyncIOScheduler(timezone="UTC", **config)
    assert isinstance(scheduler.lookup_store("jobs"), MemoryStore)
    assert isinstance(scheduler.lookup_executor("threads"), ThreadPoolExecutor)


def test_loggers_come_from_a_class_of_ones_own() -> None:
    class Mine(ClassicLogging):
        def __missing__(self, name: str) -> logging.Logger:
            return logging.getLogger(f"mine.{name}")

    scheduler = AsyncIOScheduler(timezone="UTC", loggers_class=Mine, logger_name="jobs")
    assert scheduler.loggers["asyncz.schedulers.jobs"].name == "mine.asyncz.schedulers.jobs"


def test_a_logger_is_made_once() -> None:
    loggers = ClassicLogging()
    assert loggers["asyncz.a"] is logging.getLogger("asyncz.a")
    assert list(loggers) == ["asyncz.a"]
