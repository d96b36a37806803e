"""The demo of several workers: what its page shows when one of them is killed."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter

import httpx

from .demos import answers, demo, wait_for

ROW = re.compile(r"<tr><td>([\d:]+)<td>(\w+)<td>(\w+)<td>([^<]*)<td>(\d*)<td>([^<]*)")
WORKER = re.compile(r"<li>(worker-\d+): ")


class Page:
    """What the page shows: due, task, state, worker, attempt and note of each run."""

    def __init__(self, address: str) -> None:
        self._address = address

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        return ROW.findall(self._text())

    def workers(self) -> list[str]:
        return WORKER.findall(self._text())

    def owner_of_a_report(self) -> int | None:
        """The process that writes the report now."""
        for _, task, state, worker, _, _ in self.rows():
            if (task, state) == ("report", "running"):
                return int(worker.split("-")[-1])
        return None

    def _text(self) -> str:
        return httpx.get(self._address, timeout=20).text


def test_each_second_has_one_run_and_what_a_killed_worker_left_is_taken_over() -> None:
    with demo("demo_cluster.py") as running:
        address = running.address
        wait_for(lambda: answers(address))
        page = Page(address)
        wait_for(page.owner_of_a_report)
        killed = page.owner_of_a_report()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)

        wait_for(lambda: any(row[1] == "report" and row[4] == "2" for row in page.rows()))

        again = next(row for row in page.rows() if row[1] == "report" and row[4] == "2")
        assert again[3] in page.workers()
        assert again[3] != f"worker-{killed}"
        assert again[5].startswith("taken over, as its worker was killed")
        times = Counter(row[0] for row in page.rows() if row[1] == "tick")
        assert len(times) > 5
        assert set(times.values()) == {1}
        running.process.send_signal(signal.SIGINT)
        running.process.wait(20)
        running.reader.join(20)
        assert "Traceback" not in running.output
