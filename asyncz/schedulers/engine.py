"""The engine: stores, executors and the passes between them. Lives on one loop's thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from contextlib import nullcontext, suppress
from contextvars import copy_context
from datetime import datetime, tzinfo
from inspect import isawaitable
from logging import Logger, getLogger
from typing import Any, NamedTuple, TypeVar

from asyncz.clock import Clock
from asyncz.enums import SchedulerState
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import (
    CLOCK_JUMPED,
    EXECUTOR_ADDED,
    EXECUTOR_REMOVED,
    STORE_ADDED,
    STORE_REMOVED,
)
from asyncz.events.dispatch import EventDispatcher
from asyncz.exceptions import ConfigurationError, ConflictError
from asyncz.executors.base import BaseExecutor
from asyncz.file_lock import FileLock
from asyncz.schedulers.bridge import Bridge
from asyncz.schedulers.config import SchedulerOptions
from asyncz.schedulers.lane import StoreLane
from asyncz.schedulers.ledger import Ledger
from asyncz.schedulers.overdue import Overdue
from asyncz.schedulers.plugins import PluginRegistry, pick
from asyncz.schedulers.reaction_threads import ReactionThreads
from asyncz.stores.base import BaseStore
from asyncz.tasks.base import Task

__all__ = ["Declaration", "Engine"]

T = TypeVar("T")

DEFAULT = "default"
JUMP = 1.0
"""Seconds by which the wall clock may move apart from elapsed time between two wake-ups."""


class Declaration(NamedTuple):
    """A task added before the start, and which of its options were given then."""

    task: Task
    replace_existing: bool
    given: frozenset[str]


class Engine:
    """State and passes of one scheduler. Its lifecycle is in `lifecycle.py`."""

    def __init__(self, facade: Any, settings: SchedulerOptions) -> None:
        self.facade = facade
        """The scheduler, as stores, executors and tasks know it."""
        self.bridge = Bridge()
        self.plugins = PluginRegistry()
        self.state = SchedulerState.STATE_STOPPED
        self.started_at: datetime | None = None
        self.stores: dict[str, BaseStore] = {}
        self.executors: dict[str, BaseExecutor] = {}
        self.lanes: dict[str, StoreLane] = {}
        self.pending: list[Declaration] = []
        self.instances: dict[tuple[str | None, str], int] = {}
        self.stores_open = False
        self.is_claiming = False
        self._app_loop: asyncio.AbstractEventLoop | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self.overdue = Overdue(self)
        self.reaction_threads = ReactionThreads()
        self.waiting_for_runs: set[asyncio.Event] = set()
        self._clock_offset: float | None = None
        self.context = copy_context()
        """The context variables that runs see: those of whoever started the scheduler."""
        self._machine_lock: FileLock | None = None
        self._holds_machine = False
        self.events = EventDispatcher(getLogger("asyncz"), self.spawn)
        self.configure(settings)

    def configure(self, settings: SchedulerOptions) -> None:
        """Take other options; only while stopped. If one of them is wrong, nothing is changed."""
        triggers = {
            alias: self.plugins.resolve("trigger", alias, plugin)
            for alias, plugin in settings.triggers.items()
        }
        stores = self._build("store", settings.stores)
        executors = self._build("executor", settings.executors)
        self.settings = settings
        self.clock: Clock = settings.time
        self.timezone: tzinfo = settings.timezone
        self.identity = settings.identity
        self.loggers: Mapping[str, Logger] = settings.loggers_class()
        suffix = f".{settings.logger_name}" if settings.logger_name else ""
        self.logger = self.events.logger = self.loggers[f"asyncz.schedulers{suffix}"]
        self._machine_lock = FileLock(settings.lock_path) if settings.lock_path else None
        for alias, trigger in triggers.items():
            self.plugins.register("trigger", alias, trigger)
        self.stores.update(stores)
        self.executors.update(executors)

    def _build(self, kind: str, configs: Mapping[str, Any]) -> dict[str, Any]:
        return {alias: self.build(kind, alias, config) for alias, config in configs.items()}

    def build(self, kind: str, alias: str, config: Any, **options: Any) -> Any:
        """A store or executor from an object, a plugin alias, or a mapping with its `type`."""
        base = BaseStore if kind == "store" else BaseExecutor
        if isinstance(config, base):
            if options:
                raise ConfigurationError(
                    f"The {kind} {alias!r} is given as an object; {', '.join(options)} "
                    "can only be given with its type."
                )
            return config
        if isinstance(config, str):
            config = {"type": config}
        if not isinstance(config, Mapping):
            given = config.__name__ if isinstance(config, type) else type(config).__name__
            what = "the class" if isinstance(config, type) else "an object of the type"
            raise ConfigurationError(
                f"The {kind} {alias!r} must be a {base.__name__}, an alias, or a mapping with a "
                f"'type', not {what} {given}."
            )
        options = {**config, **options}
        return self.plugins.create_for(kind, alias, options)

    # Where things are.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's loop."""
        loop = self.bridge.loop
        if loop is None:
            raise RuntimeError("The engine is not running.")
        return loop

    @property
    def task_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that coroutine functions run on."""
        return self._app_loop or self.loop

    def live_on(self, app_loop: asyncio.AbstractEventLoop | None) -> None:
        """Use the running loop, and for coroutine functions `app_loop`, if it is another one."""
        self.bridge.connect()
        self.context = copy_context()
        self._app_loop = app_loop

    def store(self, alias: str) -> BaseStore:
        """The store of that alias. Raises PluginLookupError, which lists those there are."""
        return pick("store", self.stores, alias)

    def executor(self, alias: str) -> BaseExecutor:
        """The executor of that alias. Raises PluginLookupError, which lists those there are."""
        return pick("executor", self.executors, alias)

    def lane(self, alias: str) -> StoreLane:
        """The lane of a store, for an operation on it.

        Raises:
            BlockingCallError: The store needs I/O and the operation must not wait.
        """
        lane = pick("store", self.lanes, alias)
        if not lane.store.in_process:
            self.bridge.check_may_wait(f"The store {alias!r} ({type(lane.store).__name__})")
        return lane

    def lanes_of(self, alias: str | None) -> list[StoreLane]:
        """The lane of that store, or all of them."""
        return [self.lane(name) for name in ([alias] if alias is not None else list(self.lanes))]

    def now_in(self, alias: str | None) -> datetime:
        """The time that counts in a store."""
        lane = self.lanes.get(alias or DEFAULT)
        return self.clock.now() if lane is None else lane.now()

    # Stores and executors, added and removed at any time.

    async def add_store(self, alias: str, store: BaseStore) -> None:
        """Add a store, and start it if the others are open."""
        if alias in self.stores:
            raise ConflictError(f"There is a store {alias!r} already.")
        if self.stores_open:
            if not store.in_process:
                self.bridge.check_may_wait(f"Starting the store {alias!r}")
            await self.open_store(alias, store)
        self.stores[alias] = store
        self.dispatch(SchedulerEvent(code=STORE_ADDED, alias=alias))
        if self.stores_open and self.is_claiming:
            self.lanes[alias].wakeup()
            self.overdue.start()

    async def open_store(self, alias: str, store: BaseStore, timeout: float | None = None) -> None:
        """Start a store, within the store timeout or another one, and give it a lane."""
        limit = self.settings.store_timeout if timeout is None else timeout
        async with nullcontext() if store.in_process else asyncio.timeout(limit):
            await store.start(self.facade, alias)
            lane = StoreLane(self, alias, store)
            try:
                await lane.ledger.join()
            except BaseException:
                await store.shutdown()
                raise
        self.lanes[alias] = lane

    async def remove_store(self, alias: str, shutdown: bool) -> None:
        """Take a store out; its tasks stay in it."""
        store = self.store(alias)
        if alias in self.lanes:
            lane = self.lane(alias)
            await lane.stop(self.settings.store_timeout)
            await lane.leave()
            del self.lanes[alias]
        del self.stores[alias]
        if shutdown:
            await store.shutdown()
        self.dispatch(SchedulerEvent(code=STORE_REMOVED, alias=alias))

    async def add_executor(self, alias: str, executor: BaseExecutor) -> None:
        """Add an executor, and start it if the others are."""
        if alias in self.executors:
            raise ConflictError(f"There is an executor {alias!r} already.")
        if self.bridge.loop is not None:
            await finished(executor.start(self.facade, alias))  # type: ignore[func-returns-value]
        self.executors[alias] = executor
        self.dispatch(SchedulerEvent(code=EXECUTOR_ADDED, alias=alias))
        self.wakeup()

    async def remove_executor(self, alias: str, shutdown: bool) -> None:
        """Take an executor out; runs that go on in it are finished first."""
        executor = self.executor(alias)
        del self.executors[alias]
        if shutdown and self.bridge.loop is not None:
            await finished(executor.shutdown(True))
        self.dispatch(SchedulerEvent(code=EXECUTOR_REMOVED, alias=alias))

    # Passes.

    @property
    def is_handing_out(self) -> bool:
        """Whether executors may get what is due: not in a pause, nor once a shutdown has begun."""
        return self.is_claiming and self.state is SchedulerState.STATE_RUNNING

    async def process_tasks(self) -> float | None:
        """One pass over every store. Returns the seconds until the next one is needed."""
        delays = await asyncio.gather(*(lane.process() for lane in list(self.lanes.values())))
        return min((delay for delay in delays if delay is not None), default=None)

    def wakeup(self) -> None:
        """Look at every store now."""
        if self.is_claiming:
            for lane in list(self.lanes.values()):
                lane.wakeup()

    def start_timers(self, delay: float | None) -> None:
        """Make the next pass over each store in `delay` seconds; None: not by time."""
        for lane in self.lanes.values():
            lane.start_timer(delay)

    def watch_clock(self) -> None:
        """Notice that the wall clock has jumped, and look at everything again if so."""
        offset = self.clock.now().timestamp() - self.clock.monotonic()
        before, self._clock_offset = self._clock_offset, offset
        if before is None or abs(offset - before) <= JUMP:
            return
        detail = f"The wall clock jumped by {offset - before:+.1f} s."
        self.logger.warning("%s All stores are looked at again.", detail)
        self.dispatch(SchedulerEvent(code=CLOCK_JUMPED, detail=detail))
        self.wakeup()

    def forget_clock(self) -> None:
        """Do not compare the clock with what it was before the last stop."""
        self._clock_offset = None

    @property
    def is_standby(self) -> bool:
        """Whether another scheduler on this machine is the active one, as far as is known."""
        return self._machine_lock is not None and not self._holds_machine

    def is_active(self) -> bool:
        """Whether this scheduler is the one on this machine that runs tasks (`lock_path`)."""
        lock = self._machine_lock
        if lock is not None and not self._holds_machine:
            self._holds_machine = lock.acquire(timeout=0)
        return lock is None or self._holds_machine

    def check_lock_path(self) -> None:
        """Raise ConfigurationError if the lock file of `lock_path` cannot be opened."""
        lock = self._machine_lock
        try:
            if lock is not None and lock.acquire(timeout=0):
                lock.release()
        except OSError as exc:
            raise ConfigurationError(
                f"lock_path {os.fspath(self.settings.lock_path or '')!r} cannot be opened: "
                f"{exc.strerror}. It must name a file in a directory that exists and that this "
                "process may write to."
            ) from exc

    def release_machine(self) -> None:
        """Let another scheduler with the same `lock_path` take over."""
        if self._machine_lock is not None and self._holds_machine:
            self._holds_machine = False
            self._machine_lock.release()

    def ledgers_of(self, alias: str | None) -> list[Ledger]:
        """The account of that store's runs; None: those of all, for who does not know better."""
        if alias is None:
            return [lane.ledger for lane in self.lanes.values()]
        lane = self.lanes.get(alias)
        return [] if lane is None else [lane.ledger]

    async def until_a_run_ends(self, timeout: float) -> None:
        """Return when any run of this scheduler has ended, or so many seconds have passed.

        Of the machine's time: others, whose runs may be waited for, have no other.
        """
        ended = asyncio.Event()
        self.waiting_for_runs.add(ended)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), timeout)
        finally:
            self.waiting_for_runs.discard(ended)

    def a_run_has_ended(self) -> None:
        """Wake those who wait for one."""
        for waiting in self.waiting_for_runs:
            waiting.set()

    # Events, and coroutines that nobody awaits.

    def dispatch(self, event: SchedulerEvent) -> None:
        """Give an event to the listeners that want it."""
        if self.events.mask & event.code:
            self.events.dispatch(event)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine of the user's on the loop that user code lives on."""
        here = self.bridge.loop
        try:
            if here is not None and self._app_loop not in (None, here):
                self.task_loop.call_soon_threadsafe(self._begin, self.task_loop, work, name)
            else:
                self._begin(here or asyncio.get_running_loop(), work, name)
        except RuntimeError:
            work.close()
            self.logger.error("There is no running event loop for %r; it is left out.", name)

    def background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a coroutine of the engine's own beside it, on its loop."""
        task = self.loop.create_task(work, name=name)
        for tasks in (self._spawned, self._background):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    @property
    def is_resting(self) -> bool:
        """Whether neither a pass goes on, nor anything else of the engine's own."""
        return not self._background and all(lane.is_resting for lane in self.lanes.values())

    def _begin(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None], name: str
    ) -> None:
        task = loop.create_task(work, name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def finish_spawned(self, timeout: float) -> None:
        """Give coroutine listeners the time they need, within bounds."""
        me, deadline = asyncio.current_task(), self.loop.time() + timeout
        late: set[asyncio.Task[None]] = set()
        while not late:  # what was waited for may have begun something more
            here = {task for task in self._spawned if task.get_loop() is self.loop} - {me}
            if not here:
                break
            _, late = await asyncio.wait(here, timeout=max(0.0, deadline - self.loop.time()))

    @property
    def is_idle(self) -> bool:
        """Whether nothing goes on that a shutdown would have to wait for."""
        return (
            not self.instances
            and not self._spawned
            and all(executor.ends_at_once for executor in self.executors.values())
            and all(lane.store.in_process for lane in self.lanes.values())
        )


async def finished(result: Any) -> None:
    """Await what a plugin returned, if it is to be awaited."""
    if isawaitable(result):
        await result
