"""What the workbench opens by itself: what was open last, else the folder's newest configuration, or its pictures.

The newest run that belongs to it is shown too if it can be gone on with.

Looks, changes no file. The searches are bounded: the folder may be anything, a home directory or a disk of a million
files. All of it reads files: not for the thread that draws.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.files import is_run_of
from engine.text import safe_text
from tui.view import RESUMABLE_STATES

if TYPE_CHECKING:
    from engine.config import RunConfig
    from tui.workplace import Workplace

MOST_ENTRIES = 20_000
MOST_CONFIGS = 30
"""Newest TOML files tried before giving up."""

RUN_FOLDERS = ("runs", "model")

PICTURE_FOLDERS = ("image", "images", "pictures", ".")
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl"})
"""Endings that are worth showing the folder for; what can be used of them the catalog tells."""


@dataclass
class Found:
    """What there is to open, read already."""

    config: RunConfig | None = None
    path: Path | None = None
    pictures: Path | None = None
    run: Path | None = None
    unfinished: str = ""
    """The name of ``run`` if it is unfinished and the user need not know: not shown last, or broken off since."""
    broke_off: bool = False
    """Whether ``run`` ended without saying so: its process was killed, or crashed."""
    lost: EngineError | None = None
    """Why what was open last is not."""


def search(folder: Path, last_run: str, last_config: str) -> Found:
    """Find what was open last, else what ``folder`` holds. For a thread: nothing is opened."""
    from engine.config_file import load_config

    found = Found()
    try:
        if last_run and (Path(last_run) / "config.toml").is_file():
            found.run = Path(last_run)
            found.broke_off = _state_of(found.run) == "interrupted"
            found.unfinished = safe_text(found.run.name, 60) if found.broke_off else ""
        if last_config:
            found.config, found.path = load_config(Path(last_config)), Path(last_config).absolute()
    except EngineError as err:
        found.lost = err
    if found.config is None and found.run is not None:
        with contextlib.suppress(EngineError):
            found.config = load_config(found.run / "config.toml")
    if found.config is None:
        found.path = find_config(folder)
        if found.path is not None:
            found.config = load_config(found.path)
        else:
            found.pictures = find_pictures(folder)
    if found.run is None and found.lost is None:
        found.run = find_unfinished(folder, found.config)
        if found.run is not None:
            found.unfinished = safe_text(found.run.name, 60)
            found.broke_off = _state_of(found.run) == "interrupted"
    return found


def take_up(place: Workplace, found: Found) -> str:
    """Open what was found, unless something else was opened meanwhile. For the thread that changes ``place``.

    Returns:
        The name of the unfinished run that is shown now; empty for none.

    Raises:
        EngineError: the run cannot be shown.
    """
    if place.config is not None:  # it came with the run, or the user was quicker
        place.use(place.config, place.config_path)
        return ""
    if place.catalog.dataset is not None:
        return ""
    shown = found.run is not None and place.run is None
    if found.run is not None and shown:
        place.show(found.run)
    if found.config is not None:
        place.use(found.config, found.path)
    elif found.pictures is not None:
        place.open_dataset(found.pictures)
    return found.unfinished if shown else ""


def find_config(folder: Path) -> Path | None:
    """The newest TOML file directly in ``folder`` that is a valid configuration of a run."""
    from engine.config_file import load_config

    found = [Path(entry.path) for entry in _entries(folder) if entry.name.endswith(".toml")]
    for path in sorted(found, key=_age)[:MOST_CONFIGS]:
        try:
            load_config(path)
        except EngineError:  # another program's file
            continue
        return path
    return None


def find_unfinished(folder: Path, config: RunConfig | None) -> Path | None:
    """The newest run of the configuration, or of the folder without one, if it broke off or was stopped."""
    from tui.run_shelf import run_folders

    if config is None:
        found = run_folders([folder / name for name in RUN_FOLDERS])
    else:
        found = [run for run in run_folders([config.runs_dir]) if is_run_of(config.name, run.name)]
    return found[0] if found and _state_of(found[0]) in RESUMABLE_STATES else None


def _state_of(run: Path) -> str:
    """The state in which a run stands; empty for one that cannot be read: that is the list of runs' business."""
    from tui.run_list import summary

    try:
        return summary(run).state
    except EngineError:
        return ""


def usual_places(named: Path | None = None) -> list[Path]:
    """The folder named, else those of this work folder where runs go, as the runs screen has them."""
    if named is not None:
        return [named]
    usual = [Path(name) for name in RUN_FOLDERS]
    return [place for place in usual if place.is_dir()] or usual[:1]


def find_pictures(folder: Path) -> Path | None:
    """The first of the usual folders that holds pictures."""
    for name in PICTURE_FOLDERS:
        place = folder / name
        if any(os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES for entry in _entries(place)):
            return place
    return None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The regular files in ``folder``, hidden ones left out; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                if not entry.name.startswith(".") and entry.is_file():
                    yield entry
    except OSError:
        return


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
