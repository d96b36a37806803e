"""The Python code of README.md and docs/: finding it, writing it to files, running it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module, invalidate_caches
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCS_SRC = ROOT / "docs_src"

FENCE = re.compile(
    r"^(?P<indent> *)```python(?P<options>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)
TITLE = re.compile(r'title="([^"]+)"')
INCLUDED = re.compile(r'^--8<-- "([^"]+)"$', re.M)
SHOWN = "#> "
CLIENT_WARNING = "Using `httpx` with `starlette.testclient` is deprecated"
"""Of Starlette, to whoever has not installed the other library; nothing of ours."""
OPTIONAL = {"alembic", "litestar"}
"""Libraries that the documentation shows and the tests do not install."""


class Block(NamedTuple):
    """One block of Python code.

    Args:
        page: The page's path from the root of the repository.
        line: Where its first line is on that page.
        title: The name of the file that the reader is told to save it as, or an empty text.
        code: The code, with what it includes.
    """

    page: str
    line: int
    title: str
    code: str

    @property
    def file_name(self) -> str:
        return self.title or f"line_{self.line}_of_{Path(self.page).stem.replace('-', '_')}.py"

    @property
    def is_for_pytest(self) -> bool:
        return (
            re.search(r"^import pytest|^(async )?def test_|^class Test", self.code, re.M)
            is not None
        )

    @property
    def has_tests(self) -> bool:
        return re.search(r"^(async )?def test_|^class Test", self.code, re.M) is not None

    @property
    def shown_output(self) -> list[str]:
        """The lines that the block says it prints."""
        lines = (line.strip() for line in self.code.splitlines())
        return [line.removeprefix(SHOWN) for line in lines if line.startswith(SHOWN)]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = TITLE.search(match["options"])
        code = INCLUDED.sub(lambda name: (ROOT / name[1]).read_text(), dedent(match["code"]))
        line = text.count("\n", 0, match.start("code")) + 1
        place = page.relative_to(ROOT).as_posix()
        found.append(Block(place, line, title[1] if title else "", code))
    return found


def load(path: Path) -> ModuleType:
    """Import a file as the module of its name; its folder is on the path already."""
    invalidate_caches()
    try:
        module = import_module(path.stem)
    except ModuleNotFoundError as exc:
        if exc.name in OPTIONAL:
            pytest.skip(f"{exc.name} is not installed")
        raise
    if module.__file__ is None or not path.samefile(module.__file__):
        raise ImportError(f"There is another module {path.stem!r}: {module.__file__}.")
    return module


def run_pytest(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of a file as a reader would, in a process of its own."""
    # Most of the time goes into the plugins that are installed, of which one is needed.
    options = ["-q", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"]
    options += ["-c", str(ROOT / "pyproject.toml")]
    options += [f"--rootdir={path.parent}", "-W", f"ignore:{CLIENT_WARNING}"]
    command = [sys.executable, "-m", "pytest", *options, path.name]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{path.parent}{os.pathsep}{ROOT}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
    }
    return subprocess.run(
        command, cwd=path.parent, env=environment, capture_output=True, text=True, timeout=60
    )
