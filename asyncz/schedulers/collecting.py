"""What lives as long as a page of tasks is not to be taken for what lives for ever.

The collector looks at young objects whenever so many more have been made than have gone, and what
is there the second time counts as old. In the middle of a page that waits for a server, all that
belongs to it is there. After some pages so much has seemingly grown old that everything in the
process is looked at, which stops it for 20 ms and more.

So while a backlog is handed over, or a long history forgotten, young objects are looked at between
pages, when nearly all of them have gone, and only then, unless very many are made.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Lock

__all__ = ["PagedCollection", "short_lived"]

MANY = 50_000
"""Objects more than have gone after which the collector looks at them all the same. A page comes
to some thousands; what the app's own code makes meanwhile counts too."""
PAGES_UNTIL_OLD = 16
"""Pages after which what is still there may count as old."""
ITS_TURN = 0.001

_lock = Lock()
_backlogs = 0
_before: tuple[int, int, int] | None = None


class PagedCollection:
    """The collector's part in handing over one backlog. Thresholds that the app sets are kept."""

    def __init__(self) -> None:
        self._pages = 0

    def page_is_over(self) -> None:
        """Another page will follow: look at what is young."""
        if not self._pages:
            _begin()
        self._pages += 1
        if _before is not None:
            gc.collect(0 if self._pages % PAGES_UNTIL_OLD else 1)

    def end(self) -> None:
        """The backlog has been handed over, or is given up."""
        if self._pages:
            self._pages = 0
            _end()


@asynccontextmanager
async def short_lived() -> AsyncIterator[None]:
    """Within it, one page is in hand; what belongs to it has gone by the end."""
    _begin()
    try:
        yield
        # A driver's thread lets go of what it was called with when it gets its turn.
        await asyncio.sleep(ITS_TURN)
    finally:
        _end()


def _begin() -> None:
    global _backlogs, _before
    with _lock:
        _backlogs += 1
        threshold, *others = gc.get_threshold()
        if _backlogs == 1 and gc.isenabled() and 0 < threshold < MANY:
            _before = gc.get_threshold()
            gc.set_threshold(MANY, *others)


def _end() -> None:
    global _backlogs, _before
    with _lock:
        _backlogs -= 1
        if _backlogs or _before is None:
            return
        before, _before = _before, None
        if gc.get_threshold() == (MANY, *before[1:]):  # nobody else has set them since
            gc.set_threshold(*before)
