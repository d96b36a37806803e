"""The jobs of an APScheduler 3 job store, added to a scheduler of asyncz, once.

This is the only part of asyncz that unpickles. A pickle is a program: reading one runs whatever
its writer put into it, with all the rights of this process. So whoever could ever write to that
job store can take this process over when it is imported.
"""

from __future__ import annotations

import asyncio
import pickle  # see above
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from asyncz.exceptions import (
    AsynczException,
    ConfigurationError,
    ConflictIdError,
    SchedulerNotRunningError,
    StoreError,
    TaskOptionError,
)
from asyncz.migration.triggers import translate_trigger
from asyncz.schedulers.base import BaseScheduler
from asyncz.tasks.callables import resolve_reference
from asyncz.text import printable

try:
    from apscheduler.jobstores.base import BaseJobStore
except ImportError as exc:
    raise ImportError(
        "Importing jobs needs the library that wrote them: pip install 'APScheduler>=3.11,<4'."
    ) from exc

__all__ = ["ImportReport", "SkippedJob", "import_jobs"]

LONGEST_REASON = 500


class SkippedJob(NamedTuple):
    """A job that was not imported.

    Args:
        id: Its id.
        reason: Why, in words, on one line.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What became of the jobs of a job store.

    Args:
        imported: The ids of those that are tasks now.
        skipped: The others.
    """

    imported: tuple[str, ...]
    skipped: tuple[SkippedJob, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.imported)} imported, {len(self.skipped)} skipped"]
        lines += [f"    {printable(job.id)}: {job.reason}" for job in self.skipped]
        return "\n".join(lines)


class _Job(NamedTuple):
    """A job as its store has it, and what was in its pickle, or why that cannot be used."""

    id: str
    state: dict[str, Any]
    problem: str | None = None


async def import_jobs(
    scheduler: BaseScheduler,
    jobstore: Any,
    store: str = "default",
    *,
    trust_pickle: bool = False,
    executors: Mapping[str, str] | None = None,
    overdue: bool = False,
) -> ImportReport:
    """Add the jobs of an APScheduler 3 job store to a scheduler.

    Nothing is changed in the job store, and no job is run by it. A second run adds only what is
    not there; so a task that was deleted here since comes back. Stop the old scheduler first, or
    both run the jobs.

    Args:
        scheduler: One that is running; start it with `paused=True` to look at the tasks first.
        jobstore: A `SQLAlchemyJobStore`, `RedisJobStore` or `MongoDBJobStore` that no scheduler
            has started. It is not closed.
        store: The alias of the store that the tasks go to.
        trust_pickle: Must be true: **reading the jobs runs any code that is in them.** See above.
        executors: From aliases of executors there to aliases here; others stay as they are.
        overdue: Import also jobs that were due for the last time before now. They run at once,
            if their `misfire_grace_time` allows it, even if they did so after an import before.

    Returns:
        Which jobs were imported, and why others were not.

    Raises:
        ConfigurationError: `trust_pickle` is not true, or the job store is of no known kind.
        PluginLookupError: There is no store of that alias.
        SchedulerNotRunningError: The scheduler has not started.
        StoreError: The job store cannot be read, or the store cannot be written.
    """
    if trust_pickle is not True:
        raise ConfigurationError(
            "The jobs of APScheduler are pickles, and reading a pickle runs any code that is in "
            "it. If nobody but you could ever write to this job store, pass trust_pickle=True."
        )
    read = _reader_of(jobstore)
    if not scheduler.running:
        raise SchedulerNotRunningError()
    scheduler.lookup_store(store)
    jobs = await asyncio.to_thread(_read_all, read, jobstore)
    logger = scheduler.loggers["asyncz.migration"]
    logger.warning("Unpickled %d job(s) of a %s.", len(jobs), type(jobstore).__name__)
    imported: list[str] = []
    skipped: list[SkippedJob] = []
    for job in jobs:
        reason = job.problem or await _add(scheduler, job, store, executors or {}, overdue)
        if reason is None:
            imported.append(job.id)
        else:
            skipped.append(SkippedJob(job.id, printable(reason, LONGEST_REASON)))
    return ImportReport(tuple(imported), tuple(skipped))


# ---- reading


def _reader_of(jobstore: Any) -> Callable[[Any], list[tuple[Any, bytes]]]:
    if isinstance(jobstore, BaseJobStore):
        for cls in type(jobstore).__mro__:
            if cls.__name__ in _READERS:
                return _READERS[cls.__name__]
    raise ConfigurationError(
        f"Jobs can be imported from a {', '.join(_READERS)} of APScheduler 3, "
        f"not from a {type(jobstore).__name__}."
    )


def _read_sql(jobstore: Any) -> list[tuple[Any, bytes]]:
    from sqlalchemy import select

    columns = jobstore.jobs_t.c
    query = select(columns.id, columns.job_state).order_by(columns.next_run_time, columns.id)
    with jobstore.engine.connect() as connection:
        return [(row.id, row.job_state) for row in connection.execute(query)]


def _read_redis(jobstore: Any) -> list[tuple[Any, bytes]]:
    return sorted(jobstore.redis.hgetall(jobstore.jobs_key).items())


def _read_mongodb(jobstore: Any) -> list[tuple[Any, bytes]]:
    found = jobstore.collection.find({}, ["job_state"], sort=[("next_run_time", 1), ("_id", 1)])
    return [(document["_id"], document["job_state"]) for document in found]


_READERS: dict[str, Callable[[Any], list[tuple[Any, bytes]]]] = {
    "SQLAlchemyJobStore": _read_sql,
    "RedisJobStore": _read_redis,
    "MongoDBJobStore": _read_mongodb,
}


def _read_all(read: Callable[[Any], list[tuple[Any, bytes]]], jobstore: Any) -> list[_Job]:
    # Not by the job store's own `get_all_jobs`: that deletes the jobs it cannot restore.
    try:
        found = read(jobstore)
    except Exception as exc:
        # What the driver says, which may have all of the server's address in it, is the cause.
        raise StoreError(
            f"The {type(jobstore).__name__} cannot be read ({type(exc).__name__}); see whether "
            f"its server can be reached and it is the right table, key or collection."
        ) from exc
    return [_unpickled(_text(job_id), state) for job_id, state in found]


def _text(job_id: Any) -> str:
    return job_id.decode(errors="backslashreplace") if isinstance(job_id, bytes) else str(job_id)


def _unpickled(job_id: str, pickled: bytes) -> _Job:
    try:
        state = pickle.loads(pickled)  # noqa: S301  # whoever called was told
    except (Exception, SystemExit) as exc:
        return _Job(job_id, {}, f"it cannot be unpickled ({_shown(exc)})")
    if not isinstance(state, dict) or state.get("version") != 1:
        return _Job(job_id, {}, "it is not a job as APScheduler 3 writes them")
    if state.get("id") != job_id:
        return _Job(job_id, {}, "the id in it is not that of its place")
    try:
        resolve_reference(str(state.get("func")))
    except (Exception, SystemExit) as exc:  # anything may be at the top of a module
        return _Job(job_id, {}, f"its function is not found ({_shown(exc)})")
    return _Job(job_id, state)


def _shown(error: BaseException) -> str:
    """What went wrong. What other errors than these say may be somebody's secret."""
    tells = isinstance(error, ImportError | AttributeError | TaskOptionError)
    return f"{type(error).__name__}: {error}" if tells else type(error).__name__


# ---- adding


async def _add(
    scheduler: BaseScheduler, job: _Job, store: str, executors: Mapping[str, str], overdue: bool
) -> str | None:
    """Add a job as a task. Returns why not."""
    try:
        options = _options_of(job.state, executors)
        if not overdue and _is_over(scheduler, options):
            return (
                f"it was due for the last time at {options['next_run_time']}, and may have run "
                f"already; overdue=True imports it all the same"
            )
        await scheduler.aadd_task(job.state["func"], id=job.id, store=store, **options)
    except ConflictIdError:
        return "there is a task of this id already"
    except StoreError:
        raise
    except KeyError as exc:
        return f"it has no {exc}"
    except (AsynczException, TypeError, ValueError, OverflowError) as exc:
        return str(exc)
    return None


def _options_of(state: Mapping[str, Any], executors: Mapping[str, str]) -> dict[str, Any]:
    executor = state["executor"]
    return {
        "trigger": translate_trigger(state["trigger"]),
        "args": list(state["args"]),
        "kwargs": dict(state["kwargs"]),
        "name": state["name"],
        "mistrigger_grace_time": state["misfire_grace_time"],
        "coalesce": bool(state["coalesce"]),
        "max_instances": state["max_instances"],
        "next_run_time": state["next_run_time"],
        "executor": executors.get(executor, executor),
    }


def _is_over(scheduler: BaseScheduler, options: Mapping[str, Any]) -> bool:
    """Whether the job's next run time, which has passed, is its last one."""
    moment: datetime | None = options["next_run_time"]
    now = scheduler.clock.now()
    if moment is None or moment > now:
        return False
    return options["trigger"].get_next_trigger_time(scheduler.timezone, now, now) is None
