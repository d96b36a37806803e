"""One store's part of the engine: its timer, its passes, and what is held back in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from asyncz.clock import Timer
from asyncz.events.base import SchedulerEvent
from asyncz.events.constants import (
    STORE_DEGRADED,
    STORE_RECOVERED,
)
from asyncz.exceptions import StoreError, StoreTimeoutError
from asyncz.schedulers.announcing import Announcer
from asyncz.schedulers.caretaker import Caretaker
from asyncz.schedulers.handover import HandOver
from asyncz.schedulers.holds import HoldBook
from asyncz.schedulers.ledger import Ledger
from asyncz.schedulers.local_runs import LocalRuns
from asyncz.schedulers.membership import Membership
from asyncz.schedulers.rota import Rota
from asyncz.stores.base import BaseStore
from asyncz.stores.cluster import ClusterStore, Look
from asyncz.stores.quarantine import reason

if TYPE_CHECKING:
    from asyncz.schedulers.engine import Engine

__all__ = ["StoreLane"]

R = TypeVar("R")

STANDBY_RETRY = 1.0
LOOK_EVERY = 1.0
"""Seconds after which it is time to look what others have done, whatever is due meanwhile."""
MARGIN = 0.25
"""Seconds for which it is known what is due, beyond the next look."""
SILENCE = 5.0
"""Seconds without an answer after which people are told, though there may still be one."""
CUT_OFF = 0.5
"""Seconds that a call that is cut off may take to end."""


class StoreLane:
    """Looks at one store whenever there may be something to do in it.

    Each store has a lane of its own, so that one that hangs holds up nobody else. There is no
    background task while nothing is due: a timer starts a turn, and each turn arms it again.
    """

    def __init__(self, engine: Engine, alias: str, store: BaseStore) -> None:
        self.alias = alias
        self.store = store
        self.holds = HoldBook()
        self.error: str | None = None
        self._engine = engine
        self._failures = 0
        self._guard = None if store.in_process else asyncio.Lock()
        self._timer: Timer | None = None
        self._wake_at = float("inf")  # of the clock's `monotonic`: the wall clock may be set
        self._due_meanwhile = float("inf")
        self._look_first = True
        self._look_again_at = float("-inf")  # of `monotonic` too
        self._attend_by: datetime | None = None
        self._turn: asyncio.Task[None] | None = None
        self._again = False
        self._stopped = False
        self.ledger: Ledger
        self._caretaker: Caretaker | None = None
        self._announcer: Announcer | None = None
        if isinstance(store, ClusterStore):
            wake_for = self.wake_for_attempt
            member = Membership(engine, alias, store, self.call, self.wakeup, wake_for)
            self.ledger = member
            self._announcer = Announcer(alias, store, member, self.call)
            self._rota = Rota(engine.clock, lambda: member.node.id)
            self._caretaker = Caretaker(engine, alias, store, member, self._rota, self.call)
        else:
            self.ledger = LocalRuns(engine, alias, store, self.call, self.wake_for)
            self._rota = Rota(engine.clock, lambda: "")
        self._hand_over = HandOver(engine, self, self._rota)

    def wakeup(self) -> None:
        """Look at the store now, or once more if it is being looked at."""
        self._look_first = True
        self._begin()

    def _begin(self) -> None:
        """See to what is due now, or once more if that is being done."""
        if self._stopped:
            return
        self._again = True
        if self._turn is None:
            self.stop_timer()
            name = f"asyncz pass over {self.alias}"
            # Not in the context of whoever happened to wake it: a run must not see the variables
            # of a request that has nothing to do with it.
            context = self._engine.context.copy()
            self._turn = self._engine.loop.create_task(
                self._take_turn(), name=name, context=context
            )

    def wake_for(self, *moments: datetime | None) -> None:
        """Tasks are due at these moments now: make sure that the lane is awake by then.

        Those of other schedulers are told if they may not look before they are due.
        """
        due = [moment for moment in moments if moment is not None]
        if not due:
            return
        now, moment = self.now(), min(due, key=datetime.timestamp)
        left, is_told = moment.timestamp() - now.timestamp(), False
        if self._announcer is not None and self.ledger.is_shared:
            if left < self._engine.settings.poll_interval:
                self._announcer.announce_soon()
            heard_at = now + self._announcer.heard_after
            told = [self._rota.tell(each, heard_at) for each in due]
            is_told = all(told)
        if self._turn is not None:
            # Not a pass more for each of many tasks that are added one after the other.
            self._due_meanwhile = min(self._due_meanwhile, moment.timestamp())
            self._look_first = self._look_first or not is_told
        elif left < self._wake_at - self._engine.clock.monotonic():
            if is_told and left > 0:
                self.start_timer(left)
            else:
                self.wakeup()

    def wake_for_attempt(self, moment: datetime | None) -> None:
        """The store has something for `attend` at `moment` now, perhaps: look then."""
        if moment is None:
            return
        if moment <= self.now():
            self._look_first = True
        elif self._attend_by is None or moment < self._attend_by:
            self._attend_by = moment
        self.wake_for(moment)

    def announce(self) -> None:
        """Have the other schedulers of the store look at it now."""
        if self._announcer is not None:
            self._announcer.announce_soon()

    def start_timer(self, delay: float | None) -> None:
        """Wake up in `delay` seconds; None: only when called."""
        self.stop_timer()
        if delay is not None:
            clock = self._engine.clock
            self._wake_at = clock.monotonic() + delay
            self._timer = clock.call_later(self._engine.loop, delay, self._begin)

    def stop_timer(self) -> None:
        """Forget the timer."""
        self._wake_at = float("inf")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def is_resting(self) -> bool:
        """Whether no turn is going on, and nothing is about to be recorded."""
        return self._turn is None and not self.ledger.is_recording

    async def stop(self, timeout: float) -> None:
        """Stop for good. A page that is being handed over is finished, not torn apart."""
        self._stopped = True
        self.stop_timer()
        if self._announcer is not None:
            self._announcer.stop()
        turn = self._turn
        if turn is None or turn.get_loop() is not asyncio.get_running_loop():
            return
        if not self.store.in_process:  # the others pause between pages only
            await asyncio.wait([turn], timeout=max(0.0, timeout))
            if not turn.done():
                turn.cancel()
                await asyncio.wait([turn], timeout=CUT_OFF)
        turn.cancel()

    async def leave(self) -> None:
        """Give back what is not finished, and say so, that others may go on with it."""
        await self.ledger.leave()
        if self._announcer is not None:
            await self._announcer.announce()

    async def _take_turn(self) -> None:
        delay: float | None = self._engine.settings.store_retry_interval
        try:
            while self._again:
                self._again = False
                delay = await self.process()
        except Exception:
            self._engine.logger.exception("A pass over the store %r failed.", self.alias)
        finally:
            # Whatever happened, the scheduler must not sleep for ever.
            self._turn = None
            if not self._stopped:
                self.start_timer(self._until_next(delay))

    def _until_next(self, delay: float | None) -> float | None:
        """The delay that a pass asks for, shorter if a task added meanwhile is due sooner."""
        moment, self._due_meanwhile = self._due_meanwhile, float("inf")
        if delay is None or moment == float("inf"):
            return delay
        return min(delay, max(0.0, moment - self.now().timestamp()))

    def now(self) -> datetime:
        """The time that counts for what is due in the store."""
        return self.ledger.now()

    async def process(self) -> float | None:
        """One pass. Returns the seconds until the next one is needed; None: not by time."""
        engine = self._engine
        if not engine.is_handing_out:
            return None
        engine.watch_clock()
        if not engine.is_active():
            return STANDBY_RETRY
        try:
            delay = await self._pass()
        except Exception as exc:
            return self._degrade(exc)
        self._recover()
        return delay

    async def _pass(self) -> float:
        await self.ledger.get_ready()
        now = self._now_if_due()
        if now is not None:
            await self._hand_over.drain(now)
            return self._until_next_turn()
        began, self._look_first = self._engine.clock.monotonic(), False
        self._rota.forget()
        looked = await self.ledger.look()
        if looked is None or self._caretaker is None:
            await self._hand_over.drain(self._engine.clock.now())
            await self._attend_alone()
            return await self._sleep_time()
        if not (self.ledger.is_trusted and self._engine.is_handing_out):
            self._look_first = True
            return self._engine.settings.poll_interval  # no claims without a lease, nor in a pause
        await self._caretaker.maintain(looked)
        if looked.is_due or self._hand_over.waits_for_an_answer or self.holds:
            await self._hand_over.drain(looked.now)
        pause = min(self._engine.settings.poll_interval, LOOK_EVERY)
        self._look_again_at = began + pause
        await self._read_ahead(looked, looked.now + timedelta(seconds=pause + MARGIN))
        return self._until_next_turn()

    async def _read_ahead(self, looked: Look, until: datetime) -> None:
        """Know what is due before the next look, so as not to ask after each task for the next."""
        upcoming, now = looked.next_run_time, looked.now
        if upcoming is None:
            upcoming = now + timedelta(seconds=self._engine.clock.longest_wait)
        if upcoming > until:
            self._rota.read((), now, upcoming)
        else:
            await self._hand_over.read_ahead(now, until)

    async def _attend_alone(self) -> None:
        """What waits for another attempt, where nobody else is there to look for it."""
        ledger, caretaker = self.ledger, self._caretaker
        if not self._engine.is_handing_out:
            return
        if caretaker is not None and ledger.has_left_overs:
            await caretaker.take_left_overs()
        if ledger.attend_at is None or ledger.attend_at > self.now():
            return
        if caretaker is not None:
            await caretaker.attend()
        await ledger.try_again()

    def _now_if_due(self) -> datetime | None:
        """The time, if by it something is due that is known of, and there is no need to look what
        others have done before it is handed over."""
        upcoming, known_until = self._rota.next_turn(), self._rota.known_until
        is_fresh = self._engine.clock.monotonic() < self._look_again_at
        if self._look_first or upcoming is None or known_until is None or not is_fresh:
            return None
        now, attend_by = self.now(), self._attend_by
        if now >= known_until or (attend_by is not None and attend_by <= now):
            return None
        return now if upcoming <= now and self.ledger.is_trusted else None

    def _until_next_turn(self) -> float:
        """Seconds until there is something to do, or it is time to look."""
        clock = self._engine.clock
        delay = min(clock.longest_wait, self._engine.settings.poll_interval)
        for retry in (self.holds.next_try(), self._hand_over.contested.next_try()):
            if retry is not None:
                delay = min(delay, max(0.0, retry - clock.monotonic()))
        now, self._attend_by = self.now(), self.ledger.attend_at
        if self._attend_by is not None and self._attend_by <= now:
            self._attend_by = None  # it waits for the end of another run, which wakes the lane
        for moment in (self._rota.next_turn(), self._attend_by):
            if moment is not None:
                delay = min(delay, max(0.0, (moment - now).total_seconds()))
        return delay

    def look_again(self) -> None:
        """Make another pass right after this one."""
        self._look_first = self._again = True

    async def call(self, operation: Awaitable[R]) -> R:
        """Await an operation of the store, not longer than the store timeout."""
        if self._guard is None:
            return await operation
        timeout = self._engine.settings.store_timeout
        try:
            async with asyncio.timeout(timeout):
                return await operation
        except StoreError:
            raise  # some of these are timeouts too, of the store's own
        except TimeoutError as exc:
            raise StoreTimeoutError(
                f"The store {self.alias!r} did not answer within {timeout} s (store_timeout)."
            ) from exc

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Keep the other operations of this scheduler out, between reading and writing a task.

        Raises:
            StoreTimeoutError: Another one has waited for the store for so long.
        """
        guard = self._guard
        if guard is None:
            yield
            return
        await self.call(guard.acquire())
        try:
            yield
        finally:
            guard.release()

    async def ask(self, operation: Awaitable[R]) -> R:
        """`call` for a pass: a store that says nothing is called degraded before it is given up."""
        if self._guard is None:
            return await operation
        alarm = self._engine.loop.call_later(SILENCE, self._tell_of_silence)
        try:
            return await self.call(operation)
        finally:
            alarm.cancel()

    def _tell_of_silence(self) -> None:
        self._say_degraded(f"It has not answered for {SILENCE:g} s.", None)

    async def _sleep_time(self) -> float:
        clock = self._engine.clock
        delay = clock.longest_wait
        after = None
        contested = self._hand_over.contested
        if self.holds or contested:
            # Those that are held back are due all the time; what counts is when they are tried.
            after = self.now()
            for retry in (self.holds.next_try(), contested.next_try()):
                if retry is not None:
                    delay = min(delay, max(0.0, retry - clock.monotonic()))
        moment = await self.ask(self.store.get_next_run_time(after))
        if moment is not None:
            delay = min(delay, max(0.0, (moment - self.now()).total_seconds()))
        if (moment := self.ledger.attend_at) is not None:
            # One that is due already waits for the end of another run, which wakes the lane.
            left = (moment - self.now()).total_seconds()
            delay = min(delay, left if left > 0 else delay)
        return delay

    def _degrade(self, error: Exception) -> float:
        self._look_first = True
        self._say_degraded(f"{type(error).__name__}: {reason(error)}", error)
        self._failures += 1
        back_off = 0.1 * 2.0 ** min(self._failures - 1, 10)
        return min(back_off, self._engine.settings.store_retry_interval)

    def _say_degraded(self, text: str, error: Exception | None) -> None:
        engine = self._engine
        news, self.error = self.error is None, text
        if news:
            engine.logger.error(
                "The store %r failed; it is tried again with back-off: %s",
                self.alias,
                text,
                exc_info=error,
            )
            engine.dispatch(SchedulerEvent(code=STORE_DEGRADED, alias=self.alias, detail=text))

    def _recover(self) -> None:
        if self.error is not None:
            self.error = None
            self._failures = 0
            self._engine.logger.info("The store %r answers again.", self.alias)
            self._engine.dispatch(SchedulerEvent(code=STORE_RECOVERED, alias=self.alias))
