"""Event codes. Each is one bit, so that a listener's mask can hold any set of them."""

from __future__ import annotations

from typing import Final

SCHEDULER_STARTED: Final = 1 << 0
SCHEDULER_START: Final = SCHEDULER_STARTED
SCHEDULER_SHUTDOWN: Final = 1 << 1
SCHEDULER_PAUSED: Final = 1 << 2
SCHEDULER_RESUMED: Final = 1 << 3
EXECUTOR_ADDED: Final = 1 << 4
EXECUTOR_REMOVED: Final = 1 << 5
STORE_ADDED: Final = 1 << 6
STORE_REMOVED: Final = 1 << 7
ALL_TASKS_REMOVED: Final = 1 << 8
TASK_ADDED: Final = 1 << 9
TASK_REMOVED: Final = 1 << 10
TASK_MODIFIED: Final = 1 << 11
TASK_EXECUTED: Final = 1 << 12
TASK_ERROR: Final = 1 << 13
TASK_MISSED: Final = 1 << 14
TASK_SUBMITTED: Final = 1 << 15
TASK_MAX_INSTANCES: Final = 1 << 16

# Beyond upstream's.
TASK_QUARANTINED: Final = 1 << 17
"""A task cannot be read or may not run here; it is kept and tried again later."""
TASK_CANCELLED: Final = 1 << 18
"""A run was cut off, by a shutdown or by whoever cancelled it."""
CLOCK_JUMPED: Final = 1 << 19
"""The wall clock moved apart from elapsed time (suspend, a step of NTP, a person)."""
STORE_DEGRADED: Final = 1 << 20
"""A store failed or did not answer in time; it is tried again with back-off."""
STORE_RECOVERED: Final = 1 << 21
"""A degraded store answers again."""

TASK_RECOVERED: Final = 1 << 22
"""A quarantined task can be read and run again: by itself, repaired, or declared anew."""

TASK_TAKEN_OVER: Final = 1 << 23
"""The worker of a run was killed or shut down; the run is started again here."""
TASK_LOST: Final = 1 << 24
"""A run will never be finished: its worker was killed, and it may not be started again."""

TASK_SKIPPED: Final = 1 << 25
"""A task has said itself that there was nothing to do for an occurrence: it raised `Skip`."""
TASK_RETRYING: Final = 1 << 26
"""An attempt at an occurrence has failed, and there will be another."""

TASK_OVERDUE: Final = 1 << 27
"""A task has not succeeded for longer than its `expect_every` and its grace time."""

ALL_EVENTS: Final = (1 << 28) - 1

NAMES: Final[dict[int, str]] = {
    code: name
    for name, code in list(globals().items())
    if isinstance(code, int) and name.isupper() and name not in {"ALL_EVENTS", "SCHEDULER_START"}
}
"""Code to name, for logs and for listeners that want to print what they got."""
