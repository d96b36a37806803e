"""asyncz 0.17: the same names in an environment of its own."""

from __future__ import annotations

from suite.adapters.asyncz_here import LibraryAdapter

__all__ = ["LibraryAdapter"]
