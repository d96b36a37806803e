"""Adding, changing, finding and running tasks through the scheduler."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from asyncz import DateTrigger, IntervalTrigger, NativeAsyncIOScheduler, Task
from asyncz.events.constants import (
    ALL_TASKS_REMOVED,
    TASK_ADDED,
    TASK_MODIFIED,
    TASK_REMOVED,
    TASK_SUBMITTED,
)
from asyncz.exceptions import (
    ConflictIdError,
    MaximumInstancesError,
    PluginLookupError,
    SchedulerNotRunningError,
    TaskLookupError,
    TaskOptionError,
)
from asyncz.testing import VirtualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


async def job(*args: Any, **kwargs: Any) -> None:
    """Does nothing with anything."""


async def strict(number: int) -> None:
    """Wants exactly one argument."""


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
async def scheduler(clock: VirtualClock) -> AsyncIterator[NativeAsyncIOScheduler]:
    async with NativeAsyncIOScheduler(clock=clock, timezone="UTC") as running:
        yield running


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"trigger": "hourly"}, PluginLookupError, "no trigger 'hourly'"),
        ({"store": "nowhere"}, PluginLookupError, "no store 'nowhere'"),
        ({"executor": "gpu"}, PluginLookupError, "no executor 'gpu'"),
        ({"trigger": 5}, TaskOptionError, "trigger"),
        ({"trigger": "interval", "seconds": -1}, ValueError, "seconds"),
        ({"max_instances": 0}, TaskOptionError, "max_instances"),
        ({"max_instances": "two"}, TaskOptionError, "max_instances"),
        ({"coalesce": "yes"}, TaskOptionError, "coalesce"),
        ({"mistrigger_grace_time": -1}, TaskOptionError, "mistrigger_grace_time"),
        ({"mistrigger_grace_time": float("nan")}, TaskOptionError, "mistrigger_grace_time"),
        ({"next_run_time": datetime(2026, 1, 1)}, TaskOptionError, "next_run_time"),
        ({"next_run_time": "tomorrow"}, TaskOptionError, "next_run_time"),
        ({"args": "abc"}, TaskOptionError, "args"),
        ({"kwargs": ["a"]}, TaskOptionError, "kwargs"),
        ({"id": ""}, TaskOptionError, "id"),
        ({"id": 7}, TaskOptionError, "id"),
        ({"name": 7}, TaskOptionError, "name"),
        ({"max_instance": 2}, ValueError, "max_instance"),
        ({"trigger": DateTrigger(), "max_instance": 2}, TaskOptionError, "max_instance"),
        ({"trigger": "interval", "seconds": 1, "end_at": "2020-01-01"}, ValueError, "trigger"),
    ],
)
async def test_bad_input_is_refused_by_name_and_changes_nothing(
    scheduler: NativeAsyncIOScheduler,
    options: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises((error, ValidationError), match=text):
        scheduler.add_task(job, **options)

    assert scheduler.get_tasks() == []


@pytest.mark.parametrize("fn", [None, 5, "not a reference", "os:nothing", "no_such_module:fn"])
async def test_what_cannot_be_called_is_refused(scheduler: NativeAsyncIOScheduler, fn: Any) -> None:
    if fn is None:
        decorator = scheduler.add_task(trigger="interval", seconds=1)
        assert isinstance(decorator, Task)
    else:
        with pytest.raises(TaskOptionError):
            scheduler.add_task(fn)
    assert scheduler.get_tasks() == []


async def test_arguments_that_do_not_fit_are_refused(scheduler: NativeAsyncIOScheduler) -> None:
    with pytest.raises(TaskOptionError, match="number"):
        scheduler.add_task(strict)
    with pytest.raises(TaskOptionError, match="strict"):
        scheduler.add_task(strict, args=[1, 2])


async def test_an_id_is_given_once(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a")

    with pytest.raises(ConflictIdError, match="'a' exists already"):
        scheduler.add_task(job, "interval", hours=2, id="a")

    assert scheduler.get_task("a").trigger == IntervalTrigger(hours=1, timezone="UTC")  # type: ignore[union-attr]


async def test_a_task_object_is_added_once(scheduler: NativeAsyncIOScheduler) -> None:
    task = Task(job, trigger=IntervalTrigger(hours=1))
    scheduler.add_task(task)

    with pytest.raises(TaskOptionError, match="added already"):
        scheduler.add_task(task)


async def test_a_task_that_was_refused_can_be_mended_and_added(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    task = Task(job, trigger=IntervalTrigger(hours=1), executor="gpu", id="a")
    with pytest.raises(PluginLookupError):
        scheduler.add_task(task)

    task.update_task(executor="default")
    scheduler.add_task(task)

    assert scheduler.get_task("a") is task


async def test_replacing_with_the_same_trigger_postpones_nothing(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a")
    await clock.advance(minutes=50)

    scheduler.add_task(job, "interval", hours=1, id="a", name="again", replace_existing=True)
    unchanged = scheduler.get_task_info("a")
    scheduler.add_task(job, "interval", hours=2, id="a", replace_existing=True)
    changed = scheduler.get_task_info("a")

    assert unchanged is not None
    assert changed is not None
    assert unchanged.name == "again"
    assert unchanged.next_run_time == START + timedelta(hours=1)
    assert changed.next_run_time == START + timedelta(minutes=50, hours=2)


async def test_replacing_does_not_resume_a_paused_task(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a")
    scheduler.pause_task("a")

    scheduler.add_task(job, "interval", hours=1, id="a", replace_existing=True)

    assert scheduler.get_task_infos()[0].paused


async def test_defaults_fill_in_what_was_not_given(clock: VirtualClock) -> None:
    defaults = {"max_instances": 3, "coalesce": False, "mistrigger_grace_time": 5}
    async with NativeAsyncIOScheduler(
        clock=clock, timezone="UTC", task_defaults=defaults
    ) as scheduler:
        plain = scheduler.add_task(job, "interval", hours=1)
        own = scheduler.add_task(job, "interval", hours=1, max_instances=1, coalesce=True)
        once = scheduler.add_task(job, "date", run_at=START + timedelta(hours=1))

    assert (plain.max_instances, plain.coalesce, plain.mistrigger_grace_time) == (3, False, 5)
    assert (own.max_instances, own.coalesce) == (1, True)
    assert once.mistrigger_grace_time is None


async def test_decorators_add_what_they_decorate(scheduler: NativeAsyncIOScheduler) -> None:
    @scheduler.add_task(trigger="interval", hours=1, id="decorated", max_instances=2)
    async def decorated() -> str:
        return "still callable"

    assert await decorated() == "still callable"
    task = scheduler.get_task("decorated")
    assert task is not None
    assert task.max_instances == 2
    assert task.next_run_time == START + timedelta(hours=1)


async def test_updates_change_the_task_and_say_so(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_MODIFIED)
    task = scheduler.add_task(job, "interval", hours=1, id="a")

    scheduler.update_task("a", name="renamed", max_instances=4)
    task.update(args=[1, 2])
    task.reschedule("interval", minutes=5)

    assert (task.name, task.max_instances, task.args) == ("renamed", 4, (1, 2))
    assert task.next_run_time == START + timedelta(minutes=5)
    assert len(codes) == 3
    assert len(await clock.advance(minutes=10)) == 2


@pytest.mark.parametrize(
    "updates",
    [
        {"id": "b"},
        {"colour": "red"},
        {"max_instances": 0, "name": "x"},
        {"executor": "gpu"},
        {"args": [1], "fn": strict, "kwargs": {"other": 1}},
        {"name": "y", "trigger": "interval"},
        {"store_alias": "elsewhere"},
    ],
)
async def test_a_bad_update_changes_nothing(
    scheduler: NativeAsyncIOScheduler, updates: dict[str, Any]
) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a", name="as it was")
    before = scheduler.get_task_info("a")

    with pytest.raises((TaskOptionError, PluginLookupError)):
        scheduler.update_task("a", **updates)

    assert scheduler.get_task_info("a") == before


async def test_unknown_tasks_are_named_in_the_error(scheduler: NativeAsyncIOScheduler) -> None:
    for call in (
        scheduler.update_task,
        scheduler.pause_task,
        scheduler.resume_task,
        scheduler.delete_task,
        scheduler.run_task,
        scheduler.lookup_task,
    ):
        with pytest.raises(TaskLookupError, match="'ghost'"):
            call("ghost")
    assert scheduler.get_task("ghost") is None
    assert scheduler.get_task_info("ghost") is None
    assert scheduler.preview_task_runs("ghost") is None


async def test_a_resumed_task_goes_on_and_an_exhausted_one_is_deleted(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    task = scheduler.add_task(job, "interval", hours=1, id="a")
    ends = scheduler.add_task(job, "interval", hours=1, id="b", end_at=START + timedelta(hours=2))
    task.pause()
    ends.pause()
    assert await clock.advance(hours=3) == []

    task.resume()
    assert scheduler.resume_task("b") is None

    assert task.next_run_time == START + timedelta(hours=4)
    assert [left.id for left in scheduler.get_tasks()] == ["a"]


async def test_deleting_tells_and_forgets(scheduler: NativeAsyncIOScheduler) -> None:
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_REMOVED | ALL_TASKS_REMOVED)
    scheduler.add_task(job, "interval", hours=1, id="a").delete()
    scheduler.add_task(job, "interval", hours=1, id="b")
    scheduler.remove_all_tasks()

    assert scheduler.get_tasks() == []
    assert codes == [TASK_REMOVED, ALL_TASKS_REMOVED]


async def test_running_now_leaves_the_schedule_alone(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    sources: list[Any] = []
    scheduler.add_listener(lambda event: sources.append(event), TASK_SUBMITTED)
    scheduler.add_task(job, "interval", hours=1, id="a")
    await clock.advance(minutes=10)

    assert scheduler.run_task("a") is not None
    fired = await clock.advance(minutes=50)

    assert [run.scheduled_run_time for run in fired] == [
        START + timedelta(minutes=10),
        START + timedelta(hours=1),
    ]
    assert [event.source for event in sources] == ["manual", "scheduled"]


async def test_a_one_off_that_is_run_early_is_done(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    later = START + timedelta(hours=1)
    scheduler.add_task(job, "date", run_at=later, id="a")
    scheduler.add_task(job, "date", run_at=later, id="b")

    assert scheduler.run_task("a") is None
    kept = scheduler.run_task("b", remove_finished=False)
    await clock.advance(hours=2)

    assert kept is not None
    assert kept.paused
    assert [task.id for task in scheduler.get_tasks()] == ["b"]


async def test_force_false_runs_only_what_is_due(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a")

    scheduler.run_task("a", force=False)

    assert await clock.advance(seconds=1) == []


async def test_running_now_respects_max_instances(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    async def sleeper() -> None:
        await clock.sleep(60)

    scheduler.add_task(sleeper, "interval", hours=1, id="a")
    scheduler.run_task("a")

    with pytest.raises(MaximumInstancesError, match="1 run"):
        scheduler.run_task("a")


async def test_running_needs_a_running_scheduler() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC")
    scheduler.add_task(job, "interval", hours=1, id="a")

    with pytest.raises(SchedulerNotRunningError):
        scheduler.run_task("a")


async def test_infos_are_filtered_and_sorted(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_task(job, "interval", hours=2, id="b", name="Billing")
    scheduler.add_task(job, "cron", hour=1, id="a", name="Audit")
    scheduler.add_task(job, "interval", hours=3, id="c", name="cleanup")
    scheduler.pause_task("c")

    def ids(**query: Any) -> list[str | None]:
        return [info.id for info in scheduler.get_task_infos(**query)]

    assert ids() == ["a", "b", "c"]
    assert ids(descending=True) == ["c", "b", "a"]
    assert ids(sort_by="name", descending=True) == ["c", "b", "a"]
    assert ids(trigger="interval", sort_by="id") == ["b", "c"]
    assert ids(trigger="CronTrigger") == ["a"]
    assert ids(schedule_state="paused") == ["c"]
    assert ids(q="BILL") == ["b"]
    assert ids(executor="none") == []
    with pytest.raises(ValueError, match="sort_by must be one of"):
        ids(sort_by="colour")
    with pytest.raises(ValueError, match="schedule_state must be one of"):
        ids(schedule_state="lost")


async def test_previews_change_nothing(
    scheduler: NativeAsyncIOScheduler, clock: VirtualClock
) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a", end_at=START + timedelta(hours=2))

    preview = scheduler.preview_task_runs("a", count=5)
    later = scheduler.preview_task_runs("a", count=1, now=START + timedelta(minutes=30))

    assert preview is not None
    assert later is not None
    assert preview.run_times == (START + timedelta(hours=1), START + timedelta(hours=2))
    assert preview.exhausted
    assert not later.exhausted
    assert len(await clock.advance(hours=3)) == 2
    for count in (0, 1001):
        with pytest.raises(ValueError, match="count"):
            scheduler.preview_task_runs("a", count=count)


async def test_tasks_are_printed_by_store(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_store("memory", "empty")
    scheduler.add_task(job, "interval", hours=1, id="a", name="bad\x1b[31mname\n")
    out = io.StringIO()

    scheduler.print_tasks(out=out)

    lines = out.getvalue().splitlines()
    assert lines[0] == "Store default:"
    assert "bad\\x1b[31mname\\n (id: a, trigger: interval" in lines[1]
    assert lines[2:] == ["Store empty:", "    No tasks"]


async def test_the_info_counts_by_state(scheduler: NativeAsyncIOScheduler) -> None:
    scheduler.add_task(job, "interval", hours=1, id="a")
    scheduler.add_task(job, "interval", hours=1, id="b")
    scheduler.pause_task("b")

    info = scheduler.get_scheduler_info()
    (instance,) = scheduler.get_scheduler_instance_infos()

    assert (info.task_count, info.scheduled_task_count, info.paused_task_count) == (2, 1, 1)
    assert info.state_label == "running"
    assert info.degraded == {}
    assert instance.identity == scheduler.identity
    assert instance.active


async def test_before_the_start_tasks_are_pending_and_can_be_changed() -> None:
    scheduler = NativeAsyncIOScheduler(timezone="UTC", clock=VirtualClock(START))
    codes: list[int] = []
    scheduler.add_listener(lambda event: codes.append(event.code), TASK_ADDED)
    scheduler.add_task(job, "interval", hours=1, id="a")
    scheduler.add_task(job, "interval", hours=1, id="b")
    with pytest.raises(ConflictIdError):
        scheduler.add_task(job, "interval", hours=1, id="a")
    scheduler.add_task(job, "interval", hours=3, id="a", replace_existing=True)
    scheduler.update_task("b", max_instances=7)
    scheduler.pause_task("b")

    assert {info.schedule_state for info in scheduler.get_task_infos()} == {"pending"}
    assert codes == []

    async with scheduler:
        by_id = {info.id: info for info in scheduler.get_task_infos()}

    assert by_id["a"].next_run_time == START + timedelta(hours=3)
    assert by_id["b"].max_instances == 7
    assert by_id["b"].paused
    assert codes == [TASK_ADDED, TASK_ADDED]


async def test_the_old_name_of_the_function_argument_still_works(
    scheduler: NativeAsyncIOScheduler,
) -> None:
    with pytest.warns(DeprecationWarning, match="fn_or_task"):
        scheduler.add_task(fn=job, trigger="interval", hours=1, id="a")

    assert scheduler.get_task("a") is not None
