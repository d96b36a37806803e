"""Whether the process of a node has ended."""

from __future__ import annotations

import os
import subprocess
import sys

from asyncz.schedulers.nodes import has_ended, new_node
from asyncz.stores.cluster import Node


def ended_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def with_process(node: Node, process_id: int, place: str | None = None) -> Node:
    host, here, _, chance = node.id.split("-")
    name = f"{host}-{here if place is None else place}-{process_id}-{chance}"
    return node._replace(id=name, process_id=process_id)


def test_this_process_has_not_ended() -> None:
    node = new_node("worker")
    assert node.process_id == os.getpid()
    assert len(node.id) <= 64
    assert not has_ended(node)


def test_one_on_this_machine_has() -> None:
    node = new_node("worker")
    assert has_ended(with_process(node, ended_process()))
    assert not has_ended(with_process(node, 1)), "it is somebody else's, and lives"


def test_of_one_elsewhere_nothing_is_known() -> None:
    node, gone = new_node("worker"), ended_process()
    for place in ("0123abcd", "", "unknown"):
        assert not has_ended(with_process(node, gone, place))
    assert not has_ended(node._replace(id="some-other-name", process_id=gone))
