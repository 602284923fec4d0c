"""`kiln train RUN.toml`: train a LoRA as a configuration says.

Shows a progress bar; `--ui` shows the full screen, `--json` writes the run's events to stdout, one JSON object a
line. SIGINT and SIGTERM save and stop; a second one ends at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.config_file import load_config
from tui.launch import launch


def add_parser(subparsers: Any) -> None:
    """Add `kiln train` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train", help="train a LoRA as a configuration says", description=__doc__
    )
    parser.add_argument("file", type=Path, metavar="RUN.toml")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--ui", action="store_true", help="show the full screen")
    shown.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the last run of this name if it was stopped"
    )


def run(args: argparse.Namespace) -> int:
    """Train.

    Raises:
        ConfigError: the configuration cannot be used.
        RunError: there is nothing to resume.
    """
    config = load_config(args.file)
    from engine.run import Run, open_run

    if args.resume:
        from tui.run_list import latest_unfinished

        return launch(open_run(latest_unfinished(config.runs_dir, config.name)), args.ui, args.json)
    return launch(Run(config), args.ui, args.json)
