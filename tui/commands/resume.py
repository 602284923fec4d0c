"""`kiln resume RUN_DIR`: go on with a run that was stopped or broke off, from its last saved state."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui.launch import add_display_options, launch
from tui.terminal.orders import resume


def add_parser(subparsers: Any) -> None:
    """Add `kiln resume` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resume", help="go on with a run that was stopped", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="for example runs/demo")
    add_display_options(parser)


def run(args: argparse.Namespace) -> int:
    """Resume.

    Raises:
        RunError: the folder holds no run.
        ConfigError: its configuration cannot be read.
    """
    return launch(resume(args.folder), args)
