"""References to callables, their kind, and whether arguments fit them."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest

from asyncz import Task
from asyncz.exceptions import TaskOptionError
from asyncz.tasks import callables
from asyncz.tasks.callables import (
    callable_name,
    check_arguments,
    is_coroutine_callable,
    reference_to,
    resolve_reference,
    signature_of,
)

from . import jobs

HERE = jobs.__name__
COROUTINES: list[Callable[..., Any]] = [
    jobs.coroutine,
    jobs.worker.coroutine_method,
    jobs.CoroutineObject(),
    partial(jobs.coroutine, 1),
    partial(partial(jobs.CoroutineObject()), 1),
    AsyncMock(),
]
PLAIN: list[Callable[..., Any]] = [
    jobs.plain,
    jobs.worker.method,
    jobs.Worker.class_method,
    jobs.Worker.static_method,
    jobs.CallableObject(),
    jobs.CoroutineObject,
    partial(jobs.plain, 1),
    lambda: None,
    print,
    "text".upper,
]


@pytest.mark.parametrize("fn", COROUTINES, ids=callable_name)
def test_a_callable_that_gives_a_coroutine_is_known_as_one(fn: Callable[..., Any]) -> None:
    assert is_coroutine_callable(fn)


@pytest.mark.parametrize("fn", PLAIN, ids=callable_name)
def test_any_other_callable_is_a_plain_one(fn: Callable[..., Any]) -> None:
    assert not is_coroutine_callable(fn)


@pytest.mark.parametrize(
    ("fn", "path"),
    [
        (jobs.plain, "plain"),
        (jobs.coroutine, "coroutine"),
        (jobs.Worker.class_method, "Worker.class_method"),
        (jobs.Worker.static_method, "Worker.static_method"),
        (jobs.Worker, "Worker"),
    ],
)
def test_what_can_be_imported_has_a_reference_that_leads_back(
    fn: Callable[..., Any], path: str
) -> None:
    assert reference_to(fn) == f"{HERE}:{path}"
    assert resolve_reference(f"{HERE}:{path}") == fn


@pytest.mark.parametrize(
    "fn",
    [
        lambda: None,
        partial(jobs.plain, 1),
        jobs.worker.method,
        jobs.CallableObject(),
        jobs.Unhashable(),
    ],
    ids=callable_name,
)
def test_what_another_process_could_not_find_has_no_reference(fn: Callable[..., Any]) -> None:
    assert reference_to(fn) is None


def test_a_function_within_a_function_has_no_reference() -> None:
    def nested() -> None: ...

    assert reference_to(nested) is None


def test_a_function_that_was_replaced_in_its_module_has_no_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def impostor() -> None: ...

    impostor.__module__, impostor.__qualname__ = HERE, "plain"
    assert reference_to(impostor) is None


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("no colon", "write 'package.module:name'"),
        (":name", "write 'package.module:name'"),
        ("module:", "write 'package.module:name'"),
        ("", "write 'package.module:name'"),
        ("no_such_package_at_all:name", "cannot import 'no_such_package_at_all'"),
        (".relative:name", "cannot import '.relative'"),
        (f"{HERE}:missing", "'missing' is missing"),
        (f"{HERE}:Worker.missing", "'missing' is missing"),
    ],
)
def test_a_bad_reference_says_what_is_wrong_with_it(reference: str, complaint: str) -> None:
    with pytest.raises(TaskOptionError, match=complaint):
        resolve_reference(reference)


def test_a_reference_to_something_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TaskOptionError, match="names a int, not a callable"):
        Task(f"{HERE}:not_callable")


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (jobs.plain, "plain"),
        (partial(partial(jobs.plain, 1), 2), "plain"),
        (jobs.worker.method, "Worker.method"),
        (jobs.Worker.class_method, "Worker.class_method"),
        (jobs.CallableObject(), "CallableObject"),
    ],
)
def test_a_callable_has_a_name_for_people(fn: Callable[..., Any], name: str) -> None:
    assert callable_name(fn) == name


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((), {}, "'first'"),
        ((), {"second": 1}, "'first'"),
        ((1,), {"first": 1}, "'first'"),
        ((1,), {"fourth": 1}, "'fourth'"),
        ((1, 2, 3), {}, r"too many positional arguments"),
    ],
)
@pytest.mark.parametrize("fn", [jobs.plain, f"{HERE}:plain"], ids=["object", "reference"])
def test_arguments_that_do_not_fit_are_refused_by_name(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TaskOptionError, match=complaint):
        Task(fn, args=args, kwargs=kwargs)


@pytest.mark.parametrize(
    "fn",
    [
        jobs.coroutine,
        jobs.worker.method,
        jobs.worker.coroutine_method,
        jobs.Worker.class_method,
        jobs.CallableObject(),
        jobs.CoroutineObject(),
        jobs.Unhashable(),
        partial(jobs.plain, second=2),
    ],
    ids=callable_name,
)
def test_every_kind_of_callable_has_its_arguments_checked(fn: Callable[..., Any]) -> None:
    with pytest.raises(TaskOptionError, match="'first'"):
        Task(fn)
    assert Task(fn, args=[1]).args == (1,)


def test_a_callable_that_takes_anything_is_never_refused() -> None:
    check_arguments(jobs.anything, (1, 2), {"x": 3})
    check_arguments(jobs.anything, (), {})


def test_a_builtin_without_a_signature_is_not_checked() -> None:
    assert signature_of(type) is None
    check_arguments(type, (1, 2, 3, 4, 5), {"x": 1})


def test_the_arguments_of_a_partial_are_not_in_the_error() -> None:
    fn = partial(jobs.plain, third="canary-3141")  # type: ignore[arg-type]
    with pytest.raises(TaskOptionError, match=r"\(first, second=…, \*, third=…\)") as caught:
        Task(fn)
    assert "canary" not in str(caught.value)


def test_a_signature_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh(first: int) -> None: ...

    Task(fresh, args=[1])
    monkeypatch.setattr(inspect, "signature", _refuse)
    assert Task(fresh, args=[2]).args == (2,)


def _refuse(fn: object) -> None:
    raise AssertionError("looked at again")


def test_what_is_known_of_a_callable_goes_with_it() -> None:
    def short_lived() -> None: ...

    Task(short_lived)
    gc.collect()
    before = len(callables._known)
    del short_lived
    gc.collect()
    assert len(callables._known) == before - 1
