"""`kiln blend RUN`: average the LoRA files of several epochs into one.

What is averaged are the updates that the files make, exactly, at the rank they have; how much the rank cannot hold is
told. Without `--epochs` and `--files` the epochs that the run's advisor recommends are taken. The new file can be
drawn with (`kiln sample RUN --lora FILE`) and measured (`kiln measure RUN --lora FILE`) like any other.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.events import CheckpointSaved, EventLog
from engine.files import RunFolder
from engine.text import safe_text
from tui.exit_codes import FINISHED
from tui.job import run_job
from tui.run_loras import blend_name, epochs, files_of, named, recommended, run_folder


def add_parser(subparsers: Any) -> None:
    """Add `kiln blend` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "blend", help="average the LoRA files of several epochs", description=__doc__
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--epochs", type=epochs, metavar="20-27", help="those that were saved, such as 5,8,20-27")
    which.add_argument("--files", type=Path, nargs="+", metavar="FILE", help="LoRA files on the same layers")
    parser.add_argument(
        "--weights", type=float, nargs="+", metavar="W", help="what each file counts (all the same); e.g. 1 2 1"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the new file; none is ever replaced")
    parser.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")


def run(args: argparse.Namespace) -> int:
    """Blend.

    Raises:
        EngineError: nothing to blend, files that do not belong together, or one that cannot be read or written.
    """
    folder = run_folder(args.run)
    files = named(args.files, folder) if args.files else files_of(folder, args.epochs or _recommended(folder))
    weights = args.weights or [1.0] * len(files)
    out = args.out or blend_name(folder, files)
    from engine.jobs import blend_loras

    lines: list[str] = []

    def job(events: EventLog, should_stop: Any) -> bool:
        found = blend_loras(files, weights, out, events, should_stop)
        if found is None:
            return False
        events.append(CheckpointSaved(str(out), 0, 0, "blend", out.stat().st_size))
        lines.append(
            f"{len(files)} files blended; rank {max(target.rank for target in found.targets)} loses "
            f"{found.lost:.2%} of their average update, most in {found.worst} ({found.worst_lost:.2%})"
        )
        return True

    code = run_job(job, args.json)
    if code == FINISHED and not args.json:
        print("\n".join([safe_text(out), *lines]))
    return code


def _recommended(folder: RunFolder) -> tuple[tuple[int, int], ...]:
    spans = recommended(folder)
    if not spans:
        raise ConfigError(
            "Which epochs?",
            f"{safe_text(folder.root)} has no recommended range",
            "Give --epochs 20-27, or --files A B C.",
        )
    return spans
