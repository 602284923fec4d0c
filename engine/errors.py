"""What can go wrong, in words a user can act on.

Every error that reaches a user has a title (what is wrong), a detail (what was found against what was expected,
and where: file, key, line) and a hint (what to do). Rendering happens only at the edges: dialog, stderr, event.
"""

from __future__ import annotations

from engine.text import safe_text

MAX_WORDS = 20_000
"""Characters of a detail or hint; what is longer is cut."""


class EngineError(Exception):
    """An expected failure with a title, a detail and a hint; the base of all errors meant for users.

    All three pass the gate for text from outside: they name files and quote what stood in them.
    """

    def __init__(self, title: str, detail: str = "", hint: str = "") -> None:
        self.title = safe_text(title, 500)
        self.detail = safe_text(detail, MAX_WORDS, newlines=True)
        self.hint = safe_text(hint, MAX_WORDS, newlines=True)
        super().__init__(self.title)

    def __str__(self) -> str:
        """Title, detail and hint on lines of their own."""
        return "\n".join(part for part in (self.title, self.detail, self.hint) if part)


class ConfigError(EngineError):
    """A run's configuration cannot be used; the detail names file, key and line."""


class ModelFileError(EngineError):
    """A model file is missing, of the wrong kind, incomplete or damaged."""


class DatasetError(EngineError):
    """A dataset cannot be trained on."""


class CacheError(EngineError):
    """A cache entry cannot be written or read."""


class DiskError(EngineError):
    """The disk is full, read-only or failing; nothing that stood there before was harmed."""


class DiskFull(DiskError):
    """There is no room left on the disk, or in what this user may take of it."""


class RunError(EngineError):
    """A run cannot start, resume or go on."""
