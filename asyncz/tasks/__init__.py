"""Tasks: what to call, with what, when and where."""

from asyncz.tasks.base import Task
from asyncz.tasks.inspection import TaskInfo, TaskRunPreview

__all__ = ["Task", "TaskInfo", "TaskRunPreview"]
