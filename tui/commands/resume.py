"""`kiln resume RUN_DIR`: go on with a run that was stopped or broke off, from its last saved state.

Says first what changed since: settings, pictures, captions, model files, versions. What would change what the run
learns is asked about; `--yes` says yes, and without a terminal to ask on nothing is resumed (exit code 2).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui.launch import add_consent, add_display_options, add_stop, launch
from tui.terminal.orders import resume


def add_parser(subparsers: Any) -> None:
    """Add `kiln resume` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "resume", help="go on with a run that was stopped", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="for example runs/demo")
    add_display_options(parser)
    add_stop(parser)
    add_consent(parser)


def run(args: argparse.Namespace) -> int:
    """Resume.

    Raises:
        EngineError: there is no run to resume, another process trains it, it is finished, or its files are gone.
    """
    from tui.resuming import consent

    refused = consent(args.folder, args)
    return launch(resume(args.folder, args.stop_after), args) if refused is None else refused
