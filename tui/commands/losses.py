"""`kiln losses RUN`: which training pictures a run's LoRA learned badly, and whose captions do not fit.

Every picture is measured under the same noise with its own caption and with other pictures' captions. LORA and BASE
are the first loss as a share of the second, with the LoRA and without it; MISFIT is the larger one: below 1 the
caption helps, above it the caption describes something else. What is found is told in the run's events too, so that
the workbench shows it. In a run that is live, L does the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config_file import load_config
from engine.errors import RunError
from engine.events import EventLog, PictureLosses
from engine.text import safe_text
from tui.compare_text import aligned
from tui.exit_codes import FINISHED
from tui.job import run_job
from tui.run_loras import named, run_folder, saved_epochs


def add_parser(subparsers: Any) -> None:
    """Add `kiln losses` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "losses", help="which pictures a run learned badly, and whose captions do not fit", description=__doc__
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="instead of the run's newest")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure.

    Raises:
        EngineError: the run has no LoRA, another process holds it, or a file cannot be loaded.
    """
    folder = run_folder(args.run)
    files = named([args.lora], folder) if args.lora else list(saved_epochs(folder).values())[-1:]
    if not files:
        raise RunError("The run has no LoRA yet", safe_text(folder.root), "Name one with --lora FILE.")
    config = load_config(folder.config)
    from engine.jobs import measure_pictures

    found: list[PictureLosses] = []

    def job(events: EventLog, should_stop: Any) -> bool:
        found.extend(measure_pictures(config, folder.root, files[0], events, should_stop))
        return not should_stop()

    code = run_job(job, json_lines=False)
    if code == FINISHED:
        print(as_json(files[0], found) if args.json else table(found))
    return code


def as_json(file: Path, found: Sequence[PictureLosses]) -> str:
    """All figures, the worst picture first."""
    keys = ("misfit", "picture", "loss", "others", "base")
    pictures = [dict(zip(keys, row, strict=True)) for row in _rows(found)]
    return json.dumps({"file": str(file), "pictures": pictures}, indent=2)


def table(found: Sequence[PictureLosses]) -> str:
    """The pictures as aligned lines, the worst first."""
    rows: list[tuple[str, ...]] = [("PICTURE", "MISFIT", "LOSS", "OTHERS", "LORA", "BASE")]
    for misfit, name, loss, others, base in _rows(found):
        lora = f"{loss / others:.3f}" if others else "-"
        figures = (f"{misfit:.3f}", f"{loss:.5f}", f"{others:.5f}", lora, f"{base:.3f}" if others else "-")
        rows.append((safe_text(Path(name).name, 60), *figures))
    return aligned(rows)


def _rows(found: Sequence[PictureLosses]) -> list[tuple[float, str, float, float, float]]:
    """Misfit, picture, its loss with the own caption and with others, their share without the LoRA."""
    rows = [
        (event.figures[name], name, loss, others, base)
        for event in found
        for name, loss, others, base in zip(event.names, event.losses, event.others, event.base, strict=True)
    ]
    return sorted(rows, key=lambda row: (-row[0], row[1]))
