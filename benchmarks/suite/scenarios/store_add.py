"""Adding to a persistent store: one task after the other, and many in one call.

All are due in an hour. Each call returns when the task is stored. Libraries without a call for
many are measured for the first only.
"""

from __future__ import annotations

import gc
import time

from suite.probes import Heartbeat
from suite.scenarios import Bench, Numbers
from suite.scenarios.add import never_due, tasks_due_in_an_hour

WARM_UP_TASKS = 50


async def measure(bench: Bench) -> Numbers:
    """Milliseconds a task; seconds for many at once, and the worst stall of the loop meanwhile."""
    tasks: int = bench.settings["tasks"]
    scheduler = bench.scheduler()
    await scheduler.start()
    await scheduler.add_once(never_due, renamed("warm", tasks_due_in_an_hour(WARM_UP_TASKS)))
    await bench.selector.idle()
    gc.collect()
    began = time.perf_counter()
    await scheduler.add_once(never_due, tasks_due_in_an_hour(tasks))
    numbers = {"ms_per_task": (time.perf_counter() - began) / tasks * 1e3, "tasks": tasks}
    add_at_once = getattr(scheduler, "add_at_once", None)
    if add_at_once is not None:
        many: int = bench.settings["many"]
        gc.collect()
        with Heartbeat() as heartbeat:
            began = time.perf_counter()
            await add_at_once(never_due, renamed("many", tasks_due_in_an_hour(many)))
            numbers["many_s"] = time.perf_counter() - began
        numbers |= {"many": many, "many_stall_ms": heartbeat.figures()["stall_ms"]}
    await scheduler.stop()
    return numbers


def renamed(prefix: str, pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """The same tasks with other ids."""
    return [(f"{prefix}-{name}", due) for name, due in pairs]
