"""`kiln use RUN [--epoch N] [--to DIR] [--name NAME]`: take an epoch's LoRA along, and say how it is used.

Without `--epoch` the epoch that was taken before is meant, else the advised one, else the last. Without `--to`
nothing is copied.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config_file import load_config
from engine.errors import ConfigError, RunError
from engine.files import RunFolder
from engine.text import safe_text
from tui.epochs import advice_of, epoch_rows
from tui.exit_codes import FINISHED
from tui.judged import read_judged, write_judged
from tui.opening import RUN_FOLDERS
from tui.places import is_shipped
from tui.run_list import find_run, read_view
from tui.taking import epoch_to_take, file_of, found_targets, take, use_of, usual_name


def add_parser(subparsers: Any) -> None:
    """Add `kiln use` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "use", help="take an epoch's LoRA along, and say how it is used", description=__doc__
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name")
    parser.add_argument("--epoch", type=int, metavar="N", help="which (the one chosen before, or advised)")
    parser.add_argument("--to", type=Path, metavar="DIR", help="copy it there, such as ComfyUI/models/loras")
    parser.add_argument("--name", metavar="NAME", help="what the copy is called (RUN-e0012.safetensors)")
    parser.add_argument("--replace", action="store_true", help="also over a file of that name")


def run(args: argparse.Namespace) -> int:
    """Copy, and tell.

    Raises:
        EngineError: no such run or epoch, or the file cannot be copied.
    """
    if args.name and args.to is None:
        raise ConfigError("--name does nothing by itself", "nothing is copied without --to DIR", "Add --to DIR.")
    folder = find_run([Path(name) for name in RUN_FOLDERS], args.run)
    view, judged = read_view(folder), _judged(folder)
    advice = advice_of(view)
    rows = epoch_rows(view, folder, judged, advice)
    epoch = epoch_to_take(rows, judged, advice) if args.epoch is None else args.epoch
    source = file_of(rows, epoch)
    trigger, hints, demo = "", [], False
    try:
        config = load_config(RunFolder(folder).config)
        trigger, hints = config.dataset.captions.trigger_word, [config.model.transformer]
        demo = is_shipped(config.model.transformer)
    except ConfigError:
        print("The run's configuration cannot be read: its trigger word is not known.\n")
    path = source
    if args.to is not None:
        path = take(source, args.to, args.name or usual_name(folder.name, epoch, source), args.replace)
        write_judged(folder, replace(judged, chosen=epoch))
        print(f"Copied epoch {epoch} to {safe_text(path)}\n")
    else:
        print(f"Epoch {epoch}: {safe_text(path)}")
        for target in found_targets(Path.home(), hints):
            print(f"  --to {safe_text(target.folder)} copies it to {target.program}")
        print()
    print(use_of(path, trigger, view.variant, demo).text, end="")
    return FINISHED


def _judged(folder: Path) -> Any:
    try:
        return read_judged(folder)
    except OSError as err:
        raise RunError("The run's opinions cannot be read", f"{safe_text(folder)}: {err.strerror}", "") from err
