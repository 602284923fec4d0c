"""`kiln dataset check DIR...`: every picture with caption, repeats, bucket and crop, and everything found wrong.

Nothing is changed; what was measured of the pictures is kept in the cache. Exit code 0: it can be trained on as it is
(there may be warnings); 1: there are errors; 2: bad usage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

from engine.config import DatasetConfig, FolderConfig, RunConfig
from engine.config_file import load_config
from engine.dataset.check import check_dataset
from engine.dataset.findings import Finding, grouped
from engine.dataset.problems import Problem
from engine.dataset.tokens import load_tokenizers, t5_limit
from engine.dataset.variety import Band
from engine.errors import ConfigError, ModelFileError
from engine.files import default_cache_dir
from engine.text import safe_text
from tui.exit_codes import FAILED, FINISHED

Report = dict[str, Any]

_NAME_WIDTH = 40
_CAPTION_WIDTH = 30
_MARKS = {"error": "error  ", "warning": "warning", "note": "note   "}
_NAMED = 10
"""Pictures of one finding that are named; --all names all of them."""


def add_parser(subparsers: Any) -> None:
    """Add `kiln dataset` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "dataset", help="check a folder of pictures and captions", description=__doc__
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="list pictures and problems; changes nothing", description=__doc__)
    check.add_argument(
        "folders", nargs="*", type=Path, metavar="DIR", help="folders of pictures; default: RUN.toml's"
    )
    check.add_argument("--json", action="store_true", help="the whole report as JSON on stdout, nothing else")
    check.add_argument("--resolution", type=_resolution, metavar="N", help="default: RUN.toml's, else 1024")
    check.add_argument(
        "--config", type=Path, metavar="RUN.toml", help="take the dataset's settings from a run's file"
    )
    check.add_argument("--quick", action="store_true", help="read headers only; what pixels tell is not found")
    check.add_argument("--recipe", metavar="NAME", help="whose number of pictures is wanted: character, style ...")
    check.add_argument("--all", action="store_true", help=f"name every picture of a finding, not the first {_NAMED}")


def run(args: argparse.Namespace) -> int:
    """Check and print.

    Raises:
        ConfigError: no folder is named, or the settings cannot be used.
    """
    base = load_config(args.config) if args.config else None
    config = _settings(args, base)
    options = _run_options(base) | {"band": band_of(args.recipe), "cache": default_cache_dir()}
    report = check_dataset(config, decode=not args.quick, progress=_progress(), **options)
    if args.json:
        _print_json(report)
    else:
        for line in text_lines(report, shutil.get_terminal_size((120, 24)).columns, args.all):
            print(line)
    return FAILED if report["summary"]["errors"] else FINISHED


def band_of(name: str | None) -> Band | None:
    """How many pictures a recipe wants; None where none is named.

    Raises:
        ConfigError: there is no such recipe.
    """
    if not name:
        return None
    from profiles.recipes import all_recipes

    recipes, _ = all_recipes()
    if name not in recipes:
        known = ", ".join(sorted(recipes))
        raise ConfigError("There is no such recipe", f"--recipe {safe_text(name, 80)}", f"Known are: {known}")
    file = recipes[name].file
    return Band(file.title, file.pictures.least, file.pictures.best, file.pictures.most)


def _resolution(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 64 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!a} is no number of pixels from 64 to 4096")
    return int(text)


def _settings(args: argparse.Namespace, base: RunConfig | None) -> DatasetConfig:
    folders = tuple(FolderConfig(path=path) for path in args.folders)
    if base is None and not folders:
        raise ConfigError(
            "No folder to check", "neither a folder nor --config was given", "Try: kiln dataset check DIR"
        )
    if base is None:
        return DatasetConfig(folders=folders, resolution=args.resolution or 1024)
    changes: dict[str, Any] = {"folders": folders} if folders else {}
    if args.resolution:
        changes["resolution"] = args.resolution
    return base.dataset.model_copy(update=changes)


def _run_options(base: RunConfig | None) -> dict[str, Any]:
    """What only a run's file tells: seed, batch size, and tokenizers where they are at hand."""
    if base is None:
        return {}
    options: dict[str, Any] = {"seed": base.seed, "batch_size": base.training.batch_size}
    options["held_out"] = base.validation.folder
    try:
        options |= {"tokenizers": load_tokenizers(base.model), "t5_limit": t5_limit(base.model)}
    except ModelFileError as err:
        print(f"tokens are not counted: {safe_text(err.title)}", file=sys.stderr)
    return options


def _progress() -> Any:
    """A counter on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            end = "\r\x1b[K" if done == total else ""
            print(f"\rlooking at pictures {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show


def _print_json(report: Report) -> None:
    # ASCII: control characters and names that are not UTF-8 arrive as \\u escapes, exactly and harmlessly.
    for line in json.dumps(report, indent=1, ensure_ascii=True).splitlines():
        print(safe_text(line, limit=10**9))


def text_lines(report: Report, width: int, every: bool = False) -> Iterator[str]:
    """The report for people: a table, the buckets, the findings (errors first) and one line that sums up."""
    if report["images"]:
        yield from _table(report["images"], width)
        yield ""
        shown = (
            f"{w}x{h}: {b['images']} ({b['per_epoch']} an epoch)" for b in report["buckets"] for w, h in [b["bucket"]]
        )
        yield "Buckets: " + ", ".join(shown)
        yield from _balance_lines(report["balance"])
        if any(image["cropped_to"] for image in report["images"]):
            yield "* cropped to that by the notes beside the pictures"
        yield ""
    for finding in grouped(Problem(**found) for found in report["problems"]):
        yield from _finding_lines(finding, every)
    if report["problems"]:
        yield ""
    yield _verdict(report["summary"])


def _finding_lines(finding: Finding, every: bool) -> Iterator[str]:
    """What was found of one kind: each hint once, with the pictures that it is for."""
    told = finding.problems
    alone = len(told) == 1
    yield f"{_MARKS[finding.severity]}  {safe_text(told[0].path) if alone else f'{finding.title}: {len(told)}'}"
    named = told if every else told[:_NAMED]
    for each in named:
        yield f"         {'' if alone else safe_text(each.path) + ': '}{safe_text(each.message)}"
    if len(named) < len(told):
        yield f"         and {len(told) - len(named)} more; --all names them"
    for hint in finding.hints[:3]:
        yield f"         {safe_text(hint)}"


def _balance_lines(parts: Iterable[Report]) -> Iterator[str]:
    """Each folder's share of an epoch, where there are several."""
    listed = list(parts)
    if len(listed) < 2:
        return
    yield "Balance:"
    for part in listed:
        kind = "of regularization" if part["regularization"] else "of an epoch"
        repeats = part["repeats"] or "mixed"
        told = f"{_count(part['pictures'], 'picture')} x {repeats} = {part['views']}, {part['share']:.0%} {kind}"
        advice = f"; {part['suggested']} would be even" if part["suggested"] != part["repeats"] else ""
        yield f"  {safe_text(part['name'], 60)}: {told}{advice}"


def _table(images: list[Report], width: int) -> Iterator[str]:
    name_width = min(_NAME_WIDTH, max(7, *(cell_len(image["name"]) for image in images)))
    head = f"{'picture':{name_width}}  {'repeats':>7}  {'size':>11}  {'bucket':>9}  {'crop at':>9}  "
    counted = images[0]["tokens"] is not None
    head += f"{'CLIP/T5':>9}  " if counted else ""
    room = max(_CAPTION_WIDTH, width - len(head))
    yield head + "caption"
    for image in images:
        # Of a cropped picture what is trained on, as buckets go by that.
        size = "{2}x{3}*".format(*cut) if (cut := image["cropped_to"]) else "{width}x{height}".format(**image)
        bucket = "{}x{}".format(*image["bucket"])
        crop = "{},{}".format(*image["crop"])
        name = set_cell_size(safe_text(image["name"]), name_width)
        columns = f"{name}  {image['repeats']:>7}  {size:>11}  {bucket:>9}  {crop:>9}  "
        if counted:
            columns += f"{'{clip}/{t5}'.format(**image['tokens']):>9}  "
        yield columns + _cut(" ".join(safe_text(image["caption"], limit=room * 4, newlines=True).split()), room)


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def _verdict(summary: Report) -> str:
    seen = f"{_count(summary['images'], 'picture')}, {summary['per_epoch']} an epoch, in"
    seen = f"{summary['excluded']} excluded; {seen}" if summary["excluded"] else seen
    found = f"{_count(summary['errors'], 'error')}, {_count(summary['warnings'], 'warning')}"
    found += f", {_count(summary['notes'], 'note')}" if summary["notes"] else ""
    return f"{seen} {_count(summary['buckets'], 'bucket')}; {found}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
