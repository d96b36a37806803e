"""A place to run code of the documentation in, and a guard that nothing of it stays behind."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory that is the current one, and that modules can be imported from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path
    root.handlers[:], root.level = handlers, level  # some frameworks set up logging on their own
    for name in set(sys.modules) - before:
        # Only what the code brought: a library that is imported twice is two libraries.
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "site-packages" not in file and Path(file).parent.name in {
            tmp_path.name,
            "docs_src",
            "asgi",
        }:
            del sys.modules[name]
