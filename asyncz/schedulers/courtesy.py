"""Who of several schedulers sees to what is due: the one that does already."""

from __future__ import annotations

__all__ = ["Courtesy"]

FIRST = 0.005
LONGEST = 0.02
MANY = 8
"""Tasks that were left by the others, after which they cannot do without this one."""


class Courtesy:
    """How long this scheduler leaves what is due in a store to the others that share it.

    If all of them woke for each task, one would run it and the others would have asked in vain,
    which costs the machine and the server as much. So who comes in vain comes a moment later from
    then on, and in the end only where nobody else was quick enough: the others have more to do
    than they can, or are gone. A scheduler that is alone never waits.
    """

    def __init__(self) -> None:
        self.pause = 0.0
        """Seconds for which a task has to be due before it is this scheduler's affair."""
        self.has_company = False
        """Whether there are others, as far as is known."""

    def meet(self, others: bool) -> None:
        """There are others, or none any more."""
        self.has_company = others
        if not others:
            self.pause = 0.0

    def came_in_vain(self) -> None:
        """What was due, others have seen to."""
        if self.has_company:
            self.pause = min(LONGEST, max(FIRST, 2 * self.pause))

    def was_needed(self, tasks: int) -> None:
        """So many tasks were left."""
        self.pause = self.pause / 2 if tasks < MANY and self.pause > FIRST / 4 else 0.0

    def is_asked(self) -> None:
        """Something is due that is known here first: there is no time to lose."""
        self.pause = 0.0
