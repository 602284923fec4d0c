"""LoRA files of a run by the epochs they were saved at: what `kiln blend` and `kiln measure` take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from engine.errors import RunError
from engine.events import Advised, Measured, replay
from engine.files import RunFolder
from engine.text import safe_text
from tui.epochs import standing_loras
from tui.opening import RUN_FOLDERS
from tui.run_list import find_run, read_view

Spans = tuple[tuple[int, int], ...]
"""Ranges of epochs, both ends in them."""


def span(part: str) -> tuple[int, int]:
    """The ends of ``20-27`` or ``5``; of anything else two that hold nothing between them."""
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip())
    return (int(match[1]), int(match[2] or match[1])) if match else (1, 0)


def spans_of(text: str) -> Spans:
    """Read ``20-27`` or ``5,8,20-27``.

    Raises:
        RunError: it says no epochs.
    """
    spans = []
    for part in text.split(","):
        first, last = span(part)
        if not 0 < first <= last:
            raise RunError("Which epochs?", f"{safe_text(part, 40)}: give epochs such as 20-27 or 5,8,20-27", "")
        spans.append((first, last))
    return tuple(spans)


def epochs(text: str) -> Spans:
    """As :func:`spans_of`, on a command line."""
    try:
        return spans_of(text)
    except RunError as err:
        raise argparse.ArgumentTypeError(err.detail) from err


def spelled(spans: Sequence[tuple[int, int]]) -> str:
    """What :func:`spans_of` reads."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def run_folder(name: str) -> RunFolder:
    """The run of that name in the usual places, or the one that lies there.

    Raises:
        RunError: there is none.
    """
    return RunFolder(find_run([Path(place) for place in RUN_FOLDERS], name))


def saved_epochs(folder: RunFolder) -> dict[int, Path]:
    """The LoRA file that stands for each epoch.

    Raises:
        RunError: the run's events cannot be read.
    """
    found = standing_loras(read_view(folder.root), folder.root)
    return {epoch: path for epoch, (_, path) in found.items()}


def files_of(folder: RunFolder, spans: Spans) -> list[Path]:
    """The files of the epochs in ``spans`` that were saved, in their order.

    Raises:
        RunError: a single epoch that is named, or every one of a range, has no file.
    """
    saved = saved_epochs(folder)
    wanted: dict[int, Path] = {}
    for first, last in spans:
        some = {epoch: path for epoch, path in saved.items() if first <= epoch <= last}
        if not some:
            named = str(first) if first == last else f"{first} to {last}"
            there = ", ".join(map(str, list(saved)[:40])) or "none"
            raise RunError("No file of that epoch stands", f"epoch {named}; there are: {there}", "")
        wanted |= some
    return [path for _, path in sorted(wanted.items())]


def recommended(folder: RunFolder) -> Spans:
    """The range of epochs that the run's advisor told last; none where it told none."""
    told = [entry.event for entry in replay(folder.events, Advised)] if folder.events.exists() else []
    last = told[-1] if told else None
    return ((last.first, last.last),) if isinstance(last, Advised) and last.best else ()


def own_measurements(folder: RunFolder) -> list[Measured]:
    """What the run measured, the newest of each step, oldest first."""
    told = [entry.event for entry in replay(folder.events, Measured)] if folder.events.exists() else []
    found = {one.step: one for one in told if isinstance(one, Measured) and one.train}
    return [one for _, one in sorted(found.items())]


def named(files: Sequence[Path], folder: RunFolder) -> list[Path]:
    """Files as they were named on the command line: from here, else in the run's folder."""
    return [path if path.exists() or path.is_absolute() else folder.root / path for path in files]


def blend_name(folder: RunFolder, files: Sequence[Path]) -> Path:
    """A name in the run's folder that tells the first and the last file blended, and is not taken."""
    ends = [file.stem.removeprefix(folder.name).strip("-") or "final" for file in (files[0], files[-1])]
    stem = f"{folder.name}-blend-{ends[0]}-{ends[1]}"
    number = 1
    while (path := folder.root / f"{stem}{f'-{number}' if number > 1 else ''}.safetensors").exists():
        number += 1
    return path
