"""Writes a report: reads the runs, makes the pictures, puts the page together, and replaces nobody else's file."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.dataset.decoder import Decoder
from engine.errors import RunError
from engine.files import atomic_write, open_to_read
from engine.text import safe_text
from tui.reporting import page, sheet
from tui.reporting.facts import Progress, read_facts
from tui.reporting.pictures import make_pictures
from tui.reporting.plan import wanted
from tui.reporting.several import ranked, runs_page

MAX_MB = 25.0
"""Most that a page takes by default, in 1e6 bytes: what mail and forums still carry."""

_TEXT_BYTES = 400_000
"""Kept for everything but pictures, and for the words around each of them."""

_CELL_BYTES = 700
_LOOKED_AT = 4096

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class Written:
    """What was written: the page, its size, the contact sheet if there is one, and pictures made and left out."""

    page: Path
    size: int
    sheet: Path | None
    pictures: int
    left_out: int
    failed: int


@dataclass(frozen=True)
class Wish:
    """How a report is wanted.

    Attributes:
        out: the page; None: beside the run's files, of several runs in the folder that they lie in.
        sheet: the contact sheet; None: beside the page.
        max_mb: most that the page takes.
        dataset: with pictures and words of the dataset.
        force: write over files that are no former reports.
    """

    out: Path | None = None
    sheet: Path | None = None
    max_mb: float = MAX_MB
    dataset: bool = True
    force: bool = False


PLAIN = Wish()


def write_report(
    folders: Sequence[Path], wish: Wish = PLAIN, progress: Progress | None = None, stop: threading.Event | None = None
) -> Written:
    """Write the report of one run, or of several side by side.

    Args:
        folders: of the runs.
        stop: set by another thread, nothing is written and a RunError says so.

    Raises:
        RunError: a run cannot be read, a file that is none of ours stands in the way, or it was stopped.
        DiskError: it cannot be written; what stood there is unharmed.
    """
    target, beside = targets(folders, wish)
    if os.path.abspath(target) == os.path.abspath(beside):
        raise RunError("Page and contact sheet need two files", f"both are {safe_text(target)}", "Name another one.")
    for path, marker in ((target, page.MARKER), (beside, sheet.MARKER)):
        if not wish.force:
            refuse_foreign(path, marker)
    with Decoder() as decoder:
        runs, found = ranked([read_facts(folder, decoder, progress, wish.dataset) for folder in folders])
    files, refused = wanted(runs)
    room = int(wish.max_mb * 1e6) - _TEXT_BYTES * len(runs) - _CELL_BYTES * len(files)

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress("make pictures", done, total)

    pictures = make_pictures(files, max(room, 0), told, stop)
    if stop is not None and stop.is_set():
        raise RunError("The report was not written", "it was stopped", "")
    one = len(runs) == 1
    text = page.run_page(runs[0], pictures, refused) if one else runs_page(runs, found, pictures, refused)
    data = text.encode("utf-8", "replace")
    atomic_write(target, data)
    has_sheet = one and sheet.write_sheet(beside, runs[0], pictures)
    failed = len(pictures.failed) + len(refused)
    return Written(
        target, len(data), beside if has_sheet else None, len(pictures.made), len(pictures.left_out), failed
    )


def targets(folders: Sequence[Path], wish: Wish) -> tuple[Path, Path]:
    """Where page and contact sheet go."""
    home = folders[0] if len(folders) == 1 else folders[0].parent
    name = REPORT_NAME if len(folders) == 1 else "comparison.html"
    out = wish.out if wish.out is not None else home / name
    if out.is_dir():
        out = out / name
    beside = out.with_suffix(".png")
    if beside == out:
        beside = out.with_name(f"{out.stem}-sheet.png")
    return out, wish.sheet if wish.sheet is not None else beside


def refuse_foreign(path: Path, marker: bytes) -> None:
    """Leave alone what is no former report.

    Raises:
        RunError: a file stands there that says nothing of having been made here.
    """
    if not path.exists() and not path.is_symlink():
        return
    head = b""
    with suppress(OSError), open_to_read(path) as file:
        head = file.read(_LOOKED_AT)
    if marker not in head:
        raise RunError(
            "A file of that name is there already",
            f"{safe_text(path)} is no former report",
            "Name another one with --out or --sheet, or write over it with --force.",
        )
