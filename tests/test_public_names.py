"""The public names, and the rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import asyncz

PUBLIC = [
    "AndTrigger",
    "AsyncIOExecutor",
    "AsyncIOScheduler",
    "Backoff",
    "BaseExecutor",
    "BaseStore",
    "BaseTrigger",
    "CalendarIntervalTrigger",
    "Clock",
    "CronTrigger",
    "CurrentRun",
    "DateTrigger",
    "DebugExecutor",
    "Delivery",
    "FileStore",
    "History",
    "IntervalTrigger",
    "MemoryStore",
    "NativeAsyncIOScheduler",
    "OrTrigger",
    "ProcessPoolExecutor",
    "Retry",
    "RetryAfter",
    "Run",
    "RunKind",
    "RunState",
    "SchedulerEvent",
    "SchedulerState",
    "ShutdownTrigger",
    "Skip",
    "SystemClock",
    "Task",
    "TaskEvent",
    "TaskExecutionEvent",
    "TaskInfo",
    "TaskRunPreview",
    "TaskScheduleState",
    "TaskSubmissionEvent",
    "ThreadPoolExecutor",
    "__version__",
    "current_run",
    "undefined",
]

HOUSE = [
    {"clock", "exceptions", "enums", "typing", "timezones", "file_lock", "text"},
    {"triggers"},
    {"runs"},
    {"tasks"},
    {"events"},
    {"serializers"},
    {"stores"},
    {"executors"},
    {"schedulers", "asgi"},
    {"testing"},
    {"cli", "dashboard", "migration"},
]
"""From the ground floor up: an import goes down or sideways inside a room, never up."""

FLOOR = {room: number for number, rooms in enumerate(HOUSE) for room in rooms}
ROOT = Path(asyncz.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("*.py"))


class Import(NamedTuple):
    """A module that a module imports, and whether it does so only for the type checker."""

    target: str
    for_types: bool


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT.parent))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def imports_of(path: Path) -> Iterator[Import]:
    for_types = {
        id(node)
        for block in nodes_of(path)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", id(node) in for_types)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def rooms_imported_by(path: Path) -> set[str]:
    return {
        found.target.split(".")[1]
        for found in imports_of(path)
        if found.target.startswith("asyncz.") and not found.for_types
    }


def test_the_public_names_are_these() -> None:
    assert sorted(asyncz.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported_and_is_listed(name: str) -> None:
    assert getattr(asyncz, name) is not None
    assert name in dir(asyncz)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'asyncz' has no attribute 'nope'"):
        _ = asyncz.nope


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import asyncz, sys; print([m for m in sys.modules if 'pydantic' in m or 'anyio' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_from_a_room_above(path: Path) -> None:
    if path.parent == ROOT and path.name == "__init__.py":
        return
    own = FLOOR[room_of(path)]
    above = {room for room in rooms_imported_by(path) if FLOOR[room] > own}
    assert above == set()


@pytest.mark.parametrize("room", ["triggers", "stores", "executors", "tasks", "events"])
def test_no_room_below_the_schedulers_imports_one(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        assert "asyncz.schedulers" not in path.read_text(), name_of(path)


def test_triggers_import_nothing_above_them() -> None:
    ground = HOUSE[0] | {"triggers"}
    found = {room for path in (ROOT / "triggers").rglob("*.py") for room in rooms_imported_by(path)}
    assert found <= ground


def test_the_public_packages_do_not_import_what_ships_for_tests() -> None:
    users = [path for path in MODULES if room_of(path) != "testing"]
    assert [name_of(path) for path in users if "testing" in rooms_imported_by(path)] == []


CLOCKS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "datetime.datetime.now",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
}
READINGS = {name.rpartition(".")[2] for name in CLOCKS}


def readings_in(path: Path) -> Iterator[tuple[str, int]]:
    """The clocks that a module reads, and the lines."""
    for node in nodes_of(path):
        if isinstance(node, ast.Attribute) and node.attr in READINGS:
            name = ast.unparse(node)
            if name in CLOCKS:
                yield name, node.lineno


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_clock_reads_the_time(path: Path) -> None:
    if path != ROOT / "clock.py":
        assert list(readings_in(path)) == []
        assert CLOCKS.isdisjoint(found.target for found in imports_of(path))


DANGEROUS_MODULES = {
    "cloudpickle",
    "copyreg",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "pickle",
    "shelve",
    "yaml",
}
UNPICKLES = ROOT / "migration" / "apscheduler.py"
"""The only module that does, and only for who says that the pickles are to be trusted."""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_pickles_or_evaluates_anything(path: Path) -> None:
    imported = {found.target.split(".")[0] for found in imports_of(path)}
    assert imported & DANGEROUS_MODULES == ({"pickle"} if path == UNPICKLES else set())
    picklers = {found.target for found in imports_of(path) if "Pickler" in found.target}
    if path != ROOT / "executors" / "process_pool.py":
        assert not picklers
    called = {
        node.func.id
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_longer_than_400_lines_and_no_function_than_40(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    long = [
        f"{node.name}: {lines}"
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := _lines_of_code(node)) > 40
    ]
    assert long == []


def _lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of the body, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_file_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__"}
    assert rooms <= FLOOR.keys()
