"""Due tasks are divided among the nodes of a store, by advice that nothing depends on."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from asyncz.clock import SystemClock
from asyncz.schedulers.rota import ABSENCE, PATIENCE, Rota
from asyncz.tasks.base import Task

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("a", "b", "c", "d")
SECOND = timedelta(seconds=1)
A_TURN = timedelta(seconds=PATIENCE[1])


async def work() -> None:
    """The callable of the tasks."""


def due(number: int, moment: datetime = NOON) -> Task:
    return Task(work, id=f"t{number}", next_run_time=moment)


class Time(SystemClock):
    """Elapsed time that is set by hand."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def monotonic(self) -> float:
        return self.elapsed


@pytest.fixture
def time() -> Time:
    return Time()


def rotas_of(names: tuple[str, ...], time: Time) -> dict[str, Rota]:
    made = {name: Rota(time, lambda name=name: name) for name in names}  # type: ignore[misc]
    for rota in made.values():
        rota.see(names)
    return made


def firsts(names: tuple[str, ...], time: Time, tasks: list[Task]) -> list[list[str]]:
    """For each task, whose turn it is at once."""
    made = rotas_of(names, time)
    return [[name for name in names if made[name].ours([task], NOON)] for task in tasks]


def first_for(name: str, *, behind: str, time: Time) -> Task:
    """A task whose turn it is for `name` first, and for `behind` next."""
    for number in range(1_000):
        task = due(number)
        others = tuple(each for each in NAMES if each != name)
        if firsts(NAMES, time, [task]) == [[name]] and firsts(others, time, [task]) == [[behind]]:
            return task
    raise AssertionError("none of a thousand")


def test_each_occurrence_is_for_one_node_at_once_and_all_agree(time: Time) -> None:
    tasks = [due(number) for number in range(2_000)]

    chosen = firsts(NAMES, time, tasks)

    assert {len(names) for names in chosen} == {1}
    shares = Counter(names[0] for names in chosen)
    assert all(400 < shares[name] < 600 for name in NAMES)


def test_the_occurrences_of_one_task_are_divided_too(time: Time) -> None:
    made = rotas_of(NAMES, time)
    moments = [NOON + number * SECOND for number in range(400)]

    shares = [sum(bool(one.ours([due(1, at)], at)) for at in moments) for one in made.values()]

    assert sum(shares) == len(moments)
    assert all(60 < share < 140 for share in shares)


def test_who_is_gone_takes_nobody_elses_turn_along(time: Time) -> None:
    tasks = [due(number) for number in range(500)]
    before, after = firsts(NAMES, time, tasks), firsts(NAMES[:3], time, tasks)

    assert all(old == new for old, new in zip(before, after, strict=True) if old != ["d"])


def test_who_does_not_know_of_others_waits_for_nobody(time: Time) -> None:
    tasks = [due(number) for number in range(50)]
    unknowing, alone = Rota(time, lambda: "a"), Rota(time, lambda: "a")
    alone.see(["a"])

    assert unknowing.ours(tasks, NOON) == alone.ours(tasks, NOON) == tasks


def test_a_task_that_the_first_leaves_is_the_nexts_after_a_moment(time: Time) -> None:
    task = first_for("a", behind="b", time=time)
    second = rotas_of(NAMES, time)["b"]
    second.read([task], NOON, NOON + SECOND)

    assert second.next_turn() == NOON + A_TURN
    assert second.ours([task], NOON) == []
    assert second.next_turn() == NOON + A_TURN
    assert not second.is_disputed
    assert second.ours([task], NOON + A_TURN) == [task]
    assert second.is_disputed


def test_nobody_waits_longer_than_a_moment(time: Time) -> None:
    names = tuple(f"n{number}" for number in range(40))
    made = rotas_of(names, time)
    tasks = [due(number) for number in range(20)]

    for rota in made.values():
        assert rota.ours(tasks, NOON + timedelta(seconds=PATIENCE[-1])) == tasks


def test_who_has_let_a_turn_pass_is_not_waited_for_for_a_while(time: Time) -> None:
    task = first_for("a", behind="b", time=time)
    second = rotas_of(NAMES, time)["b"]

    second.ours([task], NOON + A_TURN)

    assert second.ours([task], NOON) == [task]
    time.elapsed = ABSENCE
    assert second.ours([task], NOON) == []


def test_who_claims_something_first_is_there_after_all(time: Time) -> None:
    task = first_for("a", behind="b", time=time)
    second = rotas_of(NAMES, time)["b"]
    second.ours([task], NOON + A_TURN)

    second.lost()

    assert second.ours([task], NOON) == []
    assert second.is_disputed
    second.see(NAMES)
    assert not second.is_disputed


def test_one_that_has_left_is_forgotten(time: Time) -> None:
    task = first_for("a", behind="b", time=time)
    second = rotas_of(NAMES, time)["b"]
    second.ours([task], NOON + A_TURN)
    second.see(NAMES[1:])
    second.see(NAMES)

    assert second.ours([task], NOON) == []


def test_what_others_have_seen_to_is_not_waited_for(time: Time) -> None:
    task = first_for("a", behind="b", time=time)
    second = rotas_of(NAMES, time)["b"]
    second.read([task], NOON, NOON + SECOND)

    assert second.ours([], NOON + A_TURN) == []
    assert second.next_turn() == NOON + SECOND


def test_what_is_due_later_is_known_until_the_store_is_looked_at(time: Time) -> None:
    rota = Rota(time, lambda: "a")
    assert rota.next_turn() is None
    rota.read([due(1, NOON + 2 * SECOND), due(2, NOON + SECOND)], NOON, NOON + 3 * SECOND)

    assert rota.next_turn() == NOON + SECOND
    rota.ours([due(2, NOON + SECOND)], NOON + SECOND)
    assert rota.next_turn() == NOON + 2 * SECOND
    rota.forget()
    assert rota.next_turn() is None


def test_a_task_that_was_handed_over_here_is_followed(time: Time) -> None:
    again = NOON + SECOND / 2
    rota = rotas_of(NAMES, time)["a"]
    rota.follow([("t1", NOON)], NOON - SECOND)
    rota.read([], NOON, NOON + 2 * SECOND)

    tasks = [due(number, again) for number in range(20)]
    rota.follow([(str(task.id), again) for task in tasks], NOON + A_TURN)
    rota.follow([("t98", None), ("t99", NOON + 2 * SECOND)], NOON)

    assert rota.next_turn() == again
    assert rota.ours(tasks, again) == tasks


def test_tasks_that_are_added_here_are_taken_into_account(time: Time) -> None:
    rota = Rota(time, lambda: "a")
    assert not rota.tell(NOON, NOON)
    rota.read([], NOON, NOON + 2 * SECOND)

    assert not rota.tell(NOON + 2 * SECOND, NOON)
    assert rota.tell(NOON + SECOND, NOON)
    assert rota.tell(NOON, NOON)
    assert rota.next_turn() == NOON
    rota.ours([], NOON)
    assert rota.next_turn() == NOON + SECOND


@pytest.mark.parametrize("is_known", [False, True])
def test_what_others_cannot_have_heard_of_is_not_left_to_them(time: Time, is_known: bool) -> None:
    rota = rotas_of(NAMES, time)["a"]
    if is_known:
        rota.read([], NOON, NOON + 5 * SECOND)
    tasks = [due(number, NOON + SECOND) for number in range(20)]
    later = [due(number, NOON + 3 * SECOND) for number in range(20)]

    rota.tell(NOON + SECOND, NOON + 2 * SECOND)
    rota.tell(NOON + 3 * SECOND, NOON + 2 * SECOND)

    assert rota.ours(tasks, NOON + SECOND) == tasks
    assert len(rota.ours(later, NOON + 3 * SECOND)) < 20
    rota.read([], NOON + 5 * SECOND, NOON + 6 * SECOND)
    assert len(rota.ours(tasks, NOON + SECOND)) < 20


def test_any_id_has_its_turn(time: Time) -> None:
    rota = rotas_of(NAMES, time)["a"]
    odd = Task(work, id="\x00 ☃ \U0001f600", next_run_time=NOON)

    assert rota.ours([odd], NOON + SECOND) == [odd]
