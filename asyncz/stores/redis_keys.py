"""The names of the keys of one Redis store, all with one hash tag."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

__all__ = ["RedisKeys"]

NAMES = {
    "places": "places",
    "meta": "meta",
    "unreadable": "unreadable",
    "claims": "claims",
    "handed_out": "handed_out",
    "batches": "batches",
    "runs": "runs",
    "by_time": "runs:time",
    "by_task": "runs:task",
    "active": "runs:active",
    "owned": "runs:owned",
    "kept": "runs:kept",
    "unlucky": "runs:unlucky",
    "waits": "runs:waits",
    "waiting": "runs:waiting",
    "asked": "runs:asked",
    "nodes": "nodes",
    "leases": "nodes:leases",
    "gone": "nodes:gone",
}
"""What is added to the name of `tasks`."""
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
        handed_out: String: the last of `run_times` that was handed out to one of several.
        runs: Hash: ident of a run to what is known of it.
        by_time, by_task: Sorted sets, by bytes: the idents of all runs.
        active: Hash: id to the times and kinds of its open runs.
        owned: Sorted set, by bytes: the idents of open runs, by owner.
        kept: Hash: ident of an open run to the record of its task, which is forgotten.
        unlucky: Sorted set, by bytes: the idents of settled runs that have not succeeded, by state,
            and by state and task.
        waits: Sorted set, by bytes: when it is tried again and ident, of retrying runs, by task.
        waiting: Sorted set, by bytes: of each task that has any, the earliest such time.
        asked: Sorted set, by bytes: the idents of open runs that are to be cancelled, by owner.
        nodes: Hash: id of a node to what is known of it.
        leases: Sorted set: the ids of nodes that are alive, by the end of their leases.
        gone: Sorted set: the ids of nodes that are not, and may still own runs.
    """

    tasks: bytes
    run_times: bytes
    places: bytes
    meta: bytes
    run_times_of: bytes
    unreadable: bytes
    claims: bytes
    batches: bytes
    handed_out: bytes
    runs: bytes
    by_time: bytes
    by_task: bytes
    active: bytes
    owned: bytes
    kept: bytes
    unlucky: bytes
    waits: bytes
    waiting: bytes
    asked: bytes
    nodes: bytes
    leases: bytes
    gone: bytes

    @classmethod
    def of(cls, tasks_key: str, run_times_key: str) -> RedisKeys:
        """The keys for these options."""
        more = {name: _with_tag(tasks_key, text) for name, text in NAMES.items()}
        owner = _with_tag(run_times_key, "of")
        return cls(tasks_key.encode(), run_times_key.encode(), run_times_of=owner, **more)

    def call(self, name: str) -> bytes:
        """Where the server remembers the answer to a call."""
        return self.meta.removesuffix(b"meta") + b"call:" + name.encode()

    @property
    def channel(self) -> bytes:
        """Where it is announced that something is due soon."""
        return self.meta.removesuffix(b"meta") + b"due"

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
