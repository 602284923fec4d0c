"""Pictures and their captions, matched by name inside one folder at a time.

Comes in: a walked tree. Goes out: one :class:`Pair` per picture that may be trained on, and problems: two pictures
that would share a caption, captions without a picture, files of kinds that cannot be trained on. All is matched and
put in order before the first pair is made, so whoever shows pairs as they come shows them where they stay.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.config import FolderConfig
from engine.dataset.names import name_problems
from engine.dataset.problems import Fix, Problem, problem
from engine.dataset.sidecar import Crop
from engine.dataset.walk import Tree, natural_key
from engine.text import safe_text

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
"""Extensions taken for pictures; what is inside is the decoder's to say."""

GIF = ".gif"
"""Opened only to make a PNG of it, on request."""

_OTHER_PICTURES = frozenset((
    GIF, ".heic", ".heif", ".svg", ".psd", ".jxl", ".ico", ".tga", ".jp2", ".j2k", ".exr", ".hdr", ".dds", ".qoi",
    ".ppm", ".pgm", ".eps", ".ai", ".xcf", ".kra", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2",
    ".fits",
))  # fmt: skip
_MANY_REPEATS = 300
_KOHYA_NAME = re.compile(r"([0-9]{1,9})_")


@dataclass(frozen=True)
class Pair:
    """A picture, its caption file if there is one, and how the folder says to use it."""

    path: Path
    caption: Path | None
    name: str
    """Place below the folder, safe to show."""
    repeats: int
    regularization: bool
    folder: Path = Path()
    """The dataset folder that it belongs to."""
    crop: Crop | None = None
    """The user's, whether it fits or not."""
    mask: Path | None = None
    """The file with its mask; with alpha masks the picture itself."""


class _Found(NamedTuple):
    """A picture before its pair is made, which costs most of the time."""

    path: str
    caption: str | None
    below: str
    """Its directory, as seen from the folder."""
    repeats: int


def pairs_of(
    tree: Tree, folder: FolderConfig, extensions: tuple[str, ...], problems: list[Problem]
) -> Iterator[Pair]:
    """Match every directory of ``tree``: pairs in natural order, made one by one.

    What is wrong is appended to ``problems`` before the first of them comes.
    """
    found = _found_in(tree, folder, extensions, problems)
    found.sort(key=lambda each: natural_key(each.path))
    for path, caption, below, repeats in found:
        shown = safe_text(os.path.normpath(os.path.join(below, os.path.basename(path))), limit=240)
        own = Path(caption) if caption else None
        yield Pair(Path(path), own, shown, repeats, folder.regularization, folder.path)


def _found_in(tree: Tree, folder: FolderConfig, extensions: tuple[str, ...], problems: list[Problem]) -> list[_Found]:
    endings = tuple(dict.fromkeys("." + ending.lower().lstrip(".") for ending in extensions))
    found: list[_Found] = []
    for directory, names in tree.directories.items():
        matched = _match(directory, names, endings, problems)
        problems += name_problems(directory, (name for name, _ in matched))
        if not matched:
            continue
        below = os.path.relpath(directory, folder.path)
        repeats = _repeats(directory, below, folder, problems)
        if repeats:
            found += [_Found(os.path.join(directory, name), caption, below, repeats) for name, caption in matched]
    _warn_of_many_repeats(found, folder, problems)
    return found


def _match(
    directory: str, names: list[str], endings: tuple[str, ...], problems: list[Problem]
) -> list[tuple[str, str | None]]:
    """(picture, path of its caption) for one directory, without pictures that share a stem."""
    pictures: dict[str, list[str]] = defaultdict(list)
    captions: dict[tuple[str, str], str] = {}
    for name in names:
        stem, ending = os.path.splitext(name)
        if ending.lower() in PICTURES:
            pictures[stem].append(name)
        elif ending.lower() in endings:
            # The exact ending wins over one in capitals.
            if (stem, ending.lower()) not in captions or ending in endings:
                captions[stem, ending.lower()] = name
        elif ending.lower() in _OTHER_PICTURES:
            message = f"{ending.lower()} files cannot be trained on"
            hint = "Convert it to PNG, JPEG or WebP."
            fix: Fix = "convert" if ending.lower() == GIF else ""
            problems.append(problem(os.path.join(directory, name), "unsupported", "warning", message, hint, fix))
    result: list[tuple[str, str | None]] = []
    used = set()
    for stem, same in pictures.items():
        caption = _caption_for(stem, pictures, captions, endings)
        used.add(caption)
        if len(same) > 1:
            problems.append(_shared_stem(directory, stem, same))
        else:
            result.append((same[0], caption and os.path.join(directory, caption)))
    for (stem, _), name in captions.items():
        if name not in used and stem not in pictures:
            problems.append(_orphan(directory, name, stem, names))
    return result


def _caption_for(
    stem: str, pictures: dict[str, list[str]], captions: dict[tuple[str, str], str], endings: tuple[str, ...]
) -> str | None:
    for ending in endings:
        if (stem, ending) in captions:
            return captions[stem, ending]
    # Archives from macOS spell accents in two characters, other systems in one: the same name to a person.
    composed = unicodedata.normalize("NFC", stem)
    if composed.isascii() or sum(unicodedata.normalize("NFC", other) == composed for other in pictures) > 1:
        return None
    for ending in endings:
        for (other, other_ending), name in captions.items():
            if ending == other_ending and other not in pictures and unicodedata.normalize("NFC", other) == composed:
                return name
    return None


def _shared_stem(directory: str, stem: str, same: list[str]) -> Problem:
    return problem(
        os.path.join(directory, same[0]),
        "same-stem",
        "error",
        f"{' and '.join(same)} lie in one folder and would share the caption of {stem!r}",
        "Rename or remove all but one; none of them is used until then.",
        "rename",
    )


def _orphan(directory: str, name: str, stem: str, names: list[str]) -> Problem:
    hint = "Rename it to match its picture, or remove it."
    if stem in names:
        hint = f"Rename it to {safe_text(os.path.splitext(stem)[0] + os.path.splitext(name)[1])}."
    return problem(os.path.join(directory, name), "orphan-caption", "warning", "A caption without a picture", hint)


def _repeats(directory: str, below: str, folder: FolderConfig, problems: list[Problem]) -> int:
    """Repeats for the pictures of one directory; 0 (kohya's ``0_name``) leaves them out, with a warning."""
    if folder.repeats:
        return folder.repeats
    own = os.path.basename(os.path.abspath(folder.path))
    for name in (below.split(os.sep)[0], own):
        match = _KOHYA_NAME.match(name)
        if match and int(match.group(1)) == 0:
            message = "The folder's name asks for 0 repeats, so its pictures are left out"
            hint = "Rename it, or set repeats for the folder."
            problems.append(problem(directory, "zero-repeats", "warning", message, hint))
        if match:
            return int(match.group(1))
    return 1


def _warn_of_many_repeats(pairs: list[_Found], folder: FolderConfig, problems: list[Problem]) -> None:
    if folder.repeats:
        return
    counts = Counter((os.path.dirname(pair.path), pair.repeats) for pair in pairs if pair.repeats > _MANY_REPEATS)
    for (directory, repeats), pictures in counts.items():
        message = f"The folder's name is read as {repeats} repeats of its {pictures} pictures in every epoch"
        hint = "If that is a year or a number, set repeats = 1 for the folder or rename it."
        problems.append(problem(Path(directory), "many-repeats", "warning", message, hint))
