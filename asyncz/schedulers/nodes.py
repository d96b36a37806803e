"""What a node is called, and whether the process of one on this machine has ended."""

from __future__ import annotations

import os
import re
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from asyncz.stores.cluster import Node

__all__ = ["has_ended", "new_node"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PROCESS_IDS = Path("/proc/self/ns/pid")
UNKNOWN = "unknown"


def new_node(identity: str) -> Node:
    """A node with an id that people can read, and nobody else has: host, place, process, chance."""
    host, process_id = socket.gethostname(), os.getpid()
    readable = re.sub(r"[^A-Za-z0-9.]", "", host)[:24]
    name = f"{readable}-{_place()}-{process_id}-{uuid4().hex[:12]}"
    return Node(name, identity, host, process_id)


def has_ended(node: Node) -> bool:
    """Whether the process of a node is surely gone.

    Only of a process that would have to be seen from here: of this start of this machine, and
    among the same process ids. Containers may share a host name, but not these. Of any other, and
    where a new process has the id by now, the answer is no, and its lease decides.
    """
    parts = node.id.split("-")
    if len(parts) != 4 or parts[1] in ("", UNKNOWN) or parts[1] != _place():
        return False
    try:
        os.kill(node.process_id, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is somebody else's
    return False


@cache
def _place() -> str:
    """Names this start of this machine and the process ids that are seen here."""
    try:
        seen = f"{BOOT_ID.read_text()} {os.readlink(PROCESS_IDS)}"
    except OSError:
        return UNKNOWN
    return sha256(seen.encode()).hexdigest()[:8]
