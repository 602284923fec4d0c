"""`kiln new NAME`: write a commented configuration to start from; never over a file that exists."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.files import disk_error, slug
from engine.text import safe_text
from profiles.starters import STARTERS, starter


def add_parser(subparsers: Any) -> None:
    """Add `kiln new` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "new", help="write a commented configuration to start from", description=__doc__
    )
    parser.add_argument("name", help="the run's name; NAME.toml is written in the current folder")
    parser.add_argument("--recipe", choices=STARTERS, default=STARTERS[0], help="what to start from (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="another place for the file")


def run(args: argparse.Namespace) -> int:
    """Write the file and say what to do next.

    Raises:
        ConfigError: the file exists.
        DiskError: it cannot be written.
    """
    path: Path = args.out or Path(f"{slug(args.name)}.toml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(starter(args.recipe, args.name))
    except FileExistsError as err:
        raise ConfigError("The file exists", f"{safe_text(path)} is left as it is", "Choose another name.") from err
    except OSError as err:
        raise disk_error(err, path) from err
    print(f"{safe_text(path)} is written. Fill in the paths, then: kiln config check {safe_text(path)}")
    return 0
