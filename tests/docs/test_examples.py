"""The programs of docs_src/ and the app of the README do what the documentation says."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest

from .blocks import CLIENT_WARNING, DOCS_SRC, ROOT, blocks_of, load, run_pytest

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", CLIENT_WARNING)
    from starlette.testclient import TestClient

PROGRAMS = sorted(DOCS_SRC.rglob("*.py"))
PATIENCE = 5.0


@pytest.mark.parametrize(
    "program", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in PROGRAMS]
)
def test_a_program_of_docs_src_can_be_imported_or_passes(
    program: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program.name.endswith("_test.py"):
        done = run_pytest(program)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        monkeypatch.syspath_prepend(program.parent)
        load(program)


def test_the_app_of_the_readme_runs_its_tasks_and_shows_them(workplace: Path) -> None:
    block = next(found for found in blocks_of(ROOT / "README.md") if found.title == "app.py")
    (workplace / "app.py").write_text(block.code, encoding="utf-8")
    module = load(workplace / "app.py")

    with TestClient(module.app) as client:
        ends = time.monotonic() + PATIENCE
        # The one-off is gone from its store as soon as it was handed over.
        while "welcome" in (shown := client.get("/tasks").json()) and time.monotonic() < ends:
            time.sleep(0.01)

    assert sorted(shown) == ["heartbeat", "report"]
    assert list((workplace / "tasks").glob("*.task"))
