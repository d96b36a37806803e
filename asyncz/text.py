"""Text from elsewhere, made fit for a log or a terminal."""

from __future__ import annotations

__all__ = ["printable", "spoken", "text_of"]


def text_of(value: object) -> str:
    """Its `str`, whatever it is: to make that of an exception may be the user's code, and fail."""
    try:
        return str(value)
    except Exception as exc:
        return f"<{type(value).__name__}, whose text fails: {type(exc).__name__}>"


def printable(text: str, limit: int | None = None) -> str:
    """The text on one line, with what is no printable character escaped as in a `repr`.

    A task's name must not be able to end a line of a log, nor to move the cursor of a terminal.

    Args:
        text: Anything.
        limit: Characters to keep of the result; what is cut off is shown as an ellipsis.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))


def spoken(seconds: float) -> str:
    """A time span in the unit that people would say it in: `45 s`, `13 min`, `10 h`, `3 days`."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"
