"""Which callables a record may name, and finding them."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from importlib import import_module, invalidate_caches
from threading import Lock
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

__all__ = ["CallableReferences", "ReferenceRefusedError"]

FIRST_RETRY = 1.0
LAST_RETRY = 30.0
MOST_REMEMBERED = 1024

STANDARD_LIBRARY = sys.stdlib_module_names | {"builtins"}

_DEFINED_IN_C = (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)


class ReferenceRefusedError(ValueError):
    """A reference names nothing that may be called, or nothing that is there; says which."""


class _Failure(NamedTuple):
    """A module that could not be imported."""

    reason: str
    retry_at: float
    delay: float


class CallableReferences:
    """Finds what a reference names, if it may be called from a record.

    Whoever can write to a store chooses the reference and the arguments. So the standard library
    and the builtins are out (`os:system`), and so are all ways to reach them through a module
    that is in: through a module it imported (`myapp:os.system`), a name it imported
    (`myapp:system`), or an attribute of Python's own (`myapp:job.__globals__.update`).

    Args:
        allowed: Patterns of `fnmatch` such as `myapp.jobs:*`; a reference must match one. None:
            any module outside the standard library. A reference given in full is allowed
            whatever it names; a pattern lets the standard library in only if it begins with its
            module's name.
    """

    def __init__(self, allowed: tuple[str, ...] | None = None) -> None:
        self.allowed = allowed
        self._exact = frozenset(allowed or ())
        self._failures: OrderedDict[str, _Failure] = OrderedDict()
        self._found: dict[str, Any] = {}
        self._lock = Lock()
        self._check_name = lru_cache(maxsize=MOST_REMEMBERED)(self._check_name_now)

    def check(self, reference: str, fn: Any) -> None:
        """Raise ReferenceRefusedError if a record may not name `fn` by that reference.

        Imports nothing, and does not mind that the name is not bound yet: a decorator sees its
        function before its module does.
        """
        self._check_name(reference)
        module_name, _, path = reference.partition(":")
        target = sys.modules.get(module_name)
        for name in path.split(".")[:-1]:
            target = getattr(target, name, None)
            _refuse_module(reference, target)
        self._check_found(reference, fn)

    def resolve(self, reference: str, now: float) -> Callable[..., Any]:
        """Import what the reference names.

        Args:
            reference: `package.module:qualified.name`.
            now: Of the monotonic clock. A module that failed to be imported is tried again after
                a second, and after twice as long each time until it is half a minute.

        Raises:
            ReferenceRefusedError: It may not be called, or cannot be found.
        """
        self._check_name(reference)
        module_name, _, path = reference.partition(":")
        target: Any = self._import(module_name, now)
        for name in path.split("."):
            try:
                target = getattr(target, name)
            except Exception as exc:  # a property may raise anything
                raise ReferenceRefusedError(
                    f"{reference!r}: {module_name!r} has no {path!r} "
                    f"({name!r}: {type(exc).__name__})."
                ) from None
            _refuse_module(reference, target)
        found: Callable[..., Any] = target
        if self._found.get(reference) is found:
            return found  # type: ignore[no-any-return]  # it was found before
        if not callable(found):
            raise ReferenceRefusedError(
                f"{reference!r} names a {type(found).__name__}, not a callable."
            )
        self._check_found(reference, found)
        if len(self._found) < MOST_REMEMBERED:
            self._found[reference] = found
        return found

    def _check_name_now(self, reference: str) -> None:
        module_name, colon, path = reference.partition(":")
        parts = [*module_name.split("."), *path.split(".")]
        if not colon or not all(part.isidentifier() for part in parts):
            raise ReferenceRefusedError(
                f"{reference!r} is not a reference to a callable ('package.module:name')."
            )
        if reference in self._exact:
            return
        if any(part.startswith("__") for part in path.split(".")):
            raise ReferenceRefusedError(
                f"{reference!r} goes through an attribute of Python's own, which a record may not."
            )
        top = module_name.partition(".")[0]
        if not self._is_allowed(reference, top):
            raise ReferenceRefusedError(self._why_not(reference, top))

    def _is_allowed(self, reference: str, top: str) -> bool:
        if self.allowed is None:
            return top not in STANDARD_LIBRARY
        patterns = self.allowed
        if top in STANDARD_LIBRARY:
            patterns = tuple(p for p in patterns if p.startswith((f"{top}.", f"{top}:")))
        return any(fnmatchcase(reference, pattern) for pattern in patterns)

    def _why_not(self, reference: str, top: str) -> str:
        if top in STANDARD_LIBRARY:
            return (
                f"{reference!r} is of the standard library, which a record may not call; "
                f"wrap it in a function of your own, or list it in allowed_callables."
            )
        return f"{reference!r} matches no pattern of allowed_callables; add one that it matches."

    def _check_found(self, reference: str, fn: Any) -> None:
        top = reference.partition(":")[0].partition(".")[0]
        if reference in self._exact or top in STANDARD_LIBRARY:
            return
        home = _home_of(fn)
        if home.partition(".")[0] in STANDARD_LIBRARY:
            raise ReferenceRefusedError(
                f"{reference!r} leads to a callable of the standard library ({home!r}), which a "
                f"record may not call; wrap it in a function of your own, or list this reference "
                f"in allowed_callables."
            )

    def _import(self, name: str, now: float) -> ModuleType:
        module = sys.modules.get(name)
        if module is not None:
            # One that another thread is importing is used as far as it got: to wait for it
            # would be for ever if that thread waits for this store.
            return module
        with self._lock:
            failure = self._failures.get(name)
        if failure is not None and now < failure.retry_at:
            raise ReferenceRefusedError(failure.reason)
        try:
            module = self._import_now(name, retry=failure is not None)
        except ReferenceRefusedError as exc:
            self._remember(name, str(exc), failure, now)
            raise
        with self._lock:
            self._failures.pop(name, None)
        return module

    def _import_now(self, name: str, retry: bool) -> ModuleType:
        parent = name.rpartition(".")[0]
        while parent:
            if _is_being_imported(parent):
                raise ReferenceRefusedError(
                    f"Cannot import {name!r} yet: {parent!r} is still being imported."
                )
            parent = parent.rpartition(".")[0]
        if retry:
            invalidate_caches()
        try:
            return import_module(name)
        except (Exception, SystemExit) as exc:  # anything may be at the top of a module
            # What any other error says may hold a secret, a database's URL for instance.
            why = f": {exc}" if isinstance(exc, ImportError | SyntaxError) else ""
            raise ReferenceRefusedError(
                f"Cannot import {name!r}: {type(exc).__name__}{why}."
            ) from None

    def _remember(self, name: str, reason: str, last: _Failure | None, now: float) -> None:
        delay = FIRST_RETRY if last is None else min(last.delay * 2, LAST_RETRY)
        with self._lock:
            self._failures[name] = _Failure(reason, now + delay, delay)
            self._failures.move_to_end(name)
            if len(self._failures) > MOST_REMEMBERED:
                self._failures.popitem(last=False)


def _refuse_module(reference: str, found: Any) -> None:
    if isinstance(found, ModuleType):
        raise ReferenceRefusedError(
            f"{reference!r} goes through the module {found.__name__!r}; name the callable in the "
            f"module that defines it."
        )


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _home_of(fn: Any) -> str:
    """The module that defines what would be called."""
    while isinstance(fn, partial | MethodType):
        fn = fn.func if isinstance(fn, partial) else fn.__func__
    home = getattr(fn, "__module__", None)
    if not home and isinstance(fn, _DEFINED_IN_C):
        return "builtins"
    return home if isinstance(home, str) else ""
