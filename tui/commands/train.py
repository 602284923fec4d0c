"""`kiln train RUN.toml`: train a LoRA as a configuration says.

Shows a progress bar, and `kiln attach` shows the full screen of it in any other terminal; a terminal that is lost
does not end it. `--ui` shows the full screen at once, `--detach` begins in the background, `--json` writes the run's
events to stdout, one JSON object a line. SIGINT and SIGTERM save and stop; a second one ends at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui.launch import add_consent, add_display_options, add_stop, launch
from tui.terminal.orders import train


def add_parser(subparsers: Any) -> None:
    """Add `kiln train` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train", help="train a LoRA as a configuration says", description=__doc__
    )
    parser.add_argument("file", type=Path, metavar="RUN.toml")
    add_display_options(parser)
    add_stop(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on with the last run of this name if it was stopped"
    )
    add_consent(parser)


def run(args: argparse.Namespace) -> int:
    """Train.

    Raises:
        ConfigError: the configuration cannot be used.
        EngineError: there is nothing to resume, or its files are gone.
    """
    if args.resume and (refused := _consent(args)) is not None:
        return refused
    return launch(train(args.file, args.resume, args.stop_after), args)


def _consent(args: argparse.Namespace) -> int | None:
    from engine.config_file import load_config
    from tui.resuming import consent
    from tui.run_list import latest_unfinished

    config = load_config(args.file)
    return consent(latest_unfinished(config.runs_dir, config.name), args)
