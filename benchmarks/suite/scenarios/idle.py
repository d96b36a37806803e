"""What a scheduler does while nothing is due: it holds many tasks, all of them due in an hour.

Counted from outside: how often the loop went to sleep (its selector is watched; the one wake-up
that ends the measurement is left out), how often any thread of the process gave up the processor,
and the CPU time used.
"""

from __future__ import annotations

import asyncio
import gc
import time
from resource import RUSAGE_SELF, getrusage

from suite.scenarios import Bench, Numbers
from suite.scenarios.add import never_due, tasks_due_in_an_hour

SETTLE_SECONDS = 1.0


async def measure(bench: Bench) -> Numbers:
    """Wake-ups and CPU milliseconds, scaled to a minute."""
    tasks, seconds = bench.settings["tasks"], bench.settings["seconds"]
    scheduler = bench.scheduler()
    await scheduler.start()
    await scheduler.add_once(never_due, tasks_due_in_an_hour(tasks))
    await bench.selector.idle()
    gc.collect()
    await asyncio.sleep(SETTLE_SECONDS)
    sleeps, cpu, switches = bench.selector.sleeps, time.process_time(), voluntary_switches()
    await asyncio.sleep(seconds)
    woken = bench.selector.sleeps - sleeps - 1
    cpu, switches = time.process_time() - cpu, voluntary_switches() - switches
    await scheduler.stop()
    minute = 60 / seconds
    return {
        "wakeups": woken * minute,
        "cpu_ms": cpu * 1e3 * minute,
        "switches": switches * minute,
        "seconds": seconds,
        "tasks": tasks,
    }


def voluntary_switches() -> int:
    """How often a thread of this process has gone to sleep so far."""
    return getrusage(RUSAGE_SELF).ru_nvcsw
