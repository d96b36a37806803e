"""`update_task` checks everything before it changes anything."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncz import IntervalTrigger, Task
from asyncz.exceptions import TaskOptionError

from . import jobs

GOOD: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(min_size=1),
    "args": st.lists(st.integers(), min_size=1, max_size=2),
    "kwargs": st.fixed_dictionaries({"third": st.integers()}),
    "coalesce": st.booleans(),
    "trigger": st.builds(IntervalTrigger, minutes=st.integers(1, 99), timezone=st.just("UTC")),
    "executor": st.text(min_size=1),
    "mistrigger_grace_time": st.none() | st.floats(0.1, 1e6),
    "max_instances": st.integers(1, 99),
    "next_run_time": st.none() | st.datetimes(timezones=st.timezones()),
    "fn": st.sampled_from([jobs.plain, f"{jobs.__name__}:plain", jobs.anything]),
}
BAD: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["", 5]),
    "args": st.sampled_from(["text", 5, [], [1, 2, 3, 4]]),
    "kwargs": st.sampled_from([{"unknown": 1}, {"first": 1}, [1]]),
    "coalesce": st.sampled_from(["yes", 1, None]),
    "trigger": st.sampled_from(["interval", 5]),
    "executor": st.sampled_from(["", 5]),
    "mistrigger_grace_time": st.sampled_from([0, -1, "x", float("nan")]),
    "max_instances": st.sampled_from([0, "1", None]),
    "next_run_time": st.sampled_from(["soon", 5, "2026-01-01T00:00:00"]),
    "fn": st.sampled_from([5, "no:such", jobs.nothing]),
    "id": st.just("other"),
    "pending": st.just(False),
    "submitted": st.just(True),
    "fn_reference": st.just("a:b"),
    "surprise": st.just(1),
}


def make_task() -> Task:
    return Task(jobs.plain, args=[1], id="a", trigger=IntervalTrigger(minutes=5, timezone="UTC"))


def state_of(task: Task) -> tuple[dict[str, Any], set[str]]:
    return dict(task.__dict__), set(task.model_fields_set)


@st.composite
def spoiled_updates(draw: st.DrawFn) -> dict[str, Any]:
    """Any good updates with one bad one among them, in any order."""
    spoiled = draw(st.sampled_from(sorted(BAD)))
    others = draw(st.sets(st.sampled_from(sorted(GOOD.keys() - {spoiled, "fn"}))))
    updates = {name: draw(GOOD[name]) for name in others - {"args", "kwargs"}}
    updates[spoiled] = draw(BAD[spoiled])
    return dict(draw(st.permutations(sorted(updates.items(), key=lambda item: item[0]))))


@given(spoiled_updates())
def test_an_update_with_one_bad_option_changes_nothing(updates: dict[str, Any]) -> None:
    task = make_task()
    before = state_of(task)
    with pytest.raises(TaskOptionError):
        task.update_task(**updates)
    assert state_of(task) == before


@given(st.fixed_dictionaries({}, optional=GOOD))
def test_a_good_update_changes_what_it_names_and_nothing_else(updates: dict[str, Any]) -> None:
    task = make_task()
    before, _ = state_of(task)
    task.update_task(**updates)
    changed = {name for name, value in task.__dict__.items() if value is not before[name]}
    changed -= {name for name in changed if task.__dict__[name] == before[name]}
    allowed = {"name", "fn_reference"} if "fn" in updates else set()
    assert changed <= updates.keys() | allowed
    assert updates.keys() <= task.model_fields_set
    for name in updates.keys() - {"fn", "args"}:
        assert getattr(task, name) == updates[name]


def test_arguments_are_checked_against_the_new_function() -> None:
    task = make_task()
    with pytest.raises(TaskOptionError, match="too many positional arguments"):
        task.update_task(fn=jobs.nothing)
    task.update_task(fn=jobs.nothing, args=())
    assert (task.fn, task.name) == (jobs.nothing, "nothing")


def test_a_name_of_ones_own_stays_when_the_function_changes() -> None:
    task = make_task()
    task.update_task(name="mine")
    task.update_task(fn=jobs.anything)
    assert task.name == "mine"


@pytest.mark.parametrize("path", ["ready_made", "callable_object", "worker.method"])
def test_a_task_given_by_reference_keeps_the_reference_through_an_update(path: str) -> None:
    reference = f"{jobs.__name__}:{path}"
    task = Task(reference, args=() if path == "ready_made" else [1])
    task.update_task(max_instances=2)
    assert (task.fn_reference, task.max_instances) == (reference, 2)


def test_a_new_function_brings_its_own_reference() -> None:
    task = make_task()
    task.update_task(fn=partial(jobs.plain, 1), args=())
    assert task.fn_reference is None
    task.update_task(fn=f"{jobs.__name__}:ready_made")
    assert task.fn_reference == f"{jobs.__name__}:ready_made"


def test_the_error_lists_what_can_be_changed() -> None:
    with pytest.raises(TaskOptionError, match=r"'a': id, surprise cannot be changed; .*args, "):
        make_task().update_task(surprise=1, id="b")


def test_a_scheduler_can_be_given_to_a_task() -> None:
    task, host = make_task(), object()
    task.update_task(scheduler=host)  # type: ignore[arg-type]
    assert task.scheduler is host
