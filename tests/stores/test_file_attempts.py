"""Runs of a file store on their way, beyond what every store does: what its journal keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asyncz.enums import Delivery, RunState
from asyncz.exceptions import StoreError
from asyncz.runs.base import RunQuery
from asyncz.serializers import EncryptedSerializer
from asyncz.serializers.json import to_microseconds
from asyncz.stores import file_book, file_ledger, file_part_index
from asyncz.stores.cluster import RunEnd, RunOutcome, RunRef
from asyncz.stores.file_journal import Journal, from_line, to_line
from asyncz.stores.file_waiting import Waiting
from asyncz.testing.store_suite_tools import NOON, after, make_task

from .conftest import file_of
from .file_nodes import SCHEDULED, FileNode, node

KEY = "a key for the tests, long enough for that"
CANARY = "the password is swordfish"
RETRYING, CANCELLED = RunState.RETRYING, RunState.CANCELLED
SETTLED = frozenset(state for state in RunState if not state.is_open)


def files_of(directory: Path, pattern: str = "*.log") -> list[Path]:
    return sorted((directory / file_book.RUNS_NAME).glob(pattern))


def lines_of(directory: Path) -> list[dict[str, Any]]:
    lines = files_of(directory)[-1].read_bytes().splitlines()
    return [change for change in map(from_line, lines) if change is not None]


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the journal for every few lines, and a block for every line."""
    monkeypatch.setattr(file_book, "PART_BYTES", 1)
    monkeypatch.setattr(file_part_index, "BLOCK_BYTES", 1)


async def fail(one: FileNode, *names: str, seconds: float = 60, **said: Any) -> None:
    """Runs of noon have failed, and are tried again so many seconds later."""
    retry_at = after(seconds)
    assert await one.finish(*names, state=RETRYING, retry_at=retry_at, **said) == [True] * len(
        names
    )


async def fill(one: FileNode, count: int, *, first: int = 0) -> None:
    """That many tasks are run and forgotten, a second apart."""
    for number in range(first, first + count):
        await one.store.add_task(make_task(f"t{number:03}"))
        await one.run_all()
        one.clock.jump(1)


# ---- restarts


async def test_what_waits_and_what_is_marked_is_known_after_a_restart(
    directory: Path, short_parts: None
) -> None:
    async with node(directory, "one") as one:
        for name in ("again", "asked"):
            await one.store.add_task(make_task(name))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await fail(one, "again", error="ValueError", notes={"message": "page 3"})
        assert await one.store.cancel_run("asked", NOON, "ann") is RunState.RUNNING
        await one.store.note_runs("one", [(RunRef("asked", SCHEDULED, NOON, 1), {"progress": 1})])
        await fill(one, 5)
    async with node(directory, "two", one.clock) as two:
        (run,) = await two.runs(task_id="again")
        assert (run.state, run.retry_at) == (RETRYING, after(60))
        assert (run.error, run.message, run.owner) == ("ValueError", "page 3", "one")
        looked = await two.store.look()
        assert looked.attend_at is not None
        assert looked.attend_at <= looked.now
        two.clock.jump(60)
        (taken,), asked, _ = await two.store.attend("two")
        assert (taken.ref.task_id, taken.attempt, asked) == ("again", 2, ())
        await two.store.reap("two", bury=two.clock.now(), max_attempts=3)
        _, asked, _ = await two.store.attend("two")
        assert asked == ((RunRef("asked", SCHEDULED, NOON, 2), "ann"),)
        (run,) = await two.runs(task_id="asked")
        assert run.progress == 1


async def test_the_last_word_of_a_run_that_others_ended_is_kept(directory: Path) -> None:
    async with node(directory, "one") as one, node(directory, "two", one.clock) as two:
        await one.store.add_task(make_task("a", delivery=Delivery.AT_MOST_ONCE))
        await one.fire(*await one.store.get_due_tasks(NOON))
        first = RunRef("a", SCHEDULED, NOON, 1)
        await one.store.start_runs("one", [first])
        await one.store.note_runs("one", [(first, {"message": "page 3"})])
        await one.store.leave_node("one")
        ((_, state),) = (await two.store.reap("two", bury=None, max_attempts=3)).ended
        assert state is RunState.LOST
        (run,) = await two.runs()
        assert run.message == "page 3"
        assert (run.reason or "").startswith("its worker one was killed")


async def test_a_run_that_was_given_up_is_not_tried_again(directory: Path) -> None:
    async with node(directory, "one") as one, node(directory, "two", one.clock) as two:
        await one.store.add_task(make_task("a", delivery=Delivery.AT_MOST_ONCE))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await one.store.start_runs("one", [RunRef("a", SCHEDULED, NOON, 1)])
        await one.store.leave_node("one")
        await two.store.reap("two", bury=None, max_attempts=3)
        assert await one.finish("a", state=RETRYING, retry_at=NOON) == [False]
        assert [run.state for run in await two.runs()] == [RunState.LOST]
        assert await one.finish("a", state=RunState.FAILED) == [True]


async def test_an_attempt_of_a_task_that_cannot_be_read_here_is_left_to_others(
    directory: Path,
) -> None:
    async with node(directory, "one") as one:
        for name in ("a", "b"):
            await one.store.add_task(make_task(name))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await fail(one, "a", "b", seconds=0)
        data = file_of(directory, "a").read_bytes()
        file_of(directory, "a").write_bytes(b"spoilt")
        (taken,), _, ended = await one.store.attend("one", limit=1)
        assert (taken.ref.task_id, ended) == ("b", ())
        file_of(directory, "a").write_bytes(data)
        (taken,), _, _ = await one.store.attend("one")
        assert taken.ref.task_id == "a"


# ---- the release before


def old_journal(directory: Path) -> Path:
    """One as the release before has left it: a run that goes on, and one that ended."""
    at = to_microseconds(NOON)
    about = {"joined": at, "lease": [at, at, 0], "state": "alive", "changed": at, "claims": []}
    open_run = {
        "number": 7, "task_id": "a", "kind": "scheduled", "times": [at], "generation": 5,
        "once": False, "record": None, "owner": "old", "state": "running", "attempt": 1,
        "token": 1, "claimed": at, "started": at,
    }  # fmt: skip
    head = {
        "op": "head", "v": 1, "number": 1, "last_number": 7, "forgotten": [0, 0],
        "nodes": [{"about": ["old", "old", "host", 1], **about}], "open": [open_run],
        "moves": [], "parts": [],
    }  # fmt: skip
    row = {
        "task": "b", "kind": "scheduled", "at": at, "state": "failed", "gen": 6, "ran": 1,
        "owner": "old", "tried": 1, "token": 1, "claimed": at, "started": at,
        "texts": ["why", "ValueError"],
    }  # fmt: skip
    end = {"op": "end", "at": at, "runs": [8], "rows": [row]}
    runs = directory / file_book.RUNS_NAME
    runs.mkdir(mode=0o700, parents=True)
    file = runs / "runs-00000001.log"
    file.write_bytes(to_line(head) + to_line(end))
    return file


async def test_the_journal_of_the_release_before_is_gone_on_with(directory: Path) -> None:
    file = old_journal(directory)
    before = file.read_bytes()
    async with node(directory, "one") as one:
        assert file.read_bytes().startswith(before)
        assert [change["v"] for change in lines_of(directory) if change["op"] == "head"] == [2]
        ended, running = sorted(await one.runs(), key=lambda run: run.task_id, reverse=True)
        assert (running.task_id, running.state, running.owner) == ("a", RunState.RUNNING, "old")
        assert (ended.state, ended.reason, ended.error) == (RunState.FAILED, "why", "ValueError")
        assert await one.runs(task_id="b", since=NOON, until=NOON) == [ended]
        assert await one.store.prune_runs("b", SETTLED, 0, NOON) == 1
        assert await one.runs() == [running]
    async with node(directory, "two") as two:
        assert await two.runs() == [running]


async def test_the_release_before_finds_its_file_sealed_and_refuses_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_old(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(file_ledger, "VERSION", 1)
        patch.setattr(file_book, "VERSION", 1)
        patch.setattr(file_book, "OLD_VERSIONS", frozenset())

    with monkeypatch.context() as patch:
        be_old(patch)
        old = await (entered := node(directory, "old")).__aenter__()
        await old.store.add_task(make_task("a"))
        await old.fire(*await old.store.get_due_tasks(NOON))
    async with node(directory, "new") as new:
        assert [run.state for run in await new.runs()] == [RunState.RUNNING]
        with monkeypatch.context() as patch:
            be_old(patch)
            with pytest.raises(StoreError, match="version 2"):
                await old.store.look()
            with pytest.raises(StoreError, match="version 2"):
                await old.finish("a")
        assert [run.state for run in await new.runs()] == [RunState.RUNNING]
    await entered.__aexit__(None, None, None)


# ---- what is said


async def test_notes_are_encrypted_if_the_tasks_are(directory: Path) -> None:
    serializer = EncryptedSerializer(KEY)
    async with node(directory, "one", serializer=serializer) as one:
        for name in ("a", "b", "c"):
            await one.store.add_task(make_task(name))
        await one.fire(*await one.store.get_due_tasks(NOON), forget=True)
        await one.store.note_runs(
            "one", [(RunRef("a", SCHEDULED, NOON, 1), {"message": CANARY, "log": [CANARY]})]
        )
        await fail(one, "b", error=CANARY, traceback=CANARY, notes={"message": CANARY})
        await one.finish("c", notes={"result": {CANARY: CANARY}})
        found = {run.task_id: run for run in await one.runs()}
        assert found["a"].message == found["b"].message == found["b"].error == CANARY
        assert found["c"].result == {CANARY: CANARY}
    everything = b"".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())
    assert CANARY.encode() not in everything
    async with node(directory, "two", serializer=EncryptedSerializer("x" * 32)) as two:
        assert {run.reason for run in await two.runs()} == {"what it said cannot be decrypted here"}


@pytest.mark.parametrize("options", [{}, {"serializer": EncryptedSerializer(KEY)}])
async def test_notes_may_have_what_is_no_valid_text(
    directory: Path, options: dict[str, Any]
) -> None:
    async with node(directory, "one", **options) as one:
        await one.store.add_task(make_task("a"))
        await one.fire(*await one.store.get_due_tasks(NOON))
        assert await one.store.cancel_run("a", NOON, "ann \udcff") is RunState.RUNNING
        assert await one.finish("a", notes={"message": "\\ \udcff ✓", "result": "\ud800"}) == [True]
        (run,) = await one.runs()
        assert (run.message, run.result) == ("\\ \\udcff ✓", "\\ud800")


async def test_who_changes_what_he_has_said_changes_nothing(directory: Path) -> None:
    result: list[int] = [1]
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a"))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await one.finish("a", notes={"result": result})
        result.append(2)
        assert [run.result for run in await one.runs()] == [[1]]


# ---- history


async def test_of_many_files_those_lines_are_read_that_have_something(
    directory: Path, short_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node(directory, "one") as one:
        await fill(one, 40)
        assert len(files_of(directory)) > 10
        await one.runs(task_id="nobody")  # makes the indexes
    assert len(files_of(directory, "*.index")) > 5
    async with node(directory, "two", one.clock) as two:
        reads: list[int] = []
        read_span = Journal.read_span

        def reading(self: Journal, number: int, *rest: Any) -> Any:
            reads.append(number)
            return read_span(self, number, *rest)

        monkeypatch.setattr(Journal, "read_span", reading)
        monkeypatch.setattr(Journal, "read_part", reading)
        assert [run.task_id for run in await two.runs(task_id="t003")] == ["t003"]
        assert len(reads) == 1
        assert await two.runs(task_id="nobody") == []
        assert await two.runs(states=frozenset({RunState.RUNNING})) == []
        assert await two.runs(since=after(1), until=after(9)) == []
        assert await two.store.get_last_runs(["nobody"]) == {}
        assert len(reads) == 1
        found = await two.store.get_last_runs(["t003", "t020", "nobody"])
        assert sorted(found) == ["t003", "t020"]
        assert len(reads) == 3


async def test_an_index_that_is_spoilt_is_made_anew(directory: Path, short_parts: None) -> None:
    async with node(directory, "one") as one:
        await fill(one, 10)
        before = await one.runs(task_id="t003")
    for number, file in enumerate(files_of(directory, "*.index")):
        file.write_bytes((b"", b"x", file.read_bytes()[:-1], b"asyncz-index 1\n")[number % 4])
    async with node(directory, "two", one.clock) as two:
        assert await two.runs(task_id="t003") == before
        assert len(await two.runs()) == 10


async def test_an_index_goes_with_its_file(directory: Path, short_parts: None) -> None:
    async with node(directory, "one", cleanup_directory=True) as one:
        await fill(one, 20)
        await one.runs(task_id="nobody")
        assert await one.store.forget_runs(after(15)) == 15
        logs = {file.stem for file in files_of(directory)}
        assert {file.stem for file in files_of(directory, "*.index")} < logs
        await one.store.leave_node("one")
    assert not directory.exists()


async def test_what_is_pruned_is_not_there_after_a_restart_and_its_files_go(
    directory: Path, short_parts: None
) -> None:
    async with node(directory, "one") as one, node(directory, "other", one.clock) as other:
        await fill(one, 12)
        many = len(files_of(directory))
        for number in range(3, 9):
            pruned = await other.store.prune_runs(f"t{number:03}", SETTLED, 0, NOON)
            assert pruned == 1
            assert await one.store.prune_runs(f"t{number:03}", SETTLED, 0, NOON) == 0
        left = [f"t{number:03}" for number in (0, 1, 2, 9, 10, 11)]
        assert sorted(run.task_id for run in await one.runs()) == left
        await fill(one, 2, first=20)
        assert len(files_of(directory)) < many
    async with node(directory, "two", one.clock) as two:
        assert sorted(run.task_id for run in await two.runs()) == [*left, "t020", "t021"]
        assert await two.store.forget_runs(after(10), limit=2) == 2
        assert await two.store.forget_runs(after(10)) == 2
        assert sorted(run.task_id for run in await two.runs()) == ["t010", "t011", "t020", "t021"]


async def test_a_lost_run_that_ended_well_does_not_come_back_when_that_is_pruned(
    directory: Path, short_parts: None
) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a", delivery=Delivery.AT_MOST_ONCE))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await one.store.start_runs("one", [RunRef("a", SCHEDULED, NOON, 1)])
        await one.store.leave_node("one")
        async with node(directory, "two", one.clock) as two:
            await two.store.reap("two", bury=None, max_attempts=3)
            await fill(two, 5)
            assert await one.finish("a") == [True]
            await fill(two, 5, first=5)
            assert await two.runs(states=frozenset({RunState.LOST})) == []
            assert await two.store.prune_runs("a", frozenset({RunState.SUCCEEDED}), 0, NOON) == 1
            assert await two.runs(task_id="a") == []


async def test_an_open_run_is_neither_forgotten_nor_pruned(directory: Path) -> None:
    async with node(directory, "one") as one:
        for name in ("a", "b"):
            await one.store.add_task(make_task(name))
        await one.fire(*await one.store.get_due_tasks(NOON))
        await fail(one, "a")
        one.clock.jump(3_600)
        every = frozenset(RunState)
        for name in ("a", "b"):
            assert await one.store.prune_runs(name, every, 0, one.clock.now()) == 0
        assert await one.store.forget_runs(one.clock.now()) == 0
        assert [run.state for run in await one.runs()] == [RunState.RUNNING, RETRYING]


# ---- those that wait


def test_of_many_that_wait_for_one_task_the_first_stands_for_all() -> None:
    waiting = Waiting()
    for number in range(1_000):
        waiting.add(("a", 1), 10 + number, number)
    waiting.add(("b", 2), 5, 2_000)
    waiting.add(("c", 3), 5_000, 2_001)
    assert [*waiting.due(1_500)] == [("b", 2), ("a", 1)]
    assert [*waiting.due(1_500)] == [("b", 2), ("a", 1)]
    assert waiting.of(("a", 1), 1_500, 3) == [0, 1, 2]
    assert waiting.of(("a", 1), 11, 3) == [0, 1]
    assert waiting.first() == 5
    waiting.remove(("b", 2), 5, 2_000)
    waiting.remove(("a", 1), 10, 0)
    assert waiting.first() == 11
    assert ("b", 2) not in waiting
    for number in range(1, 1_000):
        waiting.remove(("a", 1), 10 + number, number)
    assert waiting.first() == 5_000
    assert [*waiting.due(4_999)] == []


async def test_a_run_without_an_instant_to_be_tried_again_at_is_due_at_once(
    directory: Path,
) -> None:
    async with node(directory, "one") as one:
        await one.store.add_task(make_task("a"))
        await one.fire(*await one.store.get_due_tasks(NOON))
        said = RunEnd(RunRef("a", SCHEDULED, NOON, 1), (RunOutcome(NOON, RETRYING),))
        await one.store.finish_runs("one", [said])
        assert len((await one.store.attend("one")).taken) == 1


async def test_nothing_waits_before_a_node_joins(directory: Path) -> None:
    async with node(directory / "other", "one") as one:
        store = type(one.store)(directory)
        await store.start(one.store.host, "files")
        assert (await store.look()).attend_at is None
        assert await store.attend("nobody") == ((), (), ())
        assert await store.cancel_run("a", NOON, "ann") is None
        assert await store.prune_runs("a", SETTLED, 0, NOON) == 0
        assert await store.note_runs("x", [(RunRef("a", SCHEDULED, NOON, 1), {})]) == [False]
        assert await store.get_runs(RunQuery(task_id="a")) == []
        await store.shutdown()
