"""Errors: one root, builtin bases, messages that say what to do, and a way through pickle."""

from __future__ import annotations

import copy
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from asyncz import exceptions
from asyncz.exceptions import (
    AsynczException,
    AsynczLookupError,
    BlockingCallError,
    ConfigurationError,
    ConflictError,
    ConflictIdError,
    MaximumInstancesError,
    PluginLookupError,
    RetryAfter,
    RunLookupError,
    SchedulerAlreadyRunningError,
    SchedulerLookupError,
    SchedulerNotRunningError,
    SerializationError,
    Skip,
    SomeTasksError,
    StoreInUseError,
    StoreTimeoutError,
    TaskLookupError,
    TaskOptionError,
    TransientTaskError,
    UnreadableRecordError,
)

ALL = [getattr(exceptions, name) for name in exceptions.__all__]
NEEDS_ARGUMENTS: dict[type[AsynczException], tuple[Any, ...]] = {
    TaskLookupError: ("a", "jobs"),
    ConflictIdError: ("a",),
    MaximumInstancesError: ("a", 3),
    RetryAfter: (30.0, "not yet"),
    RunLookupError: ("a@2026-01-01T00:00:00+00:00",),
    Skip: ("nothing there",),
    SomeTasksError: ("red", ["a"], {"b": ValueError("on purpose")}),
}


def make(kind: type[AsynczException]) -> AsynczException:
    return kind(*NEEDS_ARGUMENTS.get(kind, ()))


def test_the_list_of_errors_is_all_of_them() -> None:
    found = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert found == set(exceptions.__all__)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_has_one_root(kind: type[Exception]) -> None:
    assert issubclass(kind, AsynczException)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (AsynczLookupError, LookupError),
        (TaskLookupError, AsynczLookupError),
        (SchedulerLookupError, AsynczLookupError),
        (PluginLookupError, AsynczLookupError),
        (ConflictError, KeyError),
        (ConflictIdError, ConflictError),
        (ConfigurationError, ValueError),
        (TaskOptionError, TypeError),
        (TaskOptionError, ValueError),
        (TransientTaskError, ValueError),
        (SerializationError, TypeError),
        (SerializationError, ValueError),
        (UnreadableRecordError, ValueError),
        (BlockingCallError, RuntimeError),
        (StoreInUseError, exceptions.StoreError),
        (StoreTimeoutError, TimeoutError),
    ],
)
def test_errors_can_be_caught_as_what_upstream_or_python_raises(
    kind: type[Exception], base: type[Exception]
) -> None:
    assert issubclass(kind, base)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in NEEDS_ARGUMENTS])
def test_an_error_without_arguments_has_its_docstring_as_message(
    kind: type[AsynczException],
) -> None:
    assert str(kind()) == str(kind.__doc__).splitlines()[0]
    assert str(kind("mine")) == "mine"


def test_an_error_without_a_docstring_has_its_name_as_message() -> None:
    class Undocumented(AsynczException):
        pass

    Undocumented.__doc__ = None
    assert str(Undocumented()) == "Undocumented"


@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_the_way_from_another_process(kind: type[AsynczException]) -> None:
    error = make(kind)
    back = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TaskLookupError("a"), "No task with the id 'a' in any store of this scheduler."),
        (TaskLookupError("a", "jobs"), "No task with the id 'a' in the store 'jobs'."),
        (ConflictIdError("a", "jobs"), "the id 'a' exists already in the store 'jobs'; give"),
        (ConflictIdError("a"), "exists already; give another id, or replace_existing=True"),
        (MaximumInstancesError("a", 3), "3 run(s) of the task 'a' are going on"),
        (SchedulerNotRunningError(), "call start() first"),
        (SchedulerAlreadyRunningError(), "shut it down first"),
    ],
)
def test_a_message_names_the_thing_and_what_to_do(error: AsynczException, text: str) -> None:
    assert text in str(error)


def test_what_an_error_is_about_can_be_read_from_it() -> None:
    lookup = TaskLookupError("a", "jobs")
    assert (lookup.task_id, lookup.store) == ("a", "jobs")
    assert ConflictIdError("a", "jobs").task_id == "a"
    assert (MaximumInstancesError("a", 3).task_id, MaximumInstancesError("a", 3).total) == ("a", 3)


def test_a_conflict_keeps_the_store_it_names() -> None:
    error = ConflictIdError("a", "jobs")
    assert str(copy.copy(error)) == str(error)
    assert copy.copy(error).store == "jobs"
