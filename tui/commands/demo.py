"""`kiln demo`: train a LoRA on the pocket model that ships with lorakiln.

Everything a real run does, on a real but tiny FLUX-architecture model, in about a minute on a processor. Shown full
screen on a terminal, with a progress bar where there is none.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tui.launch import full_screen, has_terminal, headless
from tui.terminal.orders import demo


def add_parser(subparsers: Any) -> None:
    """Add `kiln demo` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo", help="train a LoRA on the pocket model that ships with lorakiln", description=__doc__
    )
    parser.add_argument("--headless", action="store_true", help="no full screen, even on a terminal")
    parser.add_argument("--json", action="store_true", help="headless, with events on stdout as JSON lines")
    parser.add_argument(
        "--foreground", action="store_true", help="full screen in this process, which ends with the screen"
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where its run is kept (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    order = demo(args.runs_dir)
    if args.headless or args.json or not has_terminal():
        return headless(order, args.json)
    return full_screen(order, args.foreground)
