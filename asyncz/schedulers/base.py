"""The scheduler's public face, apart from tasks: options, stores, executors, listeners, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import RLock
from typing import Any, TypeVar, overload

from asyncz.asgi import AnyApp, Lifespan, LifespanWrapper, make_lifespan
from asyncz.enums import SchedulerState
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import ALL_EVENTS, SCHEDULER_PAUSED, SCHEDULER_RESUMED
from asyncz.events.dispatch import check_mask
from asyncz.exceptions import (
    ConfigurationError,
    SchedulerAlreadyRunningError,
    SchedulerNotRunningError,
)
from asyncz.executors.asyncio import AsyncIOExecutor
from asyncz.executors.base import BaseExecutor
from asyncz.file_lock import FileLock
from asyncz.schedulers.bridge import blocking, on_engine
from asyncz.schedulers.config import read_options
from asyncz.schedulers.engine import DEFAULT, Engine
from asyncz.schedulers.host import SchedulerHost
from asyncz.schedulers.lifecycle import Lifecycle
from asyncz.schedulers.operations import Operations
from asyncz.schedulers.plugins import load_class
from asyncz.schedulers.quarantine import Repairs
from asyncz.schedulers.run_operations import RunOperations
from asyncz.schedulers.scheduler_inspection import SchedulerInspection
from asyncz.schedulers.tasks import TaskOperations
from asyncz.stores.base import BaseStore
from asyncz.stores.memory import MemoryStore

__all__ = ["BaseScheduler"]

Listener = TypeVar("Listener", bound=Callable[[SchedulerEvent], Any])


class BaseScheduler(
    TaskOperations, RunOperations, SchedulerInspection, Repairs, SchedulerHost, ABC
):
    """What both schedulers share.

    Args:
        global_config: Settings with dotted names, `asyncz.` in front; see `setup`.
        options: See `asyncz.schedulers.config.SchedulerOptions`.
    """

    def __init__(self, global_config: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._engine = Engine(self, read_options(global_config, "asyncz.", options))
        self._bridge = self._engine.bridge
        self._operations = Operations(self._engine)
        self._lifecycle = Lifecycle(self._engine, self._operations)
        self._references = 0
        self._references_lock = RLock()  # a signal handler may interrupt its holder

    def __getstate__(self) -> None:
        raise TypeError(
            "A scheduler cannot be pickled; do not pass one to a task, nor schedule a method of "
            "an object that holds one."
        )

    def setup(
        self,
        global_config: Mapping[str, Any] | None = None,
        prefix: str | None = "asyncz.",
        **options: Any,
    ) -> None:
        """Configure the scheduler anew, while it is stopped.

        Args:
            global_config: `{"asyncz.timezone": "UTC", "asyncz.stores.jobs.type": "file", …}`.
            prefix: Its keys without this prefix are passed over; None: there is none.
            options: The same options as keywords; these win.

        Raises:
            ConfigurationError: An unknown option, or a bad value; nothing was changed.
            SchedulerAlreadyRunningError: The scheduler is running.
        """
        if self.running or self._bridge.loop is not None:
            raise SchedulerAlreadyRunningError()
        self._engine.configure(read_options(global_config, prefix, options))

    # State.

    @property
    def state(self) -> SchedulerState:
        """Stopped, running or paused."""
        return self._engine.state

    @property
    def running(self) -> bool:
        """Whether it has started and was not shut down; also while it is paused."""
        return self._engine.state is not SchedulerState.STATE_STOPPED

    @abstractmethod
    def start(self, paused: bool = False) -> Any:
        """Start; see the subclasses."""

    @abstractmethod
    async def astart(self, paused: bool = False) -> bool:
        """Start, from a coroutine."""

    @abstractmethod
    def shutdown(self, wait: bool = True) -> Any:
        """Shut down; see the subclasses."""

    @abstractmethod
    async def ashutdown(self, wait: bool = True) -> bool:
        """Shut down, from a coroutine."""

    def inc_refcount(self) -> bool:
        """Count a start. Returns whether it is the first."""
        with self._references_lock:
            self._references += 1
            return self._references == 1

    def decr_refcount(self) -> bool:
        """Count a shutdown. Returns whether it is the last.

        Raises:
            SchedulerNotRunningError: There are no more starts than shutdowns.
        """
        with self._references_lock:
            if self._references == 0:
                raise SchedulerNotRunningError()
            self._references -= 1
            return self._references == 0

    @on_engine
    async def apause(self) -> None:
        """Hand out no more runs until `resume`. What runs goes on."""
        self._change_state(
            SchedulerState.STATE_RUNNING, SchedulerState.STATE_PAUSED, SCHEDULER_PAUSED
        )

    pause = blocking(apause)

    @on_engine
    async def aresume(self) -> None:
        """Hand out runs again. Those that came due meanwhile are caught up with."""
        self._change_state(
            SchedulerState.STATE_PAUSED, SchedulerState.STATE_RUNNING, SCHEDULER_RESUMED
        )
        self._engine.wakeup()

    resume = blocking(aresume)

    def _change_state(self, old: SchedulerState, new: SchedulerState, code: int) -> None:
        engine = self._engine
        if engine.state is SchedulerState.STATE_STOPPED:
            raise SchedulerNotRunningError()
        if engine.state is old:
            engine.state = new
            engine.logger.info("Scheduler %s %s.", engine.identity, new.label)
            engine.dispatch(SchedulerEvent(code=code))

    # Passes.

    @on_engine
    async def process_tasks(self) -> float | None:
        """One pass: hand what is due to the executors.

        Returns:
            The seconds until the next pass is needed; None if that is not a question of time.
        """
        return await self._engine.process_tasks()

    def wakeup(self) -> None:
        """Make the scheduler look for due tasks now. From any thread."""
        self._on_loop(self._engine.wakeup)

    def start_timer(self, wait_seconds: float | None = None) -> None:
        """Make the next pass in `wait_seconds`; None: not before `wakeup`. From any thread."""
        self._on_loop(lambda: self._engine.start_timers(wait_seconds))

    def stop_timer(self) -> None:
        """Make no more passes until `wakeup` or `start_timer`. From any thread."""
        self._on_loop(lambda: self._engine.start_timers(None))

    def _on_loop(self, call: Callable[[], object]) -> None:
        self._bridge.check_process()
        loop = self._bridge.loop
        if loop is None:
            raise SchedulerNotRunningError()
        if self._bridge.is_here:
            call()
        else:
            loop.call_soon_threadsafe(call)

    # Stores and executors.

    @on_engine
    async def aadd_store(
        self, /, store: BaseStore | str, alias: str = DEFAULT, **options: Any
    ) -> None:
        """Add a store, at any time.

        Args:
            store: A store, or the alias of its type with its options.
            alias: What tasks call it.

        Raises:
            ConflictError: There is a store of that alias.
        """
        made = self._engine.build("store", alias, store, **options)
        await self._engine.add_store(alias, made)

    add_store = blocking(aadd_store)

    @on_engine
    async def aremove_store(self, alias: str, shutdown: bool = True) -> None:
        """Take a store out. Its tasks stay in it and do not run."""
        await self._engine.remove_store(alias, shutdown)

    remove_store = blocking(aremove_store)

    @on_engine
    async def aadd_executor(
        self, /, executor: BaseExecutor | str, alias: str = DEFAULT, **options: Any
    ) -> None:
        """Add an executor, at any time; the arguments are those of `add_store`."""
        made = self._engine.build("executor", alias, executor, **options)
        await self._engine.add_executor(alias, made)

    add_executor = blocking(aadd_executor)

    @on_engine
    async def aremove_executor(self, alias: str, shutdown: bool = True) -> None:
        """Take an executor out, when its runs have ended. Its tasks are kept, and wait."""
        await self._engine.remove_executor(alias, shutdown)

    remove_executor = blocking(aremove_executor)

    def lookup_store(self, alias: str) -> BaseStore:
        """The store of that alias. Raises PluginLookupError."""
        return self._engine.store(alias)

    def lookup_executor(self, alias: str) -> BaseExecutor:
        """The executor of that alias. Raises PluginLookupError."""
        return self._engine.executor(alias)

    def create_default_store(self) -> BaseStore:
        """The store that is made at start when there is none called `default`."""
        return MemoryStore()

    def create_default_executor(self) -> BaseExecutor:
        """The executor that is made at start when there is none called `default`."""
        return AsyncIOExecutor()

    @classmethod
    def resolve_load_plugin(cls, module_name: str) -> Any:
        """Import `package.module:Class`. Raises ImportError."""
        return load_class(module_name)

    def create_plugin_instance(
        self, _type: str, alias: str, constructor_args: Mapping[str, Any]
    ) -> Any:
        """A trigger, store or executor (`_type`) by alias. Raises PluginLookupError."""
        return self._engine.plugins.create(_type, alias, constructor_args)

    # Events.

    def add_listener(
        self, callback: Callable[[SchedulerEvent], Any], mask: int = ALL_EVENTS
    ) -> None:
        """Call `callback(event)` for the events in `mask`.

        A plain function is called on the scheduler's loop and must not block; a coroutine
        function becomes a task on the loop that coroutine tasks run on.
        """
        self._engine.events.add(callback, mask)

    def on(self, mask: int = ALL_EVENTS) -> Callable[[Listener], Listener]:
        """`add_listener` as a decorator: `@scheduler.on(TASK_ERROR | TASK_MISSED)`."""
        check_mask(mask)

        def decorated(callback: Listener) -> Listener:
            self.add_listener(callback, mask)
            return callback

        return decorated

    def remove_listener(self, callback: Callable[[SchedulerEvent], Any]) -> bool:
        """Remove a listener. Returns whether there was one."""
        return self._engine.events.remove(callback)

    # Locks.

    def create_lock(self) -> RLock:
        """A lock for state that threads share. The engine itself needs none."""
        return RLock()

    def create_processing_lock(self) -> AbstractContextManager[Any]:
        """The lock that schedulers on one machine compete for (`lock_path`)."""
        path = self._engine.settings.lock_path
        return FileLock(path) if path else nullcontext()

    # ASGI.

    @overload
    def asgi(
        self,
        app: None = None,
        handle_lifespan: bool = False,
        wait: bool = False,
        *,
        health_path: str | None = None,
    ) -> Callable[[AnyApp], LifespanWrapper]: ...
    @overload
    def asgi(
        self,
        app: AnyApp,
        handle_lifespan: bool = False,
        wait: bool = False,
        *,
        health_path: str | None = None,
    ) -> LifespanWrapper: ...
    def asgi(
        self,
        app: AnyApp | None = None,
        handle_lifespan: bool = False,
        wait: bool = False,
        *,
        health_path: str | None = None,
    ) -> Any:
        """Wrap an ASGI app: the scheduler starts and stops with it. Without `app`: a decorator.

        Args:
            app: Any ASGI 3 app.
            handle_lifespan: Keep the lifespan messages from the app, for one that cannot take
                them. An app that fails on them is noticed without it.
            wait: Whether to let runs finish at shutdown.
            health_path: Such as `/healthz`: answered here with `health()` as JSON, without the
                errors of stores, and 503 if not all is well.
        """
        if app is None:
            return partial(
                self.asgi, handle_lifespan=handle_lifespan, wait=wait, health_path=health_path
            )
        return LifespanWrapper(app, self, handle_lifespan, wait, health_path)

    def lifespan(self, app_lifespan: Lifespan | None = None, *, wait: bool = False) -> Lifespan:
        """A lifespan for `Starlette(lifespan=…)` and `FastAPI(lifespan=…)`.

        Args:
            app_lifespan: The app's own; its state is kept. Tasks run while it is entered.
            wait: Whether to let runs finish at shutdown.

        The scheduler is `request.state.scheduler`.
        """
        return make_lifespan(self, app_lifespan, wait)

    def check_uwsgi(self) -> None:
        """Raise ConfigurationError under a uWSGI that has its threads turned off."""
        try:
            import uwsgi  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            return
        if not getattr(uwsgi, "has_threads", True):
            raise ConfigurationError(
                "uWSGI runs without threads, so nothing could be scheduled in the background; "
                "start it with --enable-threads or --threads."
            )

    def handle_shutdown_coros(self, coros: Sequence[Coroutine[Any, Any, Any]]) -> None:
        """Run coroutines on the loop that coroutine functions run on; a shutdown waits for them."""
        for coro in coros:
            self._engine.spawn(coro, "asyncz shutdown coroutine")
