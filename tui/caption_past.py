"""Keeps the pasts of captions over restarts: read when a caption is opened, written by the desk's thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from engine.dataset.past import Past, open_past, past_path, write_news
from engine.errors import DiskError


class PastShelf:
    """The files of one work folder.

    Args:
        folder: gives the folder they lie in; None where nothing is to be kept.
        pool: writes them, one after the other.
    """

    def __init__(self, folder: Callable[[], Path | None], pool: Executor) -> None:
        self._folder = folder
        self._pool = pool
        self.writes: list[Future[None]] = []

    def of(self, caption: Path, text: str, began: str) -> Past:
        """The past of a caption's file that leads to ``text``; a new one begins with ``began``."""
        folder = self._folder()
        return open_past(past_path(folder, caption) if folder is not None else None, text, began)

    def keep(self, past: Past | None, caption: Path) -> None:
        """Have what is new in ``past`` written."""
        folder = self._folder() if past is not None else None
        if past is None or folder is None or not (lines := past.news()):
            return
        self.writes = [*(write for write in self.writes if not write.done()), self._pool.submit(
            _write, past, past_path(folder, caption), lines
        )]  # fmt: skip


def _write(past: Past, path: Path, lines: list[dict[str, Any]]) -> None:
    """Write the lines. Where they cannot be kept nobody is asked: all of the past is tried anew with the next."""
    try:
        write_news(path, lines)
    except DiskError:
        past.spoilt = True
