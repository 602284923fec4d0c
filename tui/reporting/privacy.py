"""Paths as a report tells them: by their last name. Where somebody's files lie is nobody's business who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from engine.text import without_secrets

_PATH = re.compile(r"(?<![\w.~/:\\-])~?(?:/[^\s/'\"<>|:,;()\[\]{}]+)+/?")
"""An absolute path in a text, or one that begins at home."""

_HOMES = re.compile(r"(?<![\w.~/:\\-])(?:/home|/Users)/[^\s/'\"<>|:,;()\[\]{}]+|(?<![\w.~/:\\-])/root(?![\w.-])")
"""Homes: their last name is a user's."""


class Shortener:
    """Shortens paths in texts.

    Args:
        known: folders that texts may name; their names may have spaces, which end a path in a text otherwise.
    """

    def __init__(self, known: Iterable[Path] = ()) -> None:
        parents = {str(path.parent) for path in known if path.is_absolute()} - {"/", "."}
        # The longest first: of two that begin alike the inner one.
        self._folders = sorted(parents, key=len, reverse=True)
        self._home = str(Path.home())

    def path(self, path: PurePath) -> str:
        """A path's last name."""
        if str(path) == self._home or _HOMES.fullmatch(str(path)):
            return "~"
        return path.name or str(path)

    def text(self, text: str) -> str:
        """``text`` with every absolute path in it shortened to its last name.

        Secrets go first: what is left of one would not be known for one any more.
        """
        text = without_secrets(text)
        for folder in self._folders:
            text = text.replace(f"{folder}/", "")
        if self._home != "/":
            text = re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text)
        text = _HOMES.sub("~", text)
        return _PATH.sub(lambda found: PurePath(found[0]).name or "~", text)
