"""`kiln runs`: list the runs of a folder; `kiln runs show NAME`; `kiln runs compare A B` is `kiln compare A B`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.files import free_bytes
from engine.text import safe_text
from tui.commands import compare
from tui.compare_text import aligned
from tui.doctor.host import LEAST_RUNS_GB
from tui.exit_codes import FINISHED
from tui.headless import can_unicode
from tui.opening import RUN_FOLDERS, usual_places
from tui.report import report
from tui.run_list import RunSummary, find_run, list_runs, read_view, summary
from tui.units import duration, size


def add_parser(subparsers: Any) -> None:
    """Add `kiln runs` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "runs",
        help="list, show and compare runs",
        description=__doc__,
        usage="kiln runs [DIR] [--json] | kiln runs show NAME | kiln runs compare NAME NAME ...",
    )
    parser.add_argument("words", nargs="*", metavar="DIR | show NAME | compare NAME NAME")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--runs-dir", type=Path, metavar="DIR", help=f"where the runs are (otherwise {' and '.join(RUN_FOLDERS)})"
    )


def run(args: argparse.Namespace) -> int:
    """List, show or compare.

    Raises:
        RunError: no such folder or run.
    """
    words: list[str] = args.words
    places = usual_places(args.runs_dir)
    if words[:1] == ["show"] and len(words) == 2:
        return _show(find_run(places, words[1]), args.json)
    if words[:1] == ["compare"] and len(words) > 2:
        return compare.show([find_run(places, name) for name in words[1:]], args.json)
    if len(words) > 1 or words in (["show"], ["compare"]):
        raise RunError(
            "Which runs?", f"kiln runs {safe_text(' '.join(words))}", "kiln runs show NAME, or kiln runs compare A B"
        )
    found = list_runs(Path(words[0])) if words else list_runs(*places)
    if args.json:
        print(json.dumps([item.to_dict() for item in found], indent=2))
    else:
        print(table(found) if found else "No runs yet: `kiln demo` makes one.")
        for line in full_disks(found):
            print(line)
    return FINISHED


def full_disks(found: list[RunSummary]) -> list[str]:
    """A line for each folder of runs whose disk has little room for more."""
    lines = []
    for place in sorted({Path(item.folder).parent for item in found}):
        free = free_bytes(place)
        if 0 <= free < LEAST_RUNS_GB * 2**30:
            lines.append(f"The disk of {safe_text(place)} is nearly full: {size(free)} are free.")
    return lines


def table(found: list[RunSummary]) -> str:
    """The runs as aligned columns."""
    rows: list[tuple[str, ...]] = [("NAME", "STATE", "EPOCH", "STEP", "LOSS", "TIME", "RESUMES", "LORA FILES")]
    rows += [_row(item) for item in found]
    return aligned(rows)


def _row(item: RunSummary) -> tuple[str, ...]:
    loras = [Path(path).name for path in item.loras]
    files = safe_text(loras[-1], 60) + (f" and {len(loras) - 1} more" if len(loras) > 1 else "") if loras else "-"
    return (
        safe_text(item.name, 40),
        item.state,
        f"{item.epoch}/{item.epochs}",
        f"{item.step}/{item.steps}",
        "-" if item.loss is None else f"{item.loss:.4f}",
        duration(item.elapsed_s),
        _resumes(item),
        files,
    )


def _resumes(item: RunSummary) -> str:
    """From where `kiln resume` goes on."""
    if item.resumes_after is None:
        return "-"
    return f"after {item.resumes_after}" if item.resumes_after else "anew"


def _show(folder: Path, as_json: bool) -> int:
    if as_json:
        print(json.dumps(summary(folder).to_dict(), indent=2))
        return FINISHED
    view = read_view(folder)
    view.state = summary(folder).state
    print(report(view, folder, unicode=can_unicode(sys.stdout)))
    if view.failure is not None:
        print(f"It failed: {safe_text(view.failure.title)}. {safe_text(view.failure.detail, newlines=True)}")
    return FINISHED
