"""`kiln caption DIR --with MODEL_FOLDER`: have a model on this machine describe every picture of a folder.

What it says is kept beside the pictures (`.lorakiln/captions-by-machine`), apart from their captions, and reviewed in
the workstation; with --write-missing it becomes the caption of the pictures that have none. Captions that are there
are never touched. Stopped, it goes on where it was when it is called again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from engine.captioners.found import recognise, search
from engine.captioners.making import Control, Outcome, Subject, asked_in_words, caption_pictures, free_memory
from engine.captioners.request import MAX_BATCH, MAX_PROMPT, CaptionRequest, Tagging
from engine.config import CaptionConfig, DatasetConfig, FolderConfig
from engine.dataset.edits import caption_path
from engine.dataset.problems import Problem
from engine.dataset.scan import all_pairs
from engine.errors import ConfigError
from engine.models.find import known_roots
from engine.text import safe_text
from tui.exit_codes import FAILED, FINISHED
from tui.job import run_job
from tui.settings import load_settings
from tui.units import size


def add_parser(subparsers: Any) -> None:
    """Add `kiln caption` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "caption", help="have a model describe the pictures of a folder", description=__doc__
    )
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="the pictures; folders in it too")
    parser.add_argument("--with", dest="model", type=Path, metavar="MODEL_FOLDER", help="the captioning model")
    parser.add_argument("--list", action="store_true", help="list the captioning models found, and do nothing")
    parser.add_argument("--prompt", metavar="TEXT", help="what it is asked; default: by the kind of model")
    parser.add_argument("--trigger", default="", metavar="WORD", help="put in front of answers that lack it")
    parser.add_argument("--batch", type=_whole(MAX_BATCH), default=0, metavar="N", help="pictures at a time")
    parser.add_argument("--tokens", type=_whole(4096), default=300, metavar="N", help="longest answer; default: 300")
    parser.add_argument("--write-missing", action="store_true", help="caption only pictures without, and write it")
    parser.add_argument("--again", action="store_true", help="make answers anew that are there already")
    parser.add_argument("--json", action="store_true", help="what was made, as JSON on stdout")
    tags = parser.add_argument_group("taggers")
    tags.add_argument("--general", type=_share, default=0.35, metavar="0.35", help="threshold of general tags")
    tags.add_argument("--character", type=_share, default=0.85, metavar="0.85", help="threshold of characters")
    tags.add_argument("--no-characters", action="store_true", help="name no characters")
    tags.add_argument("--rating", action="store_true", help="the rating is a tag too")
    tags.add_argument("--without", action="append", default=[], metavar="TAG", help="never this tag; may be repeated")


def run(args: argparse.Namespace) -> int:
    """Caption, and say what came of it.

    Raises:
        EngineError: nothing to caption, or the model cannot be used.
    """
    if args.list:
        print(_listed())
        return FINISHED
    if args.folder is None or args.model is None:
        raise ConfigError(
            "What should be captioned, and with which model?",
            "a folder of pictures and --with MODEL_FOLDER are needed",
            "Try: kiln caption DIR --with MODEL_FOLDER. `kiln caption --list` lists models on this machine.",
        )
    if args.prompt is not None and len(args.prompt) > MAX_PROMPT:
        raise ConfigError(
            "The prompt is too long", f"it has {len(args.prompt)} characters", f"{MAX_PROMPT} are read."
        )
    how = Tagging(args.general, args.character, not args.no_characters, args.rating, tuple(args.without))
    request = CaptionRequest(args.model, args.prompt, args.trigger, args.batch, args.tokens, how, args.again)
    found = recognise(args.model)
    subjects = subjects_in(args.folder, args.write_missing)
    made: list[Outcome] = []

    def job(events: Any, should_stop: Any) -> bool:
        try:
            made.append(caption_pictures(request, subjects, events, Control(stop=should_stop)))
        finally:
            free_memory()
        return made[0].complete

    code = run_job(job, json_lines=False)
    outcome = made[0]
    if args.json:
        for line in as_json(outcome, found.name, asked_in_words(found, request)).splitlines():
            print(safe_text(line, 10**6))
    else:
        print(in_words(outcome, args.write_missing))
    return FAILED if code == FINISHED and outcome.failed and not (outcome.made or outcome.known) else code


def subjects_in(folder: Path, only_missing: bool) -> list[Subject]:
    """The pictures of a folder, those without a caption file where that is asked.

    Raises:
        ConfigError: there are none.
    """
    dataset = DatasetConfig(folders=(FolderConfig(path=folder),), captions=CaptionConfig())
    problems: list[Problem] = []
    pairs = all_pairs(dataset, problems)
    errors = [found for found in problems if found.severity == "error"]
    if not pairs:
        detail = errors[0].message if errors else "no JPEG, PNG, WebP, BMP, TIFF or AVIF file"
        raise ConfigError("No pictures to caption", f"{safe_text(folder, 400)}: {detail}", "Name another folder.")
    if not only_missing:
        return [Subject(pair.path, pair.name) for pair in pairs]
    places = [(pair, caption_path(pair.path, dataset.captions.extensions)) for pair in pairs if pair.caption is None]
    return [Subject(pair.path, pair.name, place) for pair, place in places]


def in_words(outcome: Outcome, writing: bool) -> str:
    """What came of it, in a line and one for each failure."""
    parts = [f"{len(outcome.made)} captioned"]
    parts += [f"{len(outcome.written)} written as captions"] if writing else []
    parts += [f"{outcome.known} had their answer already"] if outcome.known else []
    parts += [f"{len(outcome.failed)} failed"] if outcome.failed else []
    lines = [", ".join(parts) + ("" if outcome.complete else "; stopped, call it again to go on")]
    lines += [f"  {safe_text(path, 300)}: {why}" for path, why in outcome.failed.items()]
    lines += outcome.remarks
    if outcome.made and not writing:
        lines.append("Review them in the workstation: V in the dataset pane.")
    return "\n".join(lines)


def as_json(outcome: Outcome, model: str, prompt: str) -> str:
    """All of it; control characters arrive as escapes."""
    written = set(outcome.written)
    return json.dumps(
        {
            "model": model,
            "prompt": prompt,
            "captions": [
                {"picture": str(path), "text": text, "written": path in written}
                for path, text in outcome.made.items()
            ],
            "known": outcome.known,
            "failed": [{"picture": str(path), "reason": why} for path, why in outcome.failed.items()],
            "remarks": outcome.remarks,
            "complete": outcome.complete,
        },
        indent=1,
        ensure_ascii=True,
    )


def _listed() -> str:
    roots = [folder for folder in load_settings().model_roots if folder.is_dir()]
    found = search([*roots, *known_roots()])
    if not found:
        return "No captioning models found. Name a folder with --with, or where to look as model_folders in settings."
    return "\n".join(f"{one.name}  {size(one.size_bytes)}  {safe_text(one.path, 400)}" for one in found)


def _whole(most: int) -> Any:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!a} is no number from 1 to {most}")
        return int(text)

    return number


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!a} is no threshold above 0 and up to 1")
    return value
