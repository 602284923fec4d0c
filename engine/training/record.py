"""What a run was made with, thing by thing, so that whoever resumes it can be told what is another now.

A training state holds digests, which say that something changed; a record says what: every setting, each picture by
its place, the model files, versions and device. It lies in a file named for its SHA-256, which the states name; so it
is written once, not with every state. Torch-free: a screen reads it before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from engine.config import RunConfig
from engine.dataset.noted import excluded
from engine.dataset.regular import file_digest, unreadable
from engine.dataset.scan import trained_pairs
from engine.errors import DatasetError
from engine.files import atomic_write
from engine.models.header import file_fingerprint

FORMAT = 1

MODEL_FILES = {"transformer": "base model", "autoencoder": "autoencoder", "clip_l": "CLIP-L", "t5": "T5"}
"""The settings of [model] that name a file, and what the file is called."""


class Seen(Protocol):
    """A picture as a scan or a look at the folders finds it."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def repeats(self) -> int:
        """How often it is seen in an epoch."""

    @property
    def regularization(self) -> bool:
        """Whether it shows the class without the concept."""

    @property
    def crop(self) -> tuple[int, int, int, int] | None:
        """The user's, whether it fits or not."""

    @property
    def mask(self) -> Path | None:
        """The file with its mask; the picture itself where that is its alpha channel."""


@dataclass(frozen=True)
class PictureMark:
    """One picture: SHA-256 of its bytes, and by what to see that it is still the same file without reading it.

    ``stamp`` is size, and times of last change of contents and of the file's entry in nanoseconds. ``crop`` is the
    user's, ``mask`` the SHA-256 of the file with its mask; none in records of earlier versions.
    """

    digest: str
    stamp: tuple[int, int, int]
    repeats: int
    regularization: bool
    crop: tuple[int, int, int, int] | None = None
    mask: str = ""


@dataclass(frozen=True)
class Record:
    """What a run was made with.

    Attributes:
        settings: the configuration as plain values.
        files: model files by the setting that names them: path and fingerprint.
        pictures: by the number of the folder they are in and their place in it.
        versions: "lorakiln", "torch", "device" (another model rounds differently), "precision" (of the base model)
            and "processes", as text; what a look from outside cannot know is left out.
        excluded: places of pictures that are there and not trained on, because the user wants it so.
    """

    settings: dict[str, Any]
    files: dict[str, tuple[str, str]]
    pictures: dict[str, PictureMark]
    versions: dict[str, str]
    excluded: tuple[str, ...] = ()


def take_record(
    config: RunConfig, pictures: Iterable[Seen], versions: dict[str, str], before: Record | None = None
) -> Record:
    """The record of what is there now.

    Args:
        config: the run's.
        pictures: those it trains on.
        versions: what only the engine's thread knows of :attr:`Record.versions`.
        before: a picture that has the stamp it has here is not read again.

    Raises:
        DatasetError: a picture cannot be read.
        ModelFileError: a model file cannot be read.
    """
    paths = {name: getattr(config.model, name) for name in MODEL_FILES}
    known = before.pictures if before is not None else {}
    return Record(
        settings=config.model_dump(mode="json"),
        files={name: (str(path), file_fingerprint(path)) for name, path in paths.items()},
        pictures=dict(_mark(config, picture, known) for picture in pictures),
        versions={"lorakiln": installed("lorakiln"), "torch": installed("torch")} | versions,
        excluded=tuple(sorted(place_of(config, path) for path in excluded(config.dataset))),
    )


def look(config: RunConfig, before: Record) -> Record:
    """The record of what is there now, as far as it can be seen without torch; see :func:`take_record`."""
    return take_record(config, trained_pairs(config.dataset), {}, before)


def installed(package: str) -> str:
    """A package's version; "" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _mark(config: RunConfig, picture: Seen, known: dict[str, PictureMark]) -> tuple[str, PictureMark]:
    place = place_of(config, picture.path)
    try:
        info = os.stat(picture.path)
    except OSError as err:
        raise unreadable(picture.path, err) from err
    stamp = info.st_size, info.st_mtime_ns, info.st_ctime_ns
    old = known.get(place)
    digest = old.digest if old is not None and old.stamp == stamp else file_digest(picture.path)
    mask = file_digest(picture.mask) if picture.mask not in (None, picture.path) else ""
    return place, PictureMark(digest, stamp, picture.repeats, picture.regularization, picture.crop, mask)


def place_of(config: RunConfig, path: Path) -> str:
    """A picture's place, whatever its dataset folder is called: the folder's number, and the path below it."""
    for number, folder in enumerate(config.dataset.folders, start=1):
        if path.is_relative_to(folder.path):
            return f"{number}/{os.path.relpath(path, folder.path)}"
    return f"0/{path}"


def save_record(records: Path, record: Record) -> str:
    """Write ``record`` into the folder ``records`` unless it stands there; returns its name, the SHA-256 of its text.

    Raises:
        DiskError: it could not be written.
    """
    text = json.dumps({"format": FORMAT} | asdict(record), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = _path(records, digest)
    if load_record(records, digest) is None:
        atomic_write(path, text)
    return digest


def load_record(records: Path, digest: str) -> Record | None:
    """The record of that name; None where it is gone or damaged, or of a later version."""
    try:
        data = _path(records, digest).read_bytes() if digest.isalnum() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            return None
        table = json.loads(data)
        if table["format"] != FORMAT:
            return None
        return Record(
            settings=table["settings"],
            files={name: (path, mark) for name, (path, mark) in table["files"].items()},
            pictures={
                place: PictureMark(
                    one["digest"],
                    tuple(one["stamp"]),
                    one["repeats"],
                    one["regularization"],
                    tuple(one["crop"]) if one.get("crop") else None,
                    one.get("mask", ""),
                )
                for place, one in table["pictures"].items()
            },
            versions=table["versions"],
            excluded=tuple(table.get("excluded", ())),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def newest_versions(records: Path) -> dict[str, str]:
    """:attr:`Record.versions` of the newest record; empty where there is none, or it is damaged."""
    try:
        newest = max(records.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, default=None)
        record = load_record(records, file_digest(newest)) if newest is not None else None
    except (OSError, DatasetError):
        return {}
    found = record.versions if record is not None and isinstance(record.versions, dict) else {}
    return {str(name): str(value) for name, value in found.items()}


def _path(records: Path, digest: str) -> Path:
    return records / f"{digest[:16]}.json"
