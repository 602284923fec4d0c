"""A user's error in words: what is wrong, what was found where, what to do; for stderr and for dialogs."""

from __future__ import annotations

from typing import Protocol

from engine.errors import CacheError, ConfigError, DatasetError, DiskError, ModelFileError, RunError
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


_HINTS: tuple[tuple[type[Exception], str], ...] = (
    (ConfigError, "Change the file and open it again; nothing was started."),
    (ModelFileError, "Choose another file in the setup form (ctrl+n), or fetch this one again."),
    (DatasetError, "Look at the pictures named; the dataset pane marks them, where n walks through them."),
    (CacheError, "Try again; what cannot be read is made anew."),
    (DiskError, "Free some space or choose another folder, then try again."),
    (RunError, "Look at the log (l); a run that was stopped is resumed from the list of runs (r)."),
)
"""What to do where an error does not say it itself, by its kind."""


def what_to_do(error: Told) -> str:
    """The error's own hint, or the one for its kind: no error is shown without."""
    if error.hint:
        return error.hint
    for kind, hint in _HINTS:
        if isinstance(error, kind):
            return hint
    return "Look at the log (l). What was saved is whole: the run can be resumed from the list of runs (r)."
