"""The journal of a file store's runs and what it adds up to, kept in step with each other."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger
from pathlib import Path

from asyncz.exceptions import StoreError, StoreFormatError
from asyncz.stores.file_directory import RecordDirectory
from asyncz.stores.file_journal import Change, Journal
from asyncz.stores.file_ledger import OLD_VERSIONS, VERSION, Ledger, Part, Row
from asyncz.stores.file_live import RunKey
from asyncz.stores.file_part_index import PartIndexes
from asyncz.stores.file_settled import SettledRuns
from asyncz.stores.file_thread import give_way

__all__ = ["RUNS_NAME", "RunBook"]

RUNS_NAME = ".asyncz-runs"
PART_BYTES = 1024 * 1024
"""A file of the journal that is longer is sealed; or four times what it began with, if that is
more: what goes on is written anew each time."""


class RunBook:
    """The runs and nodes of one directory. Used under the lock of the store.

    Args:
        directory: That of the tasks. Its own is in it, and made when the first node joins.
        alias: The store's.
        logger: For what cannot be read.
    """

    def __init__(self, directory: RecordDirectory, alias: str, logger: Logger) -> None:
        self._directory = directory
        self._alias = alias
        self._logger = logger
        self._opened = 0
        self._is_stale = False
        self._files: RecordDirectory | None = None
        self._journal: Journal | None = None
        self._settled = SettledRuns()
        self.indexes = PartIndexes()
        self.ledger = Ledger()

    @property
    def files(self) -> RecordDirectory:
        """Its directory, after `open` has said that it is there."""
        assert self._files is not None  # noqa: S101  # see above
        return self._files

    @property
    def journal(self) -> Journal:
        """Its journal, likewise."""
        assert self._journal is not None  # noqa: S101  # see above
        return self._journal

    @property
    def path(self) -> Path:
        """Where its directory is."""
        return self._directory.path / RUNS_NAME

    def open(self, *, make: bool) -> bool:
        """Get in step with what others have written.

        Returns:
            False if nothing was ever written; only without `make`.

        Raises:
            OSError: It cannot be read.
            StoreError: It was removed while it was in use, or a newer release has written it.
        """
        if self._is_stale or self._opened != self._directory.times_opened:
            self.close()
            self._opened = self._directory.times_opened
        if self._journal is None or not self._journal.is_open:
            return self._open_directory(make) and self._load(make)
        for change in self._journal.read_on():
            self.ledger.apply(change)
        if self.ledger.is_sealed:
            return self._load(make)
        if self._journal.is_removed():
            self.close()
            raise StoreError(
                f"The store {self._alias!r} has lost its runs: {str(self.path)!r} was removed "
                f"while it was in use. Runs that went on are not known any more."
            )
        return True

    def close(self) -> None:
        """Let go of the files; what is known of them is read again the next time."""
        if self._journal is not None:
            self._journal.close()
        if self._files is not None:
            self._files.close()
        self._journal = self._files = None
        self._settled = SettledRuns()
        self.indexes = PartIndexes()
        self._is_stale = False
        self.ledger = Ledger()

    def commit(self, change: Change, *, sync: bool = True) -> None:
        """Write a change, and take it in. OSError: it is not made."""
        self.journal.append(change, sync=sync)
        give_way()
        self.ledger.apply(change)
        if self.journal.end > max(PART_BYTES, 4 * self.journal.head_bytes):
            try:
                self._begin(self.journal.number + 1)
            except OSError as exc:
                # The change is made; the next one tries again.
                self._logger.warning(
                    "Store %r: cannot begin a new file of runs: %s", self._alias, exc
                )
                self._is_stale = True

    def find_settled(self, key: RunKey) -> Row | None:
        """The row of a run that was settled."""
        ledger = self.ledger
        return self._settled.find(self.journal, ledger.parts, ledger.settled, key)

    def forget_until(self, part: int, rows: int) -> None:
        """Forget the files before that one, and so many of its rows."""
        self._forget({"op": "forget", "part": part, "passed": rows})

    def forget_some(self, gone: Mapping[int, int]) -> None:
        """Forget rows: of each of these files those whose bits are set, as in `Part.gone`."""
        self._forget({"op": "prune", "gone": [[part, f"{rows:x}"] for part, rows in gone.items()]})

    def _forget(self, change: Change) -> None:
        before = self.ledger.parts
        self.commit(change)
        left = {known.number for known in self.ledger.parts}
        self._settled.forget(self.ledger.parts)
        self.indexes.forget(left)
        for known in before:
            if known.number not in left and not known.damaged and self._journal is not None:
                self._journal.remove(known.number)

    def remove(self) -> None:
        """Remove all of it, if no node is alive and no file is damaged."""
        if self._files is None or self._journal is None:
            return
        ledger = self.ledger
        damaged = [part for part in ledger.parts if part.damaged] or self._journal.damaged
        if damaged or any(map(ledger.is_alive, ledger.nodes)):
            return
        for number in self._journal.parts():
            self._journal.remove(number)
        files = self._files
        self._files = None
        self.close()
        files.remove_if_empty()
        files.close()

    def _open_directory(self, make: bool) -> bool:
        self.close()
        try:
            files = RecordDirectory(
                self.path, ".node", self._directory.mode & 0o700, self._directory, make=make
            )
        except FileNotFoundError:
            if make:
                raise
            return False
        files.remove_left_over()
        self._files, self._journal = files, Journal(files, self._report)
        return True

    def _load(self, make: bool) -> bool:
        numbers = self.journal.parts()
        self.ledger = Ledger()
        if not numbers:
            if make:
                self._begin(1)
                self._directory.sync()
            return make
        self.journal.open(numbers[-1])
        changes = self.journal.read_on()
        has_head = bool(changes) and changes[0]["op"] == "head"
        is_old = has_head and changes[0]["v"] in OLD_VERSIONS
        if has_head:
            self._check_version(changes[0])
        else:
            self._recover(numbers)
        for change in changes:
            self.ledger.apply(change)
        for number in numbers:
            if number < self.ledger.forgotten[0] and self.journal.is_whole(number):
                self.journal.remove(number)
        if self.ledger.is_sealed or is_old or not has_head:
            # Who writes an old version finds its file sealed, and the next one is not for him.
            self._begin(numbers[-1] + 1)
        return True

    def _check_version(self, head: Change) -> None:
        if head["v"] != VERSION and head["v"] not in OLD_VERSIONS:
            self.close()
            raise StoreFormatError(
                f"The runs of the store {self._alias!r} have the version {str(head['v'])[:20]}; "
                f"this asyncz reads version {VERSION}. Run the release that wrote them, or a "
                f"newer one."
            )

    def _recover(self, numbers: list[int]) -> None:
        """The last file does not say what it began with, which is what the one before led to."""
        for number in numbers[-2:-1]:
            for change in self.journal.read_part(number):
                self.ledger.apply(change)
        earlier = self.ledger.part
        self.ledger.begin_part(Part(numbers[-1], damaged=True))
        if earlier.rows:
            self.ledger.parts.append(earlier)
        self.ledger.is_sealed = False

    def _begin(self, number: int) -> None:
        ledger = self.ledger
        if self.journal.number in self.journal.damaged:
            ledger.part = ledger.part._replace(damaged=True)
        for change in self.journal.begin(number, ledger.head(number)):
            ledger.apply(change)

    def _report(self, what: str) -> None:
        self._logger.error(
            "Store %r: %s in %s; it is left as it is and passed over.",
            self._alias, what, self.path,
        )  # fmt: skip
