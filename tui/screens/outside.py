"""A caption in the user's own editor: written to a file of its own, edited there, read back as any caption is.

The caption's own file is not touched by the editor: what comes back goes the way of everything typed. Should the
screen end meanwhile, the file stays in the workstation's folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.captions import MAX_CAPTION_BYTES, caption_text
from engine.dataset.regular import read_limited
from engine.errors import DatasetError, DiskError
from engine.files import disk_error
from engine.text import safe_text
from tui.aside import aside

if TYPE_CHECKING:
    from tui.app import KilnApp


async def edited_outside(app: KilnApp, folder: Path, text: str) -> str | None:
    """What the user made of ``text``; None where nothing came of it, which was said then.

    Args:
        app: whose terminal the editor gets.
        folder: where the file lies meanwhile.
        text: what to edit.
    """
    try:
        path = await aside(app.screen, None, _begin, folder, text)
        if said := await app.edit_outside(path):
            app.notify(said, severity="warning")
            path.unlink(missing_ok=True)
            return None
        edited = await aside(app.screen, None, _end, path)
    except (DatasetError, DiskError) as err:
        app.notify(safe_text(f"{err.title}: {err.detail}", 300), severity="error")
        return None
    return edited


def _begin(folder: Path, text: str) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        file, name = tempfile.mkstemp(".txt", "caption-", folder)
        with os.fdopen(file, "wb") as target:
            target.write(text.encode("utf-8", "replace") + b"\n")
    except OSError as err:
        raise disk_error(err, folder) from err
    return Path(name)


def _end(path: Path) -> str:
    """What stands in the file, which is of no more use; one that holds no caption stays where it is."""
    text = caption_text(read_limited(path, MAX_CAPTION_BYTES), path)
    path.unlink(missing_ok=True)
    return text.removesuffix("\n")
