"""Which pictures are trained on, and how: the pairs of all folders as the notes beside the pictures have them.

Comes in: the dataset's settings. Goes out: pairs without those excluded, with the user's repeats and crops, and with
their masks. A notes file that cannot be read is an error: what it excludes would be trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from engine.config import DatasetConfig
from engine.dataset.masks import ENDING, mask_of
from engine.dataset.pairs import Pair
from engine.dataset.problems import Problem, from_error, problem
from engine.dataset.sidecar import SIDECAR_NAME, Sidecar, load_sidecar, place_of
from engine.errors import DatasetError


def trained(config: DatasetConfig, pairs: Iterable[Pair], problems: list[Problem]) -> list[Pair]:
    """Those of ``pairs`` that are not excluded, as they are trained on; what is wrong is appended to ``problems``."""
    sidecars: dict[Path, Sidecar] = {}
    kept: list[Pair] = []
    for pair in pairs:
        if pair.folder not in sidecars:
            sidecars[pair.folder] = _read(pair.folder, problems)
        known = sidecars[pair.folder].pictures
        notes = known.get(place_of(pair.path, pair.folder)) if known else None
        mask = mask_of(pair.path, pair.folder, config.masks)
        if notes is None:
            kept.append(replace(pair, mask=mask) if mask else pair)
        elif not notes.exclude:
            kept.append(replace(pair, repeats=notes.repeats or pair.repeats, crop=notes.crop, mask=mask))
    _tell_of_masks(config, kept, problems)
    return kept


def _tell_of_masks(config: DatasetConfig, pairs: list[Pair], problems: list[Problem]) -> None:
    """Masks were asked for: say where there are none."""
    if config.masks.source != "folder" or not pairs:
        return
    without = [pair for pair in pairs if pair.mask is None]
    name = f"{os.path.splitext(without[0].name)[0]}{ENDING}" if without else ""
    where = config.folders[0].path / config.masks.folder
    if len(without) == len(pairs):
        hint = f'Put masks there (like {name}: white counts, black does not), or set dataset.masks.source = "off".'
        problems.append(problem(where, "no-mask", "error", "No picture has a mask", hint))
    elif without:
        message = f"{len(without)} of {len(pairs)} pictures have no mask and count everywhere; the first is {name}"
        problems.append(problem(where, "no-mask", "warning", message, "Make one for each that needs it."))


def excluded(config: DatasetConfig) -> list[Path]:
    """The pictures that the notes exclude, whether they are there or not; none of a file that cannot be read."""
    found = []
    for folder in dict.fromkeys(folder.path for folder in config.folders):
        sidecar = _read(folder, [])
        found += [folder / name for name, notes in sidecar.pictures.items() if notes.exclude]
    return found


def _read(folder: Path, problems: list[Problem]) -> Sidecar:
    try:
        return load_sidecar(folder)
    except DatasetError as err:
        problems.append(from_error(folder / SIDECAR_NAME, "sidecar", err))
        return Sidecar()
