"""What a task keeps in memory, of which there may be 100,000."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from pydantic import PrivateAttr

from asyncz import NativeAsyncIOScheduler, Task
from asyncz.exceptions import TaskOptionError

from . import jobs


def has_own_dictionary(task: Task) -> bool:
    return any(isinstance(held, dict) and "trigger" in held for held in gc.get_referents(task))


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="how CPython keeps attributes")
async def test_a_task_keeps_no_dictionary_of_its_own(scheduler: NativeAsyncIOScheduler) -> None:
    task = await scheduler.aadd_task(jobs.plain, "interval", args=[1], minutes=5)

    assert not has_own_dictionary(task)

    await scheduler.aupdate_task(task, name="other")
    assert task.name == "other"
    assert not has_own_dictionary(task)


class Counted(Task):
    """A user's own kind of task, with something to set up once the options are checked."""

    team: str = "none"
    _made: int = PrivateAttr(default=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._made += 1


async def test_a_subclass_with_private_attributes_is_set_up(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    task = Counted(fn=jobs.plain, args=(1,), team="a")
    assert task._made == 2

    await scheduler.aadd_task(task)
    assert (task.team, task.pending) == ("a", False)
    assert (task.model_fields_set >= {"team", "args"}, task._made) == (True, 2)


class Teamed(Task):
    team: str = "none"


async def test_a_subclass_with_more_fields_keeps_and_checks_them(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    task = await scheduler.aadd_task(Teamed(fn=jobs.plain, args=(1,), team="a"))
    assert isinstance(task, Teamed)

    await scheduler.aupdate_task(task, team="b")
    with pytest.raises(TaskOptionError, match="team"):
        await scheduler.aupdate_task(task, team=5)

    assert task.team == "b"
    assert task.model_dump()["team"] == "b"
    assert task.model_copy().team == "b"
