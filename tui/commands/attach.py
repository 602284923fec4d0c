"""`kiln attach [FOLDER]`: come back to the workstation of a work folder, wherever its run is trained.

Bare `kiln` does the same for the current folder, and starts the workstation there if none runs. `--list` names the
folders where one does.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.text import safe_text
from tui.launch import lacking


def add_parser(subparsers: Any) -> None:
    """Add `kiln attach` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "attach", help="come back to a workstation that runs", description=__doc__
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="its work folder (the current one)"
    )
    parser.add_argument("--list", action="store_true", help="name every workstation that runs on this machine")


def run(args: argparse.Namespace) -> int:
    """Attach.

    Raises:
        ConfigError: there is no terminal to attach.
        RunError: no workstation runs there, but elsewhere.
    """
    if args.list:
        print("\n".join(_listing()) or "No workstation runs.")
        return 0
    if (lack := lacking()) is not None:
        raise lack
    from tui.terminal.attach import attach
    from tui.terminal.place import other_owner
    from tui.terminal.reach import reach

    folder = args.folder.absolute()
    if not folder.is_dir():
        raise RunError("There is no such folder", safe_text(folder), "")
    link, _ = reach(folder, start=False)
    if link is None:
        if owner := other_owner(folder):
            raise RunError(
                "This folder is another user's workstation",
                f"{safe_text(folder)} is {safe_text(owner, 60)}'s",
                "Only that user can attach. `kiln runs` here lists its runs, `kiln` shows them.",
            )
        if elsewhere := _listing():
            raise RunError(
                "No workstation runs in this folder",
                "Elsewhere:\n" + "\n".join(elsewhere),
                "`kiln attach FOLDER` goes to one of them, `kiln` starts one here.",
            )
    else:
        link.close()
    os.chdir(folder)
    return attach({})


def _listing() -> list[str]:
    """A line for every host that runs."""
    from tui.terminal.place import hosts

    return [_line(info.folder, info.run, info.pid) for info in sorted(hosts(), key=lambda info: info.folder)]


def _line(folder: str, run: str, pid: int) -> str:
    doing = f"trains {safe_text(Path(run).name)}" if run else "no run is live"
    return f"{safe_text(folder)}   {doing}   process {pid}"
