"""What a task calls: references to callables, their kind, and whether arguments fit them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from asyncz.exceptions import TaskOptionError

__all__ = [
    "callable_name",
    "check_arguments",
    "is_coroutine_callable",
    "reference_to",
    "resolve_reference",
    "signature_of",
]


def resolve_reference(reference: str) -> Any:
    """Import what `package.module:qualified.name` names.

    Raises:
        TaskOptionError: The text has another form, or there is nothing of that name.
    """
    module_name, colon, path = reference.partition(":")
    if not (module_name and colon and path):
        raise TaskOptionError(
            f"{reference!r} is not a reference to a callable; write 'package.module:name'."
        )
    try:
        target: Any = import_module(module_name)
    except (ImportError, TypeError, ValueError) as exc:  # the last two: '.relative', '\0'
        raise TaskOptionError(f"{reference!r}: cannot import {module_name!r} ({exc}).") from exc
    for name in path.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            raise TaskOptionError(
                f"{reference!r}: {module_name!r} has no {path!r} ({name!r} is missing)."
            ) from None
    return target


def reference_to(fn: Callable[..., Any]) -> str | None:
    """The text that `resolve_reference` turns back into `fn`, or None if there is none.

    There is none for lambdas, nested functions, partials, callable objects and methods bound to
    an instance: another process could not find them again.
    """
    return _known_of(fn).reference


def _find_reference(fn: Callable[..., Any]) -> str | None:
    if isinstance(fn, MethodType):
        if not inspect.isclass(fn.__self__):
            return None
        module: Any = fn.__self__.__module__
        path: Any = f"{fn.__self__.__qualname__}.{fn.__name__}"
    else:
        module, path = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not module or not path or "<" in path:
        return None
    reference = f"{module}:{path}"
    try:
        found = resolve_reference(reference)
    except TaskOptionError:
        # A decorator sees its function before the module has bound the function's name.
        return reference if _is_being_imported(module) else None
    return reference if found == fn else None


def _is_being_imported(module: str) -> bool:
    if module == "__main__":
        return True
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def callable_name(fn: Callable[..., Any]) -> str:
    """A name for people: the qualified name of a function, the class of a callable object."""
    while isinstance(fn, partial):
        fn = fn.func
    if isinstance(fn, MethodType) and inspect.isclass(fn.__self__):
        return f"{fn.__self__.__qualname__}.{fn.__name__}"
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type(fn).__qualname__


def is_coroutine_callable(fn: Any) -> bool:
    """Whether calling `fn` gives a coroutine: also through partials and `__call__`."""
    if type(fn) is FunctionType and fn.__code__.co_flags & inspect.CO_COROUTINE:
        return True
    while isinstance(fn, partial):
        fn = fn.func
    if inspect.iscoroutinefunction(fn):
        return True
    # A function's own __call__ is a wrapper without a kind.
    if isinstance(fn, FunctionType | MethodType | BuiltinFunctionType | type):
        return False
    return inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


MOST_KINDS = 64
"""Kinds of arguments that are remembered of a callable; one may be called in any number of ways."""


class _Known:
    """What has been found out about a callable, for as long as it lives."""

    __slots__ = ("fitting", "reference", "signature")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.reference = _find_reference(fn)
        # What fits is a matter of how many there are and of their names, not of the values.
        self.fitting: set[tuple[object, ...]] = set()
        self.signature: inspect.Signature | None = None
        with suppress(TypeError, ValueError):  # some builtins have no signature to look at
            self.signature = inspect.signature(fn)


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def _known_of(fn: Callable[..., Any]) -> _Known:
    try:
        return _known[fn]
    except (KeyError, TypeError):  # not seen yet; not hashable, or no weak references to it
        known = _Known(fn)
    with suppress(TypeError):
        _known[fn] = known
    return known


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of `fn`; None if it has none to look at."""
    return _known_of(fn).signature


def check_arguments(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Make sure that `fn(*args, **kwargs)` would bind.

    Raises:
        TaskOptionError: It would not; the message names the argument.
    """
    known = _known_of(fn)
    kind: tuple[object, ...] = (len(args), *kwargs)
    if known.signature is None or kind in known.fitting:
        return
    try:
        known.signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise TaskOptionError(
            f"The arguments do not fit {callable_name(fn)}{_outline(known.signature)}: {exc}."
        ) from None
    if len(known.fitting) < MOST_KINDS:
        known.fitting.add(kind)


class _Hidden:
    """Stands for a default in messages: a partial's are arguments, and may be secrets."""

    def __repr__(self) -> str:
        return "…"


def _outline(signature: inspect.Signature) -> inspect.Signature:
    """The signature without annotations, and without the values of its defaults."""
    hidden = _Hidden()
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else hidden,
        )
        for parameter in signature.parameters.values()
    ]
    return inspect.Signature(parameters)
