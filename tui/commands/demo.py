"""`kiln demo`: train a LoRA on the pocket model that ships with lorakiln.

Everything a real run does, on a real but tiny FLUX-architecture model, in about a minute on a processor. Shown full
screen on a terminal, with a progress bar where there is none.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from profiles.recipes import demo_config
from tui.launch import has_terminal, launch


def add_parser(subparsers: Any) -> None:
    """Add `kiln demo` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo", help="train a LoRA on the pocket model that ships with lorakiln", description=__doc__
    )
    parser.add_argument("--headless", action="store_true", help="no full screen, even on a terminal")
    parser.add_argument("--json", action="store_true", help="headless, with events on stdout as JSON lines")
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="where its run is kept (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    # The pocket model's kernels are too small to share: one thread is as quick as two on an idle machine, many times
    # quicker on a busy one, and leaves a core to the screen. Read by torch when the engine's thread imports it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from engine.run import Run

    headless = args.headless or args.json or not has_terminal()
    return launch(Run(demo_config(args.runs_dir)), not headless, args.json)
