"""Where a picture's mask is: what of the picture the loss is to count, white, and what less, black.

Either a grey picture of the same stem in a folder of masks that repeats the dataset folder's own subfolders
(``photos/trip/a.jpg`` has ``photos/masks/trip/a.png``), or the picture's own alpha channel. A mask has the picture's
shape at any size; it is turned, cropped, mirrored and scaled with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from engine.config import FolderConfig, MaskConfig

ENDING = ".png"


def masks_folder(folder: Path, masks: MaskConfig) -> Path | None:
    """The folder of masks of a dataset folder; None where masks do not come from files."""
    return folder / masks.folder if masks.source == "folder" else None


def folder_of(picture: Path, folders: Sequence[FolderConfig]) -> Path:
    """The dataset folder that a picture belongs to: the first that it lies in."""
    inside = (
        folder.path
        for folder in folders
        if (picture.is_relative_to(folder.path) if folder.recursive else picture.parent == folder.path)
    )
    return next(inside, picture.parent)


def mask_of(picture: Path, folder: Path, masks: MaskConfig) -> Path | None:
    """The file with the mask of a picture of ``folder``; None where it has none. With alpha it is the picture."""
    if masks.source == "alpha":
        return picture
    root = masks_folder(folder, masks)
    if root is None:
        return None
    place = root / Path(os.path.relpath(picture, folder)).with_suffix(ENDING)
    return place if place.is_file() else None
