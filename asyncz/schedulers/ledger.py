"""What a lane asks of whoever keeps the account of its runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from asyncz.enums import RunState
from asyncz.executors.base import BaseExecutor, Outcome
from asyncz.runs.base import Run, RunQuery
from asyncz.runs.current import CurrentRun
from asyncz.schedulers.accounts import Claim
from asyncz.schedulers.planning import Plan
from asyncz.schedulers.starting import Start
from asyncz.stores.cluster import Fired, Firing, Look
from asyncz.tasks.base import Task

__all__ = ["Ledger", "Step"]

Step = tuple[Task, Plan, BaseExecutor]
"""A due task with its plan and the executor that will run it."""
GOOD = frozenset({RunState.SUCCEEDED})


class Ledger(ABC):
    """The account of the runs of one store: in the store itself, or in this process."""

    async def join(self) -> None:  # noqa: B027  # most have nothing to do
        """The store has been opened."""

    async def leave(self) -> None:  # noqa: B027  # most have nothing to do
        """The store is about to be closed; its runs have ended, or were cut off."""

    async def get_ready(self) -> None:  # noqa: B027  # most have nothing to do
        """A pass begins."""

    async def look(self) -> Look | None:
        """What there is to do; None: what the scheduler's clock says."""
        return None

    @property
    def is_shared(self) -> bool:
        """Whether other schedulers may use the store too."""
        return False

    @property
    def is_trusted(self) -> bool:
        """Whether what is claimed now is surely this scheduler's."""
        return True

    @abstractmethod
    def now(self) -> datetime:
        """The time that counts for what is due in the store."""

    @abstractmethod
    async def fire(self, steps: Sequence[Step]) -> list[Fired]:
        """Move planned tasks on and claim their runs. What is asked again after an error is
        answered as the first time."""

    @abstractmethod
    async def fire_by_hand(self, firing: Firing, executor: BaseExecutor) -> Fired:
        """Move a task on and claim the run that somebody has asked for."""

    @abstractmethod
    async def settle(self, firings: Sequence[Firing]) -> list[Fired]:
        """Record what tasks owe, and move them on, before they are changed: nothing is run."""

    def may_have_to_wait(self, steps: Sequence[Step]) -> bool:
        """Whether runs that were claimed cannot simply be submitted, but are for `start`."""
        return False

    @abstractmethod
    async def start(self, starts: Sequence[Start]) -> None:
        """Start runs that were claimed, now or as soon as they may be."""

    attend_at: datetime | None = None
    """When a run is to be tried again, as far as is known; or somebody is to be heard."""

    has_left_overs = False
    """Whether runs were found that nobody has."""

    async def try_again(self) -> None:  # noqa: B027  # most have nothing to do
        """Begin the attempts that are due."""

    @abstractmethod
    def attempt_of(self, task_id: str, head: datetime) -> int:
        """Which attempt at an occurrence it is that goes on, counted from 1."""

    def numbers_of(self, task_id: str, head: datetime) -> tuple[int, int]:
        """The same, and the `CurrentRun.fence` of it.

        This one is right where nobody else can take a run over.
        """
        attempt = self.attempt_of(task_id, head)
        return attempt, attempt

    @abstractmethod
    def claim_of(self, task_id: str, head: datetime) -> Claim:
        """What is known of a run that goes on."""

    knows_records = True
    """Whether what is known here of a run that has ended is its record."""

    async def record_of(self, run: Run) -> Run | None:
        """A run that has ended here as it is kept; None: it has not, it was taken over before.

        Args:
            run: As far as it is known here.
        """
        return run

    @abstractmethod
    def is_to_be_cancelled(self, task_id: str, head: datetime) -> bool:
        """Whether somebody has asked to cancel a run that goes on here."""

    def will_be_tried_again(self, task: Task, head: datetime) -> None:  # noqa: B027
        """An attempt at a run of this task has failed, which is said in a moment."""

    @abstractmethod
    async def task_deleted(self, task_id: str | None) -> None:
        """A task was deleted by somebody here; None: all were. Its attempts wait no longer."""

    @abstractmethod
    def run_says(self, task_id: str, head: datetime, run: CurrentRun) -> None:
        """A run that goes on has something new to say of itself. From any thread."""

    @abstractmethod
    async def cancel_run(self, task_id: str, moment: datetime, by: str) -> RunState | None:
        """Cancel a run, as `ClusterStore.cancel_run` does."""

    @abstractmethod
    def run_succeeded(self, task_id: str, run_time: datetime) -> None:
        """The run of one instant has ended well."""

    @abstractmethod
    def run_ended(self, task_id: str, outcomes: Sequence[Outcome]) -> None:
        """A run has ended, with an outcome for each of its run times."""

    @abstractmethod
    def unknown_run_ended(self, task_id: str, code: int) -> None:
        """The first run of a task has ended, by an executor that says no more than that."""

    @abstractmethod
    def run_refused(self, task: Task, run_times: Sequence[datetime], error: Exception) -> None:
        """An executor would not take a run that was claimed."""

    @property
    def is_recording(self) -> bool:
        """Whether outcomes are on their way to a store that answers."""
        return False

    async def flush(self) -> None:  # noqa: B027  # most have nothing to do
        """Record what is not recorded yet."""

    @abstractmethod
    async def get_runs(self, query: RunQuery) -> list[Run]:
        """The runs that are wanted, the latest first."""

    async def last_success(self, task_id: str) -> datetime | None:
        """When a run of a task has ended well for the last time, as far as is known."""
        good = await self.get_runs(RunQuery(task_id, GOOD, limit=1))
        return (good[0].finished_at or good[0].scheduled_time) if good else None

    @abstractmethod
    async def count_active(self, task_ids: Sequence[str]) -> dict[str, int]:
        """How many runs of these tasks go on."""

    @abstractmethod
    async def get_last_runs(self, task_ids: Sequence[str]) -> dict[str, Run]:
        """The latest run of each of these tasks, where there is one."""
