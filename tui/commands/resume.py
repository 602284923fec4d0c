"""`kiln resume RUN_DIR`: go on with a run that was stopped or broke off, from its last saved state."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui.launch import launch


def add_parser(subparsers: Any) -> None:
    """Add `kiln resume` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resume", help="go on with a run that was stopped", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="for example runs/demo")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--ui", action="store_true", help="show the full screen")
    shown.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")


def run(args: argparse.Namespace) -> int:
    """Resume.

    Raises:
        RunError: the folder holds no run.
        ConfigError: its configuration cannot be read.
    """
    from engine.run import open_run

    return launch(open_run(args.folder), args.ui, args.json)
