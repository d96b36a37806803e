"""Every Python block of the documentation runs, and prints what it says it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from .blocks import Block, blocks_of, load, pages, run_pytest

BLOCKS = [block for page in pages() for block in blocks_of(page)]


def write_named_files(block: Block, place: Path) -> None:
    """The files that the reader of this page was told to save."""
    for other in BLOCKS:
        if other.page == block.page and other.title:
            (place / other.title).write_text(other.code, encoding="utf-8")


def test_there_are_blocks_to_run() -> None:
    assert {block.page for block in BLOCKS} >= {"README.md", "docs/tutorial.md", "docs/testing.md"}


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=f"{block.page}:{block.line}") for block in BLOCKS],
)
def test_a_block_runs_and_prints_what_it_says(
    block: Block, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_named_files(block, workplace)
    file = workplace / block.file_name
    file.write_text(block.code, encoding="utf-8")

    if block.is_for_pytest:
        done = run_pytest(file)
        expected = pytest.ExitCode.OK if block.has_tests else pytest.ExitCode.NO_TESTS_COLLECTED
        assert done.returncode == expected, done.stdout + done.stderr
    else:
        load(file)
        if block.shown_output:
            assert capsys.readouterr().out.splitlines() == block.shown_output
