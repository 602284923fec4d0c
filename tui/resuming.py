"""Before a run is resumed: is there one to resume, what changed since, and is that wanted?

By a command everything is said on stderr, so that stdout stays the events' own with `--json`; there a run that is
not resumed tells its differences as event lines, one that is resumed tells them itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Entry
from engine.run import helper_rank, open_run, outlook
from tui.differences import changes_course, must_be_unfinished, outlook_lines, refused
from tui.elsewhere import held, holder_of
from tui.exit_codes import BAD_INPUT

if TYPE_CHECKING:
    import argparse

    from engine.run import Outlook


def consent(folder: Path, args: argparse.Namespace) -> int | None:
    """Say what resuming the run in ``folder`` means and ask where it must be asked; None to go on, else an exit code.

    Raises:
        EngineError: there is no run to resume, another process trains it, it is finished, or its files are gone.
    """
    if helper_rank():  # the main process asks for all
        return None
    ahead = look_before(folder)
    for line in outlook_lines(ahead):
        print(line, file=sys.stderr)
    if refused(ahead):
        print("Put back what was there, or start a new run with lora.resume_from.", file=sys.stderr)
        return _not_resumed(ahead, args.json)
    if not changes_course(ahead) or args.yes:
        return None
    if sys.stdin.isatty() and sys.stderr.isatty():
        print("Go on all the same? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return None
        return _not_resumed(ahead, args.json)
    print("Not resumed: --yes goes on all the same.", file=sys.stderr)
    return _not_resumed(ahead, args.json)


def look_before(folder: Path) -> Outlook:
    """What resuming the run in ``folder`` would do. Reads the disk: not for a thread that draws.

    Raises:
        EngineError: there is no run to resume, another process trains it, it is finished, or its files are gone.
    """
    from tui.run_list import read_view

    run = open_run(folder)
    assert run.folder is not None
    if holder := holder_of(run.folder.lock):
        raise held(holder)
    must_be_unfinished(read_view(run.folder.root), run.config, run.folder.root)
    return outlook(run.folder.root)


def _not_resumed(ahead: Outlook, as_json: bool) -> int:
    if as_json:
        for number, change in enumerate(ahead.changes, start=1):
            print(Entry(number, time.time(), change).to_json())
    return BAD_INPUT
