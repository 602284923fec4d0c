"""`kiln cache RUN.toml`: scan the pictures and fill the caches of latents and text embeddings, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.config_file import load_config
from tui.job import run_job


def add_parser(subparsers: Any) -> None:
    """Add `kiln cache` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "cache", help="fill the caches of latents and text embeddings, without training", description=__doc__
    )
    parser.add_argument("file", type=Path, metavar="RUN.toml")
    parser.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")


def run(args: argparse.Namespace) -> int:
    """Fill the caches.

    Raises:
        EngineError: as when a run starts.
    """
    config = load_config(args.file)
    from engine.jobs import fill_caches

    return run_job(lambda events, should_stop: fill_caches(config, events, should_stop), args.json)
