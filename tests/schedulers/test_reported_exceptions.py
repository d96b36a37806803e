"""Reported to the exceptions: what is lost on the way from another process."""

from __future__ import annotations

import copy

from asyncz.exceptions import ConflictIdError


def test_a_conflict_keeps_the_store_it_names() -> None:
    error = ConflictIdError("a", "jobs")
    assert str(copy.copy(error)) == str(error)
