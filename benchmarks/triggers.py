"""Time the triggers, and the same schedules in other libraries where they are installed.

Run as `python benchmarks/triggers.py [--quick]`. Every figure is the best of several rounds,
in microseconds. For each schedule the time is the mean over a chain of next times.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from asyncz.triggers import CronTrigger, DateTrigger, IntervalTrigger

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
ROUNDS = 5

Chain = Callable[[int], object]
Peer = Callable[[str, tzinfo], Chain]


def main() -> int:
    parser = argparse.ArgumentParser(description="time the triggers")
    parser.add_argument("--quick", action="store_true", help="shorter chains, one round")
    quick = parser.parse_args().quick
    length, rounds = (QUICK_CHAIN, 1) if quick else (CHAIN, ROUNDS)
    peers = dict(_peers())
    for zone in (UTC, ZoneInfo("America/New_York")):
        _compare(zone, peers, length, rounds)
    print()
    for name, micros in _single_figures(20_000 if not quick else 500, rounds):
        print(f"{name:<48} {micros:8.2f} us")
    return 0


def _compare(zone: tzinfo, peers: dict[str, Peer], length: int, rounds: int) -> None:
    print(f"\nnext time in {zone}, microseconds (mean over {length} in a chain)")
    print(f"{'':<22}" + "".join(f"{name:>14}" for name in peers))
    sums = dict.fromkeys(peers, 0.0)
    worst = dict.fromkeys(peers, 0.0)
    for expression in EXPRESSIONS:
        row = f"{expression:<22}"
        for name, make in peers.items():
            # Peers are slow enough for a tenth of the chain.
            steps = length if name == "asyncz" else max(10, length // 10)
            micros = _best(make(expression, zone), steps, rounds)
            sums[name] += micros
            worst[name] = max(worst[name], micros)
            row += f"{micros:14.2f}"
        print(row)
    count = len(EXPRESSIONS)
    print(f"{'mean':<22}" + "".join(f"{sums[name] / count:14.2f}" for name in peers))
    print(f"{'worst':<22}" + "".join(f"{worst[name]:14.2f}" for name in peers))
    ours = sums["asyncz"]
    print(f"{'mean / asyncz':<22}" + "".join(f"{sums[name] / ours:13.1f}x" for name in peers))


def _best(chain: Chain, steps: int, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        chain(steps)
        best = min(best, time.perf_counter() - started)
    return best / steps * 1e6


def _peers() -> Iterator[tuple[str, Peer]]:
    yield "asyncz", _asyncz
    for name, make in (
        ("cronsim", _cronsim),
        ("croniter", _croniter),
        ("APScheduler", _apscheduler),
    ):
        try:
            make("* * * * *", UTC)
        except ImportError:
            print(f"{name} is not installed, left out", file=sys.stderr)
        else:
            yield name, make


def _asyncz(expression: str, zone: tzinfo) -> Chain:
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


def _single_figures(repeats: int, rounds: int) -> Iterator[tuple[str, float]]:
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
    texts = _distinct_expressions(repeats // 10)
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
