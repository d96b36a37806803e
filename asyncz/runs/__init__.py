"""Runs: the occurrences of tasks, and what became of each."""

from asyncz.runs.base import Run, RunQuery
from asyncz.runs.current import CurrentRun, current_run
from asyncz.runs.policy import History, Retry
from asyncz.runs.waits import Backoff

__all__ = ["Backoff", "CurrentRun", "History", "Retry", "Run", "RunQuery", "current_run"]
