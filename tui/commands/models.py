"""`kiln models`: list the model files on this machine; `kiln models inspect FILE`: tell what one file is.

Files are recognised by their headers alone, never by name; nothing is loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.models.detect import ModelInfo, detect
from engine.models.find import find_models, known_roots
from engine.text import safe_text
from tui.exit_codes import FINISHED
from tui.settings import load_settings, settings_path
from tui.units import size

SHOWN = 20
"""Missing or unexpected names that `inspect` prints before it counts the rest; --json gives all."""


def add_parser(subparsers: Any) -> None:
    """Add `kiln models` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "models",
        help="find model files and tell what they are",
        description=__doc__,
        usage="kiln models [--root DIR]... [--json] | kiln models inspect FILE [--json]",
    )
    parser.add_argument("words", nargs="*", metavar="inspect FILE", help="tell what one file is")
    parser.add_argument(
        "--root", action="append", type=Path, default=[], metavar="DIR", help="search only here; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """List what is found, or inspect one file.

    Raises:
        ModelFileError: the file cannot be used as a model (a pickle, damaged), or a root does not exist.
    """
    words: list[str] = args.words
    if words[:1] == ["inspect"] and len(words) == 2:
        info = detect(Path(words[1]))
        print(json.dumps(info.to_dict(), indent=2) if args.json else described(info))
        return FINISHED
    if words:
        raise ModelFileError(
            "What should be looked at?",
            f"kiln models {safe_text(' '.join(words))}",
            "kiln models lists, kiln models inspect FILE tells about one file.",
        )
    roots = args.root or [*_existing(load_settings().model_roots), *known_roots()]
    found = find_models(roots)
    if args.json:
        print(json.dumps([info.to_dict() for info in found], indent=2))
    else:
        print(table(found) if found else _nothing(roots))
    return FINISHED


def _existing(folders: list[Path]) -> list[Path]:
    """The folders that are there; of the others (an unplugged drive) a line on stderr tells."""
    for folder in folders:
        if not folder.exists():
            text = f"{safe_text(folder, 400)}, in model_folders of {safe_text(settings_path(), 400)}, does not exist"
            print(f"warning: {text}", file=sys.stderr)
    return [folder for folder in folders if folder.exists()]


def table(found: list[ModelInfo]) -> str:
    """The files as aligned columns, each with its note or what is missing."""
    rows: list[tuple[str, ...]] = [("KIND", "FAMILY", "VARIANT", "DTYPE", "PARAMETERS", "SIZE", "STATE", "FILE")]
    rows += [_row(info) for info in found]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(info: ModelInfo) -> tuple[str, ...]:
    return (
        info.kind,
        info.family or "-",
        info.variant or "-",
        info.dtype or "-",
        _count(info.parameters),
        size(info.size_bytes),
        _state(info),
        safe_text(info.path, 400) + (f"  ({safe_text(info.note, 300)})" if info.note else ""),
    )


def _count(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.2f} {name}"
    return str(parameters) if parameters else "-"


def _state(info: ModelInfo) -> str:
    if info.kind == "unknown":
        return "-"
    if info.complete:
        return "complete"
    if info.missing:
        return f"{len(info.missing)} missing"
    return f"{len(info.unexpected)} too many" if info.unexpected else "not usable"


def described(info: ModelInfo) -> str:
    """One file in lines: what it is, its sizes, what is missing and what is too much."""
    lines = [
        f"file        {safe_text(info.path, 400)}",
        f"kind        {' '.join(part for part in (info.family, info.variant, info.kind) if part)}",
        f"dtype       {info.dtype or '-'}",
        f"parameters  {info.parameters:,}",
        f"size        {size(info.size_bytes)}",
        f"state       {_state(info)}",
    ]
    lines += [f"note        {safe_text(info.note, 2000)}"] if info.note else []
    lines += [f"{key:24}  {safe_text(value, 200)}" for key, value in info.params.items()]
    for title, names in (("missing", info.missing), ("unexpected", info.unexpected)):
        if names:
            lines.append(f"{title}:")
            lines += [f"  {safe_text(name, 300)}" for name in names[:SHOWN]]
            lines += [f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return "\n".join(lines)


def _nothing(roots: list[Path]) -> str:
    where = ", ".join(safe_text(root, 200) for root in roots) or "the usual folders (none of them exists)"
    return (
        f"No models found in {where}.\nName a folder with --root DIR, or for good as model_folders in your settings."
    )
