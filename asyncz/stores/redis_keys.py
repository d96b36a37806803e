"""The names of the keys of one Redis store, all with one hash tag."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = ["RedisKeys"]

TAG = re.compile(r"\{([^{}]+)\}")


class RedisKeys(NamedTuple):
    """The keys of a store. What is not named by an option is named after `tasks`.

    Args:
        tasks: Hash: id to record.
        run_times: Sorted set, by bytes: time, order of insertion, id.
        places: Hash: id to time, order of insertion and summary.
        meta: Hash: version and options of the layout.
        run_times_of: The `tasks` that `run_times` belongs to.
        unreadable: Hash: records that were set aside.
        claims: Hash: id to the batch that is going to add it.
        batches: Hash: batch to its state.
    """

    tasks: bytes
    run_times: bytes
    places: bytes
    meta: bytes
    run_times_of: bytes
    unreadable: bytes
    claims: bytes
    batches: bytes

    @classmethod
    def of(cls, tasks_key: str, run_times_key: str) -> RedisKeys:
        """The keys for these options."""
        names = ("places", "meta", "unreadable", "claims", "batches")
        more = {name: _with_tag(tasks_key, name) for name in names}
        owner = _with_tag(run_times_key, "of")
        return cls(tasks_key.encode(), run_times_key.encode(), run_times_of=owner, **more)

    def call(self, name: str) -> bytes:
        """Where the server remembers the answer to a call."""
        return self.meta.removesuffix(b"meta") + b"call:" + name.encode()

    def batch(self, batch: str) -> bytes:
        """Where the rows of a batch are until they are published."""
        return self.meta.removesuffix(b"meta") + b"batch:" + batch.encode()


def tag_of(key: str) -> str:
    """What a cluster goes by when it looks for the place of a key."""
    found = TAG.search(key)
    return found[1] if found else key


def new_id() -> str:
    """A name that nobody else uses."""
    return os.urandom(8).hex()


def _with_tag(key: str, name: str) -> bytes:
    # Of a key without a tag, the whole name counts as one.
    return f"{key if TAG.search(key) else '{' + key + '}'}:{name}".encode()
