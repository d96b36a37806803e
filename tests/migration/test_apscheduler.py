"""Moving the jobs of APScheduler 3 over."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from asyncz import FileStore, NativeAsyncIOScheduler
from asyncz import IntervalTrigger as OurIntervalTrigger
from asyncz.exceptions import (
    ConfigurationError,
    PluginLookupError,
    SchedulerNotRunningError,
    StoreError,
)
from asyncz.migration.apscheduler import ImportReport, import_jobs
from asyncz.testing import VirtualClock

from . import jobs
from .sources import SOURCES, Source

START = datetime(2031, 1, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    jobs.calls.clear()
    with SOURCES[request.param](tmp_path) as found:
        yield found


@pytest.fixture
def one_source(tmp_path: Path) -> Iterator[Source]:
    """For what does not depend on the server."""
    with SOURCES["sqlite"](tmp_path) as found:
        yield found


@pytest.fixture
async def scheduler(tmp_path: Path) -> AsyncIterator[NativeAsyncIOScheduler]:
    """With a persistent store, at the beginning of 2031."""
    async with NativeAsyncIOScheduler(
        clock=VirtualClock(START), timezone="UTC", stores={"default": FileStore(tmp_path / "new")}
    ) as started:
        yield started


class Old:
    """The old scheduler, which runs nothing while jobs are added."""

    def __init__(self, source: Source) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC", jobstores={"default": source.connect()}
        )

    def __enter__(self) -> Any:
        self._scheduler.start(paused=True)
        return self._scheduler

    def __exit__(self, *error: object) -> None:
        self._scheduler.shutdown()


async def moved(scheduler: NativeAsyncIOScheduler, source: Source, **options: Any) -> ImportReport:
    return await import_jobs(scheduler, source.connect(), trust_pickle=True, **options)


async def test_jobs_become_tasks_with_all_that_they_had(
    source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    with Old(source) as old:
        old.add_job(
            jobs.work,
            "interval",
            minutes=90,
            start_date=START + timedelta(minutes=30),
            end_date=START + timedelta(days=2),
            timezone=BERLIN,
            jitter=7,
            args=[1, "two", START],
            kwargs={"three": {3}},
            id="every 90 minutes",
            name="Ninety",
            misfire_grace_time=45,
            coalesce=False,
            max_instances=4,
        )
    before = source.dump()
    report = await moved(scheduler, source)

    assert report == ImportReport(("every 90 minutes",), ())
    (task,) = await scheduler.aget_tasks()
    assert (task.id, task.name, task.fn) == ("every 90 minutes", "Ninety", jobs.work)
    assert (task.args, task.kwargs) == ((1, "two", START), {"three": {3}})
    assert (task.coalesce, task.max_instances, task.mistrigger_grace_time) == (False, 4, 45)
    assert task.next_run_time is not None
    assert (
        timedelta(0) <= task.next_run_time - START - timedelta(minutes=30) <= timedelta(seconds=7)
    )
    assert task.trigger == OurIntervalTrigger(
        seconds=5400,
        start_at=START + timedelta(minutes=30),
        end_at=START + timedelta(days=2),
        timezone=BERLIN,
        jitter=7,
    )
    assert source.dump() == before


async def test_jobs_run_here_when_they_would_have_run_there(
    source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    night = CronTrigger(hour=3, start_date=START, timezone=BERLIN)
    early = START - timedelta(days=1)
    with Old(source) as old:
        old.add_job(jobs.work, night, args=["cron"], id="cron")
        old.add_job(
            jobs.work, "date", run_date=START + timedelta(hours=5), args=["date"], id="date"
        )
        old.add_job(
            jobs.work, "interval", hours=10, start_date=early, args=["interval"], id="interval",
            next_run_time=START + timedelta(hours=6),
        )  # fmt: skip
        old.add_job(jobs.work, night, args=["paused"], id="paused", next_run_time=None)
    await moved(scheduler, source)
    clock: Any = scheduler.clock
    runs = await clock.advance(hours=24)

    assert [(run.task_id, run.scheduled_run_time) for run in runs] == [
        ("cron", START + timedelta(hours=2)),
        ("date", START + timedelta(hours=5)),
        ("interval", START + timedelta(hours=6)),
        ("interval", START + timedelta(hours=16)),
    ]
    assert [call[0] for call in jobs.calls] == ["cron", "date", "interval", "interval"]
    (paused,) = await scheduler.aget_task_infos(schedule_state="paused")
    assert paused.id == "paused"


async def test_a_second_run_is_harmless(source: Source, scheduler: NativeAsyncIOScheduler) -> None:
    with Old(source) as old:
        soon = START + timedelta(hours=1)
        old.add_job(jobs.work, "date", run_date=soon, id="once", misfire_grace_time=None)
        old.add_job(jobs.work, "interval", hours=2, start_date=soon, id="often")
        old.add_job(
            jobs.work, "interval", hours=1, start_date=START, end_date=soon, id="ends",
            misfire_grace_time=None, next_run_time=soon,
        )  # fmt: skip
    assert len((await moved(scheduler, source)).imported) == 3
    clock: Any = scheduler.clock
    assert len(await clock.advance(hours=1)) == 3
    again = await moved(scheduler, source)

    assert again.imported == ()
    reasons = {job.id: job.reason for job in again.skipped}
    assert "already" in reasons["often"]
    assert "due for the last time" in reasons["once"]
    assert "due for the last time" in reasons["ends"]
    assert await clock.advance(minutes=59) == []


async def test_what_is_overdue_can_be_asked_for(
    one_source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    with Old(one_source) as old:
        for task_id, grace in (("missed", 1), ("run", None)):
            old.add_job(
                jobs.work, "date", run_date=START - timedelta(hours=1), id=task_id,
                misfire_grace_time=grace,
            )  # fmt: skip
    report = await moved(scheduler, one_source, overdue=True)
    clock: Any = scheduler.clock
    runs = await clock.advance()
    assert set(report.imported) == {"missed", "run"}
    assert {run.task_id: run.code_name for run in runs} == {
        "missed": "TASK_MISSED",
        "run": "TASK_EXECUTED",
    }


async def test_what_cannot_be_moved_is_left_with_a_reason(
    source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    later = {"next_run_time": START + timedelta(days=1)}
    calendar: dict[str, Any] = {"start_date": "2031-01-05", "months": 1, "days": 1}
    with Old(source) as old:
        old.add_job(jobs.work, jobs.Lunar(), id="own trigger", **later)
        old.add_job(jobs.Worker().work, "interval", hours=1, id="object", **later)
        old.add_job(jobs.work, "interval", hours=1, id="executor", executor="gone", **later)
        old.add_job(jobs.work, "interval", hours=1, args=[print], id="argument", **later)
        old.add_job(jobs.work, "calendarinterval", id="calendar", **calendar)
        old.add_job("os:getcwd", "interval", hours=1, id="library", **later)
        old.add_job(jobs.work, "interval", hours=1, id="good", **later)
    good = pickle.dumps(_state("moved", func="tests.migration.jobs:gone"))
    source.plant("moved", good)
    source.plant("module", pickle.dumps(_state("module", func="no_such_module:f")))
    source.plant("cut off", good[:-9])
    source.plant("garbage", b"\x80garbage\n\x1b[2J")
    source.plant("no job", pickle.dumps([1, 2]))
    source.plant("another's", pickle.dumps(_state("good")))
    before = source.dump()
    report = await moved(scheduler, source)

    reasons = {job.id: job.reason for job in report.skipped}
    assert report.imported == ("good",)
    for task_id, word in {
        "own trigger": "Lunar",
        "object": "args[0]",
        "executor": "'gone'",
        "argument": "args[0]",
        "calendar": "months",
        "library": "standard library",
        "moved": "'gone' is missing",
        "module": "no_such_module",
        "cut off": "unpickled",
        "garbage": "unpickled",
        "no job": "not a job",
        "another's": "the id",
    }.items():
        assert word in reasons.pop(task_id)
    assert reasons == {}
    assert str(report).splitlines()[0] == "1 imported, 12 skipped"
    assert len(str(report).splitlines()) == 13
    assert source.dump() == before


def _state(job_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "id": job_id,
        "func": "tests.migration.jobs:work",
        "trigger": IntervalTrigger(hours=1, timezone="UTC"),
        "executor": "default",
        "args": (),
        "kwargs": {},
        "name": "work",
        "misfire_grace_time": 1,
        "coalesce": True,
        "max_instances": 1,
        "next_run_time": START + timedelta(hours=1),
        **changes,
    }


async def test_executors_can_be_given_other_names(
    one_source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    with Old(one_source) as old:
        old.add_job(jobs.work, "interval", hours=1, executor="gone", id="a", start_date=START)
    report = await moved(scheduler, one_source, executors={"gone": "default"})
    assert report.imported == ("a",)


@pytest.mark.parametrize("trust", [False, None, 1, "yes"])
async def test_nothing_is_unpickled_for_who_does_not_trust_it(
    source: Source, scheduler: NativeAsyncIOScheduler, trust: Any
) -> None:
    with Old(source):
        pass
    jobs.Exploit.ran = False
    source.plant("evil", pickle.dumps(jobs.Exploit()))
    with pytest.raises(ConfigurationError, match="runs any code"):
        await import_jobs(scheduler, source.connect(), trust_pickle=trust)
    assert not jobs.Exploit.ran


async def test_that_is_no_empty_warning(
    one_source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    with Old(one_source):
        pass
    jobs.Exploit.ran = False
    one_source.plant("evil", pickle.dumps(jobs.Exploit()))
    report = await moved(scheduler, one_source)
    assert jobs.Exploit.ran
    assert report.imported == ()


async def test_what_is_no_job_store_is_refused(scheduler: NativeAsyncIOScheduler) -> None:
    for wrong in (MemoryJobStore(), "sqlite:///jobs.db", None):
        with pytest.raises(ConfigurationError, match="SQLAlchemyJobStore, RedisJobStore"):
            await import_jobs(scheduler, wrong, trust_pickle=True)


async def test_the_scheduler_has_to_run_and_to_have_the_store(
    one_source: Source, scheduler: NativeAsyncIOScheduler
) -> None:
    with pytest.raises(SchedulerNotRunningError):
        await moved(NativeAsyncIOScheduler(timezone="UTC"), one_source)
    with pytest.raises(PluginLookupError, match="'elsewhere'"):
        await moved(scheduler, one_source, store="elsewhere")


async def test_a_job_store_that_cannot_be_read_tells_no_password(
    scheduler: NativeAsyncIOScheduler, tmp_path: Path
) -> None:
    for url in (
        f"sqlite:///{tmp_path / 'none.db'}",
        "postgresql+psycopg://me:hunter2@127.0.0.1:1/jobs",
    ):
        jobstore = SQLAlchemyJobStore(url)
        with pytest.raises(StoreError, match="SQLAlchemyJobStore cannot be read") as caught:
            await import_jobs(scheduler, jobstore, trust_pickle=True)
        assert "hunter2" not in str(caught.value)
        jobstore.engine.dispose()


def test_without_apscheduler_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['apscheduler'] = None\n"
        "try: import asyncz.migration.apscheduler\n"
        "except ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'APScheduler>=3.11,<4'" in done.stdout
