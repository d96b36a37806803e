"""The conformance suite for stores: what asyncz expects of each, and holds its own against.

For a store of your own, write one test class:

    class TestMyStore(PersistentStoreConformance):
        async def make_store(self) -> MyStore:
            return MyStore(...)  # new and empty, not started

        async def reopen(self, store: MyStore) -> MyStore: ...
        async def read_record(self, store: MyStore, task_id: str) -> bytes: ...
        async def write_record(self, store: MyStore, task_id: str, data: bytes) -> None: ...

and run it with pytest and pytest-asyncio (or mark the class for anyio). A store whose tasks end
with the process takes `StoreConformance`, which needs `make_store` only.
"""

from __future__ import annotations

from asyncz.testing.store_suite_attempts import TryingAgain
from asyncz.testing.store_suite_basics import KeepingTasks
from asyncz.testing.store_suite_claims import ClaimingRuns
from asyncz.testing.store_suite_latest import FindingLatest
from asyncz.testing.store_suite_once import RunningOnce
from asyncz.testing.store_suite_quarantine import KeepingQuarantine
from asyncz.testing.store_suite_queries import AskingForTasks
from asyncz.testing.store_suite_schedule import KeepingTime
from asyncz.testing.store_suite_takeover import TakingOver

__all__ = ["ClusterStoreConformance", "PersistentStoreConformance", "StoreConformance"]


class StoreConformance(KeepingTasks, KeepingTime, AskingForTasks):
    """What every store does. To write: `make_store`."""


class PersistentStoreConformance(StoreConformance, KeepingQuarantine):
    """And what one does whose tasks outlive the process.

    To write: `make_store`, `reopen`, `read_record`, `write_record`.
    """


class ClusterStoreConformance(ClaimingRuns, RunningOnce, TakingOver, TryingAgain, FindingLatest):
    """And what one does that several schedulers may share: a `ClusterStore`.

    To write: `make_store`; and `another` if several store objects share the tasks.
    """
