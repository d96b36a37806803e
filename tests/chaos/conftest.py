"""The servers of the trials: one of each kind for all tests, put right after each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.places import Place
from tests.chaos.trial import Outcome, Trial, hold
from tests.services.mongodb import warm_motor

Hold = Callable[[str, Trial], Awaitable[Outcome]]


@pytest.fixture(scope="session")
def places() -> Iterator[dict[str, Place]]:
    """By kind of store, those that were needed so far."""
    warm_motor()
    started: dict[str, Place] = {}
    yield started
    for place in started.values():
        place.close()


@pytest.fixture
def hold_trial(
    places: dict[str, Place],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Hold]:
    """Hold a trial on a store of that kind, and look whether all promises were kept."""
    used: list[Place] = []

    async def hold_it(kind: str, trial: Trial) -> Outcome:
        if kind not in places:
            places[kind] = Place(kind)
        used.append(places[kind])
        directory = tmp_path / str(len(used))
        directory.mkdir()
        outcome = await hold(places[kind], trial, directory)
        record_property("verdict", str(outcome.verdict))
        assert outcome.verdict.is_good, f"{outcome.verdict}\n\n{_last_words(outcome)}"
        return outcome

    yield hold_it
    for place in used:
        place.put_right()


def _last_words(outcome: Outcome) -> str:
    """What the workers said in the end."""
    text = outcome.log.read_text(errors="replace") if outcome.log.exists() else ""
    return f"{outcome.log}:\n{text[-3_000:]}"
