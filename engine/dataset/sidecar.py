"""What the user says about pictures beside their captions: one file per dataset folder, ``lorakiln-dataset.toml``.

Plain TOML that can be read, edited and copied with the pictures::

    version = 1

    [pictures."portraits/anna 2.png"]
    stars = 4                     # 1 to 5
    exclude = true                # not trained on; the file stays where it is
    repeats = 3                   # instead of the folder's
    crop = [120, 40, 800, 1000]   # left, top, width, height in pixels, of the picture turned by its EXIF rotation

A key is the picture's place below the folder, with ``/`` between its parts. Only what differs from the default is
kept. An unknown key, a value out of bounds (stars 1 to 5, repeats 1 to 1000, a crop of at least one pixel) or another
version is an error with its line, and nothing is trained on until it is mended: what it excludes would be. A key
without a picture is no error. A crop that does not fit the picture, as where the file was replaced, is a warning, and
the whole picture is used. Notes count for every run that names the folder, from its start: a run that goes on tells
what changed since.

The file is rewritten as a whole (comments in it are not kept); changes by others in the meantime are kept, because
saving reads it again and puts only its own changes on top.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from engine.config import Part
from engine.config_file import check_table, parse_toml
from engine.dataset.regular import read_limited
from engine.dataset.walk import natural_key
from engine.errors import ConfigError, DatasetError
from engine.files import atomic_write
from engine.locks import alone_in
from engine.text import safe_text

SIDECAR_NAME = "lorakiln-dataset.toml"
MAX_SIDECAR_BYTES = 4 * 1024 * 1024
MAX_STARS = 5
MAX_REPEATS = 1000

Place = Annotated[int, Field(ge=0, le=2**20)]
Extent = Annotated[int, Field(ge=1, le=2**20)]
Crop = tuple[Place, Place, Extent, Extent]
"""Left, top, width, height in pixels of the picture as it is shown: turned by its EXIF rotation."""

_HEAD = "# What lorakiln keeps about the pictures of this folder: stars, exclude, repeats, crop.\nversion = 1\n"
_ESCAPES = {ord(char): f"\\u{ord(char):04X}" for char in map(chr, (*range(32), 127))} | {34: '\\"', 92: "\\\\"}


class PictureNotes(Part):
    """What is kept about one picture; None stands for the default, and is not written."""

    stars: Annotated[int, Field(ge=1, le=MAX_STARS)] | None = None
    exclude: bool | None = None
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] | None = None
    crop: Crop | None = None


class _File(Part):
    version: Literal[1]
    pictures: dict[str, PictureNotes] = Field(default_factory=dict)


@dataclass(frozen=True)
class Sidecar:
    """The notes of one dataset folder, and the changes to them that are not saved yet."""

    pictures: Mapping[str, PictureNotes] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """By picture, the notes to change and what to: others' changes of its other notes are kept."""

    def of(self, name: str) -> PictureNotes:
        """What is kept about the picture at ``name`` (see :func:`place_of`)."""
        return _changed(self.pictures.get(name), self.changes.get(name, {}))

    def stars(self, name: str) -> int:
        """Stars of the picture at ``name``; 0 where it has none."""
        return self.of(name).stars or 0

    def with_stars(self, name: str, stars: int) -> Sidecar:
        """The same notes with ``stars`` for a picture, held between 0 (none) and 5."""
        return self.with_notes(name, stars=max(0, min(stars, MAX_STARS)) or None)

    def with_notes(self, name: str, **notes: object) -> Sidecar:
        """The same notes with some of those of one picture changed; None takes one away.

        Raises:
            DatasetError: the picture's name is no valid text, so that no text file can hold it.
            pydantic.ValidationError: a value that no picture can have.
        """
        try:
            name.encode()
        except UnicodeEncodeError as err:
            raise DatasetError(
                "Nothing can be kept about the picture",
                f"its name {safe_text(name)} is not valid UTF-8",
                "Rename the picture.",
            ) from err
        PictureNotes.model_validate({**dict(self.of(name)), **notes})
        return Sidecar(self.pictures, {**self.changes, name: {**self.changes.get(name, {}), **notes}})

    def save(self, folder: Path) -> Sidecar:
        """Put the changes into the folder's file and return the notes as they are then. Waits for the disk.

        Raises:
            DatasetError: the file that stands there is no sidecar file any more, and is left as it is; or another
                process keeps writing there.
            DiskError: it could not be written; what stood there before is unharmed.
        """
        if not self.changes:
            return self
        with alone_in(folder):
            merged = dict(load_sidecar(folder).pictures)
            merged |= {name: _changed(merged.get(name), notes) for name, notes in self.changes.items()}
            kept = {name: notes for name, notes in merged.items() if notes != PictureNotes()}
            atomic_write(folder / SIDECAR_NAME, _text(kept))
        return Sidecar(kept)


def place_of(picture: Path, folder: Path) -> str:
    """The name under which a picture of ``folder`` is kept."""
    return os.path.relpath(picture, folder).replace(os.sep, "/")


def load_sidecar(folder: Path) -> Sidecar:
    """Read the notes of a dataset folder; one without the file has none.

    Raises:
        DatasetError: it cannot be read, is no TOML, or holds what no sidecar file has; the detail names the lines.
    """
    path = folder / SIDECAR_NAME
    if not os.path.lexists(path):
        return Sidecar()
    data = read_limited(path, MAX_SIDECAR_BYTES)
    if len(data) > MAX_SIDECAR_BYTES:
        raise _refusal(f"{safe_text(path)} is larger than {MAX_SIDECAR_BYTES // 2**20} MB")
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise _refusal(f"{safe_text(path)}, line {line}: no UTF-8") from err
    try:
        return Sidecar(check_table(parse_toml(text, path), text, _File, path).pictures)
    except ConfigError as err:
        raise _refusal(err.detail) from err


def _refusal(detail: str) -> DatasetError:
    hint = f"Mend the lines, or move {SIDECAR_NAME} away: it holds notes, neither pictures nor captions."
    return DatasetError("The dataset's notes cannot be read", detail, hint)


def _changed(notes: PictureNotes | None, changes: Mapping[str, object]) -> PictureNotes:
    return PictureNotes.model_validate({**dict(notes or PictureNotes()), **changes})


def _text(pictures: Mapping[str, PictureNotes]) -> str:
    parts = [_HEAD]
    for name in sorted(pictures, key=natural_key):
        lines = [f"{key} = {_toml(value)}\n" for key, value in pictures[name] if value is not None]
        parts.append(f'\n[pictures."{name.translate(_ESCAPES)}"]\n' + "".join(lines))
    return "".join(parts)


def _toml(value: bool | int | tuple[int, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(list(value)) if isinstance(value, tuple) else str(value)
