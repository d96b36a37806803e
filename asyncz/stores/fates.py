"""Why a run ended without a word of its worker's, in the same words in each store."""

from __future__ import annotations

from asyncz.enums import RunState

__all__ = ["DELETED", "why_ended"]

DELETED = "its task was deleted"


def why_ended(state: RunState, owner: str | None, attempt: int) -> str:
    """The `reason` of a run that `reap` has ended.

    Args:
        state: What it ended as: lost, abandoned, or cancelled.
        owner: The id of the node that had it, if any had.
        attempt: How often it was claimed.
    """
    if state is RunState.CANCELLED:
        return DELETED
    gone = f"its worker {owner or 'of before'} was killed, or not heard of for too long"
    if state is RunState.LOST:
        return f"{gone}, when it had been started"
    return f"{gone}, like all that had it: it was claimed {attempt} time(s)"
