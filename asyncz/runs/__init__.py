"""Runs: the occurrences of tasks, and what became of each."""

from asyncz.runs.base import Run, RunQuery

__all__ = ["Run", "RunQuery"]
