"""`kiln config check RUN.toml`: tell everything that is wrong with a configuration, without starting anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.config_file import load_config
from engine.config_writer import config_text
from engine.text import safe_text
from tui.exit_codes import BAD_INPUT, FINISHED


def add_parser(subparsers: Any) -> None:
    """Add `kiln config` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "config", help="check a configuration file", description=__doc__
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="list every problem, and the files it would read and write")
    check.add_argument("file", type=Path, metavar="RUN.toml")
    show = actions.add_parser("show", help="print it with every setting, its default and what it means")
    show.add_argument("file", type=Path, metavar="RUN.toml")


def run(args: argparse.Namespace) -> int:
    """Check or show.

    Raises:
        ConfigError: every problem in the file.
    """
    config = load_config(args.file)
    if args.action == "show":
        print(safe_text(config_text(config), 10**6, newlines=True), end="")
        return FINISHED
    missing = 0
    for what, path, needed in paths_of(config):
        absent = needed and not path.exists()
        missing += absent
        print(f"{what:28} {safe_text(path)}{'   MISSING' if absent else ''}")
    print("The configuration is valid." if not missing else f"Valid, but {missing} of its files are missing.")
    return BAD_INPUT if missing else FINISHED


def paths_of(config: RunConfig) -> Iterator[tuple[str, Path, bool]]:
    """Every path a run touches: what it is, where, and whether it has to exist."""
    for name in ("transformer", "autoencoder", "clip_l", "t5", "clip_tokenizer", "t5_tokenizer"):
        path = getattr(config.model, name)
        if path is not None:
            yield f"reads model.{name}", path, True
    for folder in config.dataset.folders:
        yield "reads pictures", folder.path, True
    if config.lora.resume_from is not None:
        yield "reads lora.resume_from", config.lora.resume_from, True
    yield "writes runs below", config.runs_dir, False
    if config.cache_dir is not None:
        yield "writes caches below", config.cache_dir, False
