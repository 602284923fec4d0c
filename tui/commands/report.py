"""`kiln report RUN`: write what came out of a run as one HTML file that opens anywhere, and as a contact sheet.

Given several runs, one page with their curves over each other and their pictures side by side. The file holds its
pictures, asks no network for anything, and names no folder of this machine; pictures of the dataset are in it unless
`--no-dataset` is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

from engine.errors import RunError
from engine.text import safe_text
from tui.exit_codes import FINISHED
from tui.opening import RUN_FOLDERS
from tui.run_list import find_run
from tui.units import size

MOST_RUNS = 8
"""Curves that can be told apart."""

BAR = 24


def add_parser(subparsers: Any) -> None:
    """Add `kiln report` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report", help="write a run as one HTML file", description=__doc__
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's name or folder; several are compared")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (otherwise report.html in the run's folder)"
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="the contact sheet, a PNG (otherwise beside it)")
    parser.add_argument("--max-mb", type=_megabytes, metavar="MB", help="most that the page takes (25)")
    parser.add_argument("--no-dataset", action="store_true", help="leave out pictures and tags of the dataset")
    parser.add_argument("--force", action="store_true", help="write over files that are no former reports")
    parser.add_argument("--open-nothing", action="store_true", help="show it in no browser, even on a desktop")
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help=f"where the runs are ({' and '.join(RUN_FOLDERS)})"
    )


def run(args: argparse.Namespace) -> int:
    """Write it, and show it where somebody sits before a desktop.

    Raises:
        RunError: no such run, too many, or a file in the way.
        DiskError: it cannot be written.
    """
    from tui.reporting.writing import MAX_MB, Wish, write_report

    if len(args.runs) > MOST_RUNS:
        raise RunError("Too many runs", f"{len(args.runs)} are named", f"Name at most {MOST_RUNS}.")
    usual = [Path(name) for name in RUN_FOLDERS]
    places = [args.runs_dir] if args.runs_dir is not None else [one for one in usual if one.is_dir()] or usual[:1]
    found = {os.path.realpath(folder): folder for folder in (find_run(places, name) for name in args.runs)}
    folders = list(found.values())
    wish = Wish(args.out, args.sheet, args.max_mb or MAX_MB, not args.no_dataset, args.force)
    bar = Bar(sys.stderr)
    try:
        written = write_report(folders, wish, bar.show)
    finally:
        bar.clear()
    print(f"{safe_text(written.page)}  {size(written.size)}, {written.pictures} pictures")
    if written.sheet is not None:
        print(f"{safe_text(written.sheet)}  the contact sheet")
    if written.left_out:
        print(f"{written.left_out} pictures were left out for want of room; --max-mb makes more.", file=sys.stderr)
    if written.failed:
        print(f"{written.failed} pictures could not be read; the page says which.", file=sys.stderr)
    if not args.open_nothing and sys.stdout.isatty():
        show(written.page)
    return FINISHED


def show(page: Path) -> subprocess.Popen[bytes] | None:
    """Ask the desktop to open ``page``; None where there is none."""
    opener = shutil.which("xdg-open")
    if opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    quiet = subprocess.DEVNULL
    command = [opener, str(page.absolute())]
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


class Bar:
    """One line of progress on a terminal; nothing where there is none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = False

    def show(self, stage: str, done: int, total: int) -> None:
        """How much of a stage is done."""
        if not self._stream.isatty() or not total:
            return
        full = BAR * done // total
        self._stream.write(f"\r\x1b[2K{stage}  [{'#' * full}{'.' * (BAR - full)}]  {done}/{total}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def _megabytes(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError("give 1 to 1000")
    return value
