"""The runs of a work folder as the runs screen shows them: each summed up, with its curve and files.

Reads the disk: for threads only. What was read once is kept by the event file's time and size, so that looking again
costs little.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config_file import load_config
from engine.errors import EngineError, RunError
from engine.files import RunFolder
from tui.comparing import Compared, Comparison, compare, compared, loss_points
from tui.elsewhere import holder_of
from tui.run_list import RunSummary, lora_files, read_view, runs_in, summed

OVER = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class RunCard:
    """One run: its summary, its smoothed loss as few points, its LoRA files with their sizes."""

    summary: RunSummary
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    files: tuple[tuple[Path, int], ...]
    key: tuple[int, int]
    """Time and size of the event file when it was read."""
    holder: str = ""
    """The process that trained it then; empty when none did."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.summary.folder)


def run_folders(places: Iterable[Path]) -> list[Path]:
    """The folders of all runs in ``places`` and in sweeps there, each once, the newest first."""
    found: dict[str, Path] = {}
    for place in places:
        try:
            inside = runs_in(place)
        except OSError:
            continue
        for folder in inside:
            found.setdefault(os.path.realpath(folder), folder)
    return sorted(found.values(), key=lambda folder: _key(folder)[0], reverse=True)


def read_cards(folders: Iterable[Path], known: dict[Path, RunCard]) -> Iterator[RunCard]:
    """A card for every folder, from ``known`` where the run is over and has told nothing since.

    A run that cannot be read has the state "unreadable". ``known`` is filled with what is read.
    """
    for folder in folders:
        key = _key(folder)
        old = known.get(folder)
        if old is not None and old.key == key and old.summary.state in OVER:
            yield replace(old, files=tuple(lora_files(folder)))
            continue
        known[folder] = card = _card(folder, key)
        yield card


def read_comparison(folders: Iterable[Path]) -> Comparison:
    """Compare the runs in ``folders``; one whose events cannot be read has the state "unreadable"."""
    return compare([_read_compared(folder) for folder in folders])


def _read_compared(folder: Path) -> Compared:
    config, problem = None, ""
    try:
        view = read_view(folder)
    except RunError as err:
        return Compared(folder.name, folder, "unreadable", {"settings": err.title})
    try:
        config = load_config(RunFolder(folder).config)
    except EngineError as err:
        problem = err.title
    return compared(folder, summed(folder, view).state, config, view, problem)


def _card(folder: Path, key: tuple[int, int]) -> RunCard:
    try:
        view = read_view(folder)
    except RunError:
        unread = RunSummary(folder.name, str(folder), "unreadable", 0, 0, 0, 0, None, 0.0, 0.0, ())
        return RunCard(unread, (), (), tuple(lora_files(folder)), key)
    steps, losses = loss_points(view)
    holder = holder_of(RunFolder(folder).lock) if view.live else ""
    return RunCard(summed(folder, view), tuple(steps), tuple(losses), tuple(lora_files(folder)), key, holder)


def _key(folder: Path) -> tuple[int, int]:
    try:
        info = os.stat(RunFolder(folder).events)
    except OSError:
        return 0, 0
    return info.st_mtime_ns, info.st_size
