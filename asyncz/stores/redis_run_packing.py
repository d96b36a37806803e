"""Runs and what is said of them, packed for the scripts of a Redis store. See `redis_run_lua`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from struct import Struct
from typing import Any

from asyncz.enums import RunState
from asyncz.serializers.json import to_microseconds
from asyncz.stores.cluster import Firing, RunEnd, RunOutcome, RunRef
from asyncz.stores.redis_rows import NEVER, encode_key, encode_time
from asyncz.stores.redis_run_rows import (
    DELIVERIES,
    KINDS,
    STATES,
    RunTexts,
    encode_moment,
    ident_of,
)

__all__ = ["in_parts", "pack_attempt", "pack_end", "pack_firing", "pack_note", "pack_ref"]

TOKEN = b"%012d"

_SIZE = Struct("<I")
_THREE = Struct("<III")


def pack_firing(firing: Firing, is_readable: bool, texts: RunTexts) -> tuple[bytes, int]:
    """A firing for the scripts, and how many runs it may enter."""
    task_id = str(firing.task.id)
    key = encode_key(task_id)
    letter = b"f" if firing.forget else b"-"
    expected = _time_or_paused(firing.expected)
    task, run_times = firing.task, firing.run_times
    packed = [
        _THREE.pack(len(run_times), len(firing.unrun), task.max_instances),
        KINDS[firing.kind], DELIVERIES[task.delivery], letter if is_readable else b"x",
        expected, _time_or_paused(firing.next_run_time), _SIZE.pack(len(key)), key,
    ]  # fmt: skip
    for moment in run_times:
        packed.append(expected if moment is firing.expected else encode_moment(moment))
    for unrun in firing.unrun:
        last = encode_moment(unrun.last).decode()
        text = texts.pack(task_id, unrun.first, {"r": unrun.reason}, n=unrun.occurrences, l=last)
        packed += [STATES[unrun.state], encode_moment(unrun.first), _SIZE.pack(len(text)), text]
    return b"".join(packed), 1 + len(run_times) + len(firing.unrun)


def pack_ref(ref: RunRef, letter: bytes = b"") -> bytes:
    """A run for the scripts, with something about it."""
    ident = ident_of(ref)
    return b"".join((TOKEN % ref.token, letter, _SIZE.pack(len(ident)), ident))


def pack_attempt(ref: RunRef, letter: bytes, most: int) -> bytes:
    """A run that is due again for the scripts, and its task's `max_instances`."""
    ident = ident_of(ref)
    return b"".join((TOKEN % ref.token, letter, _SIZE.pack(most), _SIZE.pack(len(ident)), ident))


def pack_note(ref: RunRef, notes: Mapping[str, Any], texts: RunTexts) -> bytes:
    """A run and its notes for the scripts."""
    text = texts.pack(ref.task_id, ref.scheduled_time, {"o": dict(notes)})
    return b"".join((pack_ref(ref), _SIZE.pack(len(text)), text))


def pack_end(end: RunEnd, texts: RunTexts) -> tuple[bytes, int]:
    """How a run ended for the scripts, and how many runs that settles."""
    ref = end.ref
    time, key = encode_moment(ref.scheduled_time), encode_key(ref.task_id)
    said = {_time_of(outcome.scheduled_time, ref, time): outcome for outcome in end.outcomes}
    head = said.pop(time, None) or RunOutcome(ref.scheduled_time, RunState.CANCELLED)
    ident, text = time + key + KINDS[ref.kind], _text_of(head, ref.task_id, texts)
    packed = [
        _SIZE.pack(len(said)), TOKEN % ref.token, STATES[head.state],
        _SIZE.pack(len(ident)), ident, _SIZE.pack(len(text)), text,
    ]  # fmt: skip
    if not said:
        return b"".join(packed), 1
    for time, outcome in said.items():
        text = _text_of(outcome, ref.task_id, texts)
        packed += [time, STATES[outcome.state], _SIZE.pack(len(text)), text]
    return b"".join(packed), 1 + len(said)


def in_parts(packed: Sequence[tuple[bytes, int]], runs: int, size: int) -> Iterator[bytes]:
    """Things for the scripts with their numbers of runs, in parts.

    A part has as many runs and bytes, or is one thing that has more.
    """
    part: list[bytes] = []
    weight = length = 0
    for data, count in packed:
        if part and (weight + count > runs or length + len(data) > size):
            yield b"".join(part)
            part, weight, length = [], 0, 0
        part.append(data)
        weight += count
        length += len(data)
    if part:
        yield b"".join(part)


def _text_of(outcome: RunOutcome, task_id: str, texts: RunTexts) -> bytes:
    text = texts.outcome(task_id, outcome)
    if outcome.state is not RunState.RETRYING:
        return text
    return (NEVER if outcome.retry_at is None else encode_moment(outcome.retry_at)) + text


def _time_of(moment: datetime, ref: RunRef, time: bytes) -> bytes:
    return time if moment is ref.scheduled_time else encode_moment(moment)


def _time_or_paused(moment: datetime | None) -> bytes:
    return encode_time(None if moment is None else to_microseconds(moment))
