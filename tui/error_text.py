"""A user's error as lines for stderr: what is wrong, what was found where, what to do."""

from __future__ import annotations

from typing import Protocol

from engine.text import safe_text


class Told(Protocol):
    """What tells an error: :class:`engine.errors.EngineError` and :class:`engine.events.RunFailed`."""

    @property
    def title(self) -> str:
        """What is wrong."""

    @property
    def detail(self) -> str:
        """What was found against what was expected, and where."""

    @property
    def hint(self) -> str:
        """What to do."""


def error_text(error: Told) -> str:
    """Title, detail and hint, nothing in them that a terminal would obey."""
    lines = [f"error: {safe_text(error.title)}"]
    for part in (error.detail, error.hint):
        lines += [f"  {line}" for line in safe_text(part, 8000, newlines=True).splitlines()]
    return "\n".join(lines)
