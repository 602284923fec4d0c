"""`kiln measure RUN`: measure LoRA files as the run measured itself, and show the figures beside its own.

The same held-out and training pictures, noise and prompts; lower losses are better. For a blend, a file of another
trainer, or an epoch that was saved and not measured. Without `--lora` and `--epochs` the newest file is measured.
Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from engine.config_file import load_config
from engine.errors import RunError
from engine.events import EventLog, Measured
from engine.text import safe_text
from tui.exit_codes import FINISHED
from tui.job import run_job
from tui.run_loras import epochs, files_of, named, own_measurements, run_folder, saved_epochs


def add_parser(subparsers: Any) -> None:
    """Add `kiln measure` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "measure", help="measure LoRA files as their run measured itself", description=__doc__
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name")
    parser.add_argument(
        "--lora", type=Path, action="append", default=[], metavar="FILE", help="may be given several times"
    )
    parser.add_argument("--epochs", type=epochs, default=(), metavar="20-27", help="files the run saved, by epoch")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure.

    Raises:
        EngineError: nothing to measure, the run measures nothing, or a file cannot be loaded.
    """
    folder = run_folder(args.run)
    files = [*named(args.lora, folder), *(files_of(folder, args.epochs) if args.epochs else [])]
    if not files:
        files = list(saved_epochs(folder).values())[-1:]
    if not files:
        raise RunError("The run has no LoRA yet", safe_text(folder.root), "Name one with --lora FILE.")
    config = load_config(folder.config)
    from engine.jobs import measure_loras

    found: list[Measured] = []

    def job(events: EventLog, should_stop: Any) -> bool:
        found.extend(measure_loras(config, folder.root, files, events, should_stop))
        return len(found) == len(files)

    code = run_job(job, json_lines=False)
    if code == FINISHED:
        own = own_measurements(folder)
        print(as_json(own, files, found) if args.json else table(own, files, found))
    return code


def as_json(own: Sequence[Measured], files: Sequence[Path], found: Sequence[Measured]) -> str:
    """All figures: the run's own, and those of the files."""
    measured = [{"file": str(file)} | asdict(one) for file, one in zip(files, found, strict=True)]
    return json.dumps({"run": [asdict(one) for one in own], "files": measured}, indent=2)


def table(own: Sequence[Measured], files: Sequence[Path], found: Sequence[Measured]) -> str:
    """The run's own measurements as aligned lines, then those of the files."""
    rows: list[tuple[str, ...]] = [("", "EPOCH", "STEP", "HELD OUT", "TRAIN", "DRIFT", "UPDATE")]
    rows += [("run", *_figures(one)) for one in own]
    rows += [(safe_text(file.name, 60), *_figures(one)) for file, one in zip(files, found, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        f"{row[0]:{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _figures(one: Measured) -> tuple[str, ...]:
    losses = (f"{fmean(values):.5f}" if values else "-" for values in (one.held_out, one.train))
    drift = "-" if one.drift is None else f"{one.drift:.2%}"
    update = math.sqrt(math.fsum(size**2 for _, size in one.update))
    return (str(one.epoch), str(one.step), *losses, drift, f"{update:.3g}")
