"""Time the triggers beside the same schedules in other libraries, and hold them to their targets.

Run as `python benchmarks/triggers.py [--quick]`, under an interpreter that has asyncz. Each peer
runs in a process of its own with its release from PyPI, in an environment under `.venv-bench/`
that is made the first time; `--alone` leaves the peers out. Every figure is the best of several
rounds, in microseconds; for a schedule it is the mean over a chain of next times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from suite.environments import EnvironmentMissingError, interpreter, make, variables
from suite.libraries import UPSTREAM, Library

EXPRESSIONS = (
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "0 0 * * *",
    "30 4 1,15 * *",
    "0 9-17 * * mon-fri",
    "0 0 1 1 *",
    "15 14 1 * *",
    "0 22 * * mon-fri",
    "23 0-20/2 * * *",
    "5 4 * * sun",
    "0 0 29 2 *",
)
START = datetime(2026, 1, 15, 10, 17, 23)
# A chain of 29 February reaches the end of the calendar after about 1,900 steps.
CHAIN = 500
QUICK_CHAIN = 40
ROUNDS = 15
# The first of them finds the changes of the clocks, once for each zone and year.
QUICK_ROUNDS = 3

ZONES = ("UTC", "America/New_York")
WORKER_TIMEOUT = 600

CRON_LIBRARIES = Library(
    key="cron-libraries",
    title="libraries for cron schedules",
    adapter="",
    distribution="APScheduler",
    version="3.11.3",
    package="",
    scheduler="",
    also=("cronsim==2.8", "croniter==7.0.0"),
)

Chain = Callable[[int], object]
Peer = Callable[[str, tzinfo], Chain]
# Microseconds by zone and expression.
Times = dict[str, dict[str, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description="time the triggers")
    parser.add_argument("--quick", action="store_true", help="shorter chains, fewer rounds")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    length, rounds = (QUICK_CHAIN, QUICK_ROUNDS) if given.quick else (CHAIN, ROUNDS)
    if given.worker:
        print(json.dumps(_measure(given.worker, length, rounds)))
        return 0
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}")
    times = {"asyncz": _measure("asyncz", length, rounds)}
    if not given.alone:
        times |= dict(_measure_peers(given.quick))
    for zone in ZONES:
        _print_schedules(zone, {name: found[zone] for name, found in times.items()}, length)
    # Many short rounds: the best of them is one that nothing else on the machine cut into.
    singles = dict(_single_figures(500, 5 * rounds))
    print("\n| other figures | us |\n|---|---:|")
    for name, micros in singles.items():
        print(f"| {name} | {micros:.2f} |")
    _print_verdicts(times, singles)
    return 0


def _measure_peers(quick: bool) -> Iterator[tuple[str, Times]]:
    for name, (library, _) in PEERS.items():
        if library is None:
            continue
        print(f"measuring {name}", file=sys.stderr)
        command = [str(interpreter(library)), __file__, "--worker", name]
        try:
            make(library)
            found = subprocess.run(
                command + ["--quick"] * quick,
                env=variables(library),
                check=True,
                timeout=WORKER_TIMEOUT,
                capture_output=True,
                text=True,
            )
        except (EnvironmentMissingError, subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            print(f"{name} could not be measured: {said[-1]}", file=sys.stderr)
        else:
            yield name, json.loads(found.stdout)


def _measure(name: str, length: int, rounds: int) -> Times:
    # Peers are slow enough for a tenth of the chain.
    steps = length if name == "asyncz" else max(10, length // 10)
    start = PEERS[name][1]
    return {
        zone: {text: _best(start(text, _zone(zone)), steps, rounds) for text in EXPRESSIONS}
        for zone in ZONES
    }


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def _print_schedules(zone: str, times: dict[str, dict[str, float]], length: int) -> None:
    names = list(times)
    print(f"\nNext time in {zone}, us; means over {length} in a chain, of peers over a tenth of it")
    print(f"\n| {zone} | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for text in EXPRESSIONS:
        print(_row(f"`{text}`", [times[name][text] for name in names]))
    means = [_mean(times[name]) for name in names]
    print(_row("**mean**", means))
    print(_row("**worst**", [max(times[name].values()) for name in names]))
    print(_row("mean, times that of asyncz", [mean / means[0] for mean in means], 1))


def _row(title: str, numbers: list[float], digits: int = 2) -> str:
    return f"| {title} | {' | '.join(f'{number:.{digits}f}' for number in numbers)} |"


def _mean(found: dict[str, float]) -> float:
    return sum(found.values()) / len(found)


def _print_verdicts(times: dict[str, Times], singles: dict[str, float]) -> None:
    ours = times["asyncz"]
    utc, new_york = (ours[zone] for zone in ZONES)
    rows = [
        ("mean next time, UTC", _mean(utc), 3.5),
        ("mean next time, America/New_York", _mean(new_york), 7.0),
        ("worst expression, UTC", max(utc.values()), 8.0),
        ("worst expression, America/New_York", max(new_york.values()), 8.0),
        ("build from crontab text, never seen before", singles[NEVER_SEEN], 15.0),
        ("interval, next time", singles["interval, next"], 1.0),
        ("interval with start_at, next time", singles["interval with start_at, next"], 1.0),
        ("date, next time", singles["date, next"], 1.0),
    ]
    print("\n| figure | measured | target | |\n|---|---:|---:|---|")
    for title, measured, target in rows:
        verdict = "met" if measured <= target else "**missed**"
        print(f"| {title} | {measured:.2f} us | at most {target:g} us | {verdict} |")
    others = {name: _mean(found["UTC"]) for name, found in times.items() if name != "asyncz"}
    if others:
        fastest = min(others, key=lambda name: others[name])
        ratio = others[fastest] / _mean(utc)
        verdict = "met" if ratio >= 10 else "**missed**"
        print(f"| faster than {fastest}, UTC | {ratio:.1f} times | at least 10 times | {verdict} |")


def _best(chain: Chain, steps: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        chain(steps)
        best = min(best, time.perf_counter() - started)
    return best / steps * 1e6


def _asyncz(expression: str, zone: tzinfo) -> Chain:
    from asyncz.triggers import CronTrigger

    trigger = CronTrigger.from_crontab(expression, timezone=zone)
    start = START.replace(tzinfo=zone)

    def chain(steps: int) -> object:
        following = trigger.get_next_trigger_time
        moment: datetime | None = start
        for _ in range(steps):
            moment = following(None, moment)
        return moment

    return chain


def _cronsim(expression: str, zone: tzinfo) -> Chain:
    from cronsim import CronSim  # type: ignore[import-not-found, unused-ignore]

    start = START.replace(tzinfo=zone)
    return lambda steps: [*itertools.islice(CronSim(expression, start), steps)]


def _croniter(expression: str, zone: tzinfo) -> Chain:
    from croniter import croniter  # type: ignore[import-untyped, unused-ignore]

    start = START.replace(tzinfo=zone)

    def chain(steps: int) -> object:
        schedule = croniter(expression, start)
        return [schedule.get_next(datetime) for _ in range(steps)]

    return chain


def _apscheduler(expression: str, zone: tzinfo) -> Chain:
    from apscheduler.triggers.cron import (  # type: ignore[import-untyped, unused-ignore]
        CronTrigger as Peer,
    )

    trigger = Peer.from_crontab(expression, timezone=zone)
    start = START.replace(tzinfo=zone)

    def chain(steps: int) -> object:
        moment = start
        for _ in range(steps):
            moment = trigger.get_next_fire_time(moment, moment + timedelta(microseconds=1))
        return moment

    return chain


def _upstream(expression: str, zone: tzinfo) -> Chain:
    from asyncz.triggers import CronTrigger

    trigger: Any = CronTrigger.from_crontab(expression, timezone=zone)
    start = START.replace(tzinfo=zone)

    def chain(steps: int) -> object:
        moment = start
        for _ in range(steps):
            # Its answer may be `now` itself, which the next microsecond rules out.
            later = moment + timedelta(microseconds=1)
            moment = trigger.get_next_trigger_time(zone, moment, later)
        return moment

    return chain


# Where each runs, None for this process, and how a chain of its next times is made.
PEERS: dict[str, tuple[Library | None, Peer]] = {
    "asyncz": (None, _asyncz),
    "cronsim": (CRON_LIBRARIES, _cronsim),
    "APScheduler": (CRON_LIBRARIES, _apscheduler),
    "croniter": (CRON_LIBRARIES, _croniter),
    "asyncz 0.17.2": (UPSTREAM, _upstream),
}
NEVER_SEEN = "from_crontab, texts never seen before (UTC)"


def _single_figures(repeats: int, rounds: int) -> Iterator[tuple[str, float]]:
    from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger

    zone = ZoneInfo("America/New_York")
    now = START.replace(tzinfo=UTC)
    local = START.replace(tzinfo=zone)
    anchored = IntervalTrigger(seconds=30, start_at=now)
    plain = IntervalTrigger(seconds=30)
    in_zone = IntervalTrigger(seconds=30, timezone=zone)
    date = DateTrigger(now)
    cron = CronTrigger(hour=9, timezone=zone)
    year = timedelta(days=365)
    second = CronTrigger.from_crontab("* * * * * *", timezone=zone)
    cases: tuple[tuple[str, Callable[[], object]], ...] = (
        ("interval, next", lambda: plain.get_next_trigger_time(UTC, now)),
        ("interval with start_at, next", lambda: anchored.get_next_trigger_time(None, now)),
        ("interval in New York, next", lambda: in_zone.get_next_trigger_time(None, local)),
        ("date, next", lambda: date.get_next_trigger_time(None, None, now)),
        ("cron in New York, previous time in UTC", lambda: cron.get_next_trigger_time(None, now)),
        ("cron, last_before", lambda: cron.last_before(now)),
        ("cron '* * * * * *', count over a year", lambda: second.count_between(now, now + year)),
        ("build DateTrigger(run_at)", lambda: DateTrigger(now)),
        ("build IntervalTrigger(seconds=1)", lambda: IntervalTrigger(seconds=1)),
        ("build CronTrigger(hour=9, minute='*/5')", lambda: CronTrigger(hour=9, minute="*/5")),
        ("from_crontab, the same text", lambda: CronTrigger.from_crontab("5 4 * * sun")),
    )
    for name, call in cases:
        yield name, _best_call(call, repeats, rounds)
    texts = _distinct_expressions(repeats // 5)
    for name, zone_given in (("UTC", UTC), ("no zone", None)):
        best = float("inf")
        for _ in range(rounds):
            fresh = next(texts)
            started = time.perf_counter()
            for text in fresh:
                CronTrigger.from_crontab(text, zone_given)
            best = min(best, time.perf_counter() - started)
        yield f"from_crontab, texts never seen before ({name})", best / len(fresh) * 1e6


def _best_call(call: Callable[[], object], repeats: int, rounds: int) -> float:
    def chain(steps: int) -> object:
        for _ in range(steps):
            call()
        return None

    return _best(chain, repeats, rounds)


def _distinct_expressions(count: int) -> Iterator[list[str]]:
    """Yield lists of texts of which none was seen before, with lists, ranges and steps."""
    chance = random.Random(7)
    seen: set[str] = set()
    while True:
        texts: list[str] = []
        while len(texts) < count:
            minute = f"{chance.randrange(30)}-{chance.randrange(30, 60)}/{chance.randrange(1, 30)}"
            hour = f"{chance.randrange(12)},{chance.randrange(12, 24)}"
            day = chance.choice(("*", str(chance.randrange(1, 29)), "1,15", "*/2"))
            weekday = chance.choice(("*", "mon-fri", "0", "1-5", "sat,sun"))
            text = f"{minute} {hour} {day} * {weekday}"
            if text not in seen:
                seen.add(text)
                texts.append(text)
        yield texts


if __name__ == "__main__":
    sys.exit(main())
