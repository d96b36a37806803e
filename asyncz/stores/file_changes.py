"""Which files of a directory the processes that share it have changed, in its lock file.

A process that comes back to the directory looks at those files only. Listing it would take the
longer the more tasks there are, whenever any of them is moved on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import NamedTuple

__all__ = ["NOWHERE", "Changes", "Seen", "announce", "catch_up", "state_of"]

STATE_BYTES = 32
NOTES_AT = 64
"""Where the notes begin. Earlier releases read so many bytes, and must find nothing new there."""
MOST_BYTES = 512 * 1024
_STATE = re.compile(rb"[0-9a-f]{32}")


class Seen(NamedTuple):
    """How far somebody has read: the state of the directory then, and where its notes ended."""

    state: bytes
    end: int


class Changes(NamedTuple):
    """What has changed since.

    Args:
        names: Files that may have changed; None: any may.
        seen: For the next time.
    """

    names: Collection[str] | None
    seen: Seen


NOWHERE = Seen(b"", 0)
"""Of somebody who has not looked at the directory yet."""


def state_of(lock_file: int) -> bytes:
    """What the last change has set; to be read under the lock, as everything here."""
    os.lseek(lock_file, 0, os.SEEK_SET)
    # An empty one is new. With a state of its own it cannot pass for another new one later.
    return os.read(lock_file, STATE_BYTES) or announce(lock_file, None).state


def announce(lock_file: int, names: Collection[str] | None) -> Seen:
    """Tell the other processes that files change, and return the new state.

    Before the change: a writer that is killed in the middle has said so already. It need not
    last: after a power failure no process is left that knows an older state.

    Args:
        lock_file: Open and locked.
        names: Those that change; None: any.
    """
    os.lseek(lock_file, 0, os.SEEK_SET)
    before = os.read(lock_file, STATE_BYTES)
    state = os.urandom(STATE_BYTES // 2).hex().encode()
    end = max(os.fstat(lock_file).st_size, NOTES_AT)
    note = b"" if names is None else b"%b %b %b\n" % (before, state, " ".join(names).encode())
    if not note or end + len(note) > MOST_BYTES:
        end, note = NOTES_AT, b""
        os.ftruncate(lock_file, NOTES_AT)
    os.lseek(lock_file, end, os.SEEK_SET)
    os.write(lock_file, note)
    os.lseek(lock_file, 0, os.SEEK_SET)
    os.write(lock_file, state)
    return Seen(state, end + len(note))


def catch_up(lock_file: int, seen: Seen) -> Changes:
    """What others have announced since somebody looked last."""
    state, end = state_of(lock_file), max(os.fstat(lock_file).st_size, NOTES_AT)
    if state == seen.state:
        return Changes((), seen)
    now = Seen(state, end)
    if not NOTES_AT <= seen.end <= end:
        return Changes(None, now)
    os.lseek(lock_file, seen.end, os.SEEK_SET)
    names: set[str] = set()
    known = seen.state
    for line in os.read(lock_file, end - seen.end).splitlines():
        before, _, rest = line.partition(b" ")
        after, _, changed = rest.partition(b" ")
        if before != known or not _STATE.fullmatch(after):
            return Changes(None, now)
        known = after
        names.update(changed.decode("ascii", "replace").split())
    # Who does not keep notes, such as an earlier release, breaks the chain.
    return Changes(names if known == state else None, now)
