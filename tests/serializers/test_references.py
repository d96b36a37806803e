"""Which callables a record may name."""

from __future__ import annotations

import builtins
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncz.serializers.references import CallableReferences, ReferenceRefusedError

from . import jobs

HERE = jobs.__name__

HOSTILE = [
    "os:system",
    "posix:system",
    "subprocess:run",
    "builtins:eval",
    "builtins:exec",
    "builtins:__import__",
    "importlib:import_module",
    "pickle:loads",
    "os.path:os.system",
    f"{HERE}:system",
    f"{HERE}:partial",
    f"{HERE}:prepared_print",
    f"{HERE}:settings.update",
    f"{HERE}:anything.__globals__.update",
    f"{HERE}:anything.__class__",
    f"{HERE}:Service.__init__",
    f"{HERE}:Service.__subclasses__",
    f"{HERE}:Service.mro",
    f"{HERE}:Color.RED.name.format",
    f"{HERE}:cached.cache_clear",
    "asyncz.serializers.references:sys.exit",
    "asyncz.file_lock:os.system",
    "asyncz.serializers:json.JSONSerializer",
    "",
    ":",
    "a:",
    ":b",
    "a b:c",
    "a:b c",
    "a:b()",
    "../a:b",
    "a/b:c",
    ".a:b",
    "a..b:c",
    "a:b.",
    "a:b:c",
    "a\0:b",
]

FRIENDLY = [
    "anything",
    "Service",
    "Service.build",
    "Service.static",
    "service",
    "prepared",
    "cached",
    "Order",
]


@pytest.mark.parametrize("reference", HOSTILE)
def test_what_is_not_the_apps_own_is_refused(reference: str) -> None:
    with pytest.raises(ReferenceRefusedError):
        CallableReferences().resolve(reference, 0)


@pytest.mark.parametrize("reference", HOSTILE)
def test_a_pattern_for_everything_does_not_change_that(reference: str) -> None:
    with pytest.raises(ReferenceRefusedError):
        CallableReferences(("*", f"{HERE}:*", "a*")).resolve(reference, 0)


@pytest.mark.parametrize("path", FRIENDLY)
def test_the_apps_own_callables_are_found(path: str) -> None:
    found = CallableReferences().resolve(f"{HERE}:{path}", 0)
    target: Any = jobs
    for name in path.split("."):
        target = getattr(target, name)
    assert found == target
    CallableReferences().check(f"{HERE}:{path}", found)


@pytest.mark.parametrize(
    ("reference", "fn"),
    [
        ("os:system", os.system),
        (f"{HERE}:system", os.system),
        ("builtins:print", print),
        (f"{HERE}:settings.update", jobs.settings.update),
        ("asyncz.file_lock:os.getcwd", os.getcwd),
    ],
)
def test_the_check_before_adding_refuses_them_too(reference: str, fn: Any) -> None:
    with pytest.raises(ReferenceRefusedError):
        CallableReferences().check(reference, fn)


def test_a_step_through_a_module_is_refused_before_adding_too() -> None:
    with pytest.raises(ReferenceRefusedError, match="goes through the module"):
        CallableReferences().check("asyncz.serializers:json.JSONSerializer", jobs.anything)


def test_patterns_limit_what_is_allowed() -> None:
    references = CallableReferences((f"{HERE}:Service.*", "shop.*:run_*"))
    assert references.resolve(f"{HERE}:Service.static", 0) is jobs.Service.static
    with pytest.raises(ReferenceRefusedError, match="matches no pattern"):
        references.resolve(f"{HERE}:anything", 0)


def test_the_standard_library_can_be_allowed_by_name() -> None:
    assert CallableReferences(("os:getcwd",)).resolve("os:getcwd", 0) is os.getcwd
    assert CallableReferences(("json:*",)).resolve("json:dumps", 0) is json.dumps
    assert CallableReferences((f"{HERE}:system",)).resolve(f"{HERE}:system", 0) is os.system


def test_nothing_is_imported_for_a_hostile_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    class Spy:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            imported.append(name)

    draw = random.Random(7)
    stdlib = sorted(name for name in sys.stdlib_module_names if name not in sys.modules)
    tails = ["system", "__init__", "a.__class__", "run", "__import__", "x y", "(", ""]
    monkeypatch.setattr(sys, "meta_path", [Spy, *sys.meta_path])
    references = CallableReferences()
    for _ in range(10_000):
        name = draw.choice(stdlib) + draw.choice(["", ".x", ".__main__"])
        with pytest.raises(ReferenceRefusedError):
            references.resolve(f"{name}:{draw.choice(tails)}", 0)
    assert imported == []


class Modules:
    """A directory on the path to write modules into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        (self.path / f"{name}.py").write_text(text)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Modules(tmp_path)


def test_a_module_that_is_missing_is_tried_again_later(modules: Modules) -> None:
    references = CallableReferences()
    with pytest.raises(ReferenceRefusedError, match="Cannot import 'deployed_later'"):
        references.resolve("deployed_later:run", 10)
    modules.write("deployed_later", "def run(): pass")
    with pytest.raises(ReferenceRefusedError, match="Cannot import"):
        references.resolve("deployed_later:run", 10.5)
    assert callable(references.resolve("deployed_later:run", 11))


def test_a_module_that_fails_is_executed_less_and_less_often(modules: Modules) -> None:
    builtins.executed = []  # type: ignore[attr-defined]
    modules.write("fails_always", "import builtins\nbuiltins.executed.append(1)\nraise SystemExit")
    references = CallableReferences()
    for second in range(301):
        with pytest.raises(ReferenceRefusedError, match="SystemExit"):
            references.resolve("fails_always:run", second)
    tried = len(builtins.executed)  # type: ignore[attr-defined]
    del builtins.executed  # type: ignore[attr-defined]
    assert tried == 14  # then after 1, 2, 4, 8 and 16 seconds, and each 30


@pytest.mark.parametrize("text", ["syntax error", "1 / 0", "import no_such_module_at_all"])
def test_whatever_a_module_raises_is_a_refusal(modules: Modules, text: str) -> None:
    modules.write("broken_module", text)
    with pytest.raises(ReferenceRefusedError, match="Cannot import 'broken_module'"):
        CallableReferences().resolve("broken_module:run", 0)


def test_what_a_failing_module_says_is_not_repeated(modules: Modules) -> None:
    modules.write("tells_secrets", "raise RuntimeError('postgresql://me:hunter2@db')")
    with pytest.raises(ReferenceRefusedError, match="RuntimeError") as caught:
        CallableReferences().resolve("tells_secrets:run", 0)
    assert "hunter2" not in str(caught.value)


def test_a_module_in_the_middle_of_its_import_is_not_waited_for(modules: Modules) -> None:
    modules.write(
        "half_done",
        "from asyncz.serializers.references import CallableReferences as R\n"
        "import threading\n"
        "def early(): pass\n"
        "found = []\n"
        "def look():\n"
        "    try: found.append(R().resolve('half_done:early', 0))\n"
        "    except BaseException as exc: found.append(exc)\n"
        "thread = threading.Thread(target=look)\n"
        "thread.start()\n"
        "thread.join(10)\n",
    )
    references = CallableReferences()
    early = references.resolve("half_done:early", 0)
    assert sys.modules["half_done"].found == [early]
