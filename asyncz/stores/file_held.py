"""What the parts of `FileRuns` work with: the journal, the tasks, and the lock of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from asyncz.enums import RunKind
from asyncz.serializers.json import from_microseconds, to_microseconds
from asyncz.stores.cluster import RunRef
from asyncz.stores.file_book import RunBook
from asyncz.stores.file_entries import Entry
from asyncz.stores.file_ledger import Ledger
from asyncz.stores.file_live import LiveRun, RunKey
from asyncz.stores.file_nodes import Holds
from asyncz.stores.file_records import FileRecords
from asyncz.stores.file_rows import RowWriter
from asyncz.stores.file_takeover import TakeOver

__all__ = ["RunsUnderLock", "key_of", "owned", "ref_of"]


class RunsUnderLock:
    """The runs of one directory of tasks. Each operation is made in one `_held`.

    Args:
        records: The tasks.
    """

    def __init__(self, records: FileRecords) -> None:
        self._records = records
        self._codec = codec = records.codec
        self._clock = codec.host.clock
        self._writer = RowWriter(codec)
        self._book = RunBook(records.files, codec.alias, records.logger)
        self._taking = TakeOver(records.index, codec)
        self._holds = Holds()

    def remove(self) -> None:
        """Remove all of it, unless a node is alive."""
        with self._held():
            self._book.remove()

    def close(self) -> None:
        """Let go of the files, and of the nodes that have not left."""
        self._holds.release_all()
        self._book.close()

    def _make_moves(self, entries: Mapping[str, Entry] | None = None) -> None:
        self._records.move_all(self._book.ledger.moves, entries or {})
        # Without haste: to make them again changes nothing.
        self._book.commit({"op": "moved"}, sync=False)

    def _is_gone(self, ledger: Ledger, node_id: str | None) -> bool:
        """Whether a node that is alive in the journal has no process any more."""
        if node_id is None or not ledger.is_alive(node_id):
            return False
        return self._holds.is_gone(self._book.files, node_id)

    def _now(self) -> int:
        return to_microseconds(self._clock.now())

    @contextmanager
    def _held(self, *, make: bool = False) -> Iterator[Ledger]:
        with self._records.locked():
            try:
                self._book.open(make=make)
                yield self._book.ledger
            except BaseException:
                # Whatever it was, what is on the disk is right.
                self._book.close()
                raise


def key_of(ref: RunRef) -> RunKey:
    """What a run is called in the ledger."""
    return ref.task_id, ref.kind.value, to_microseconds(ref.scheduled_time)


def owned(ledger: Ledger, node_id: str, ref: RunRef) -> LiveRun | None:
    """The open run of a reference, if it is that node's and the token is right."""
    return ledger.find(key_of(ref), node_id, ref.token)


def ref_of(run: LiveRun) -> RunRef:
    """What the owner of a run knows it by."""
    return RunRef(run.task_id, RunKind(run.kind), from_microseconds(run.times[0]), run.token)
