"""`kiln compare RUN RUN [RUN...]`: what differs between runs, how each learned, and which did best.

Only settings that differ are shown. Runs are ranked by their loss on held-out pictures at their best epoch, where
they were measured on the same pictures with the same noise; else it is said why they cannot be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import RunError
from tui.compare_text import comparison_json, comparison_text
from tui.exit_codes import FINISHED
from tui.headless import can_unicode
from tui.opening import RUN_FOLDERS, usual_places
from tui.run_list import SWEEP_NAME, find_run, runs_in
from tui.run_shelf import read_comparison

MOST_RUNS = 64


def add_parser(subparsers: Any) -> None:
    """Add `kiln compare` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare", help="compare runs: settings, curves, best epochs", description=__doc__
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="names or folders of runs, or of sweeps")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help=f"where the runs are (otherwise {' and '.join(RUN_FOLDERS)})"
    )


def run(args: argparse.Namespace) -> int:
    """Compare.

    Raises:
        RunError: no such run, or fewer than two of them.
    """
    places = usual_places(args.runs_dir)
    return show([folder for name in args.runs for folder in _named(places, name)], args.json)


def _named(places: Sequence[Path], name: str) -> list[Path]:
    """The run of that name, or all runs of the sweep in the folder of that name.

    Raises:
        RunError: there is neither.
    """
    for folder in (*(place / name for place in places), Path(name)):
        if (folder / SWEEP_NAME).is_file():
            return runs_in(folder)
    return [find_run(places, name)]


def show(folders: Sequence[Path], as_json: bool = False) -> int:
    """Compare the runs in ``folders``, each once.

    Raises:
        RunError: there are fewer than two, or too many.
    """
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    if not 2 <= len(folders) <= MOST_RUNS:
        raise RunError(
            "Which runs are to be compared?", f"{len(folders)} given, 2 to {MOST_RUNS} needed", "kiln compare A B"
        )
    found = read_comparison(folders)
    if as_json:
        print(json.dumps(comparison_json(found), indent=2, allow_nan=False))
    else:
        print(
            comparison_text(found, max(60, min(shutil.get_terminal_size().columns - 2, 160)), can_unicode(sys.stdout))
        )
    return FINISHED
