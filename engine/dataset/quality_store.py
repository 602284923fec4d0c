"""Measures of pictures, kept on disk: a picture is looked at once, whatever it is called and wherever it is moved.

One file a dataset folder, in the cache: a line that says what it is, the pictures' values as fixed-size records, and
a SHA-256 over all of it. A record is found by the picture's path, size and time of change, else by its bytes. A file
that is damaged, or of another version, counts as none. Writing replaces it as a whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.dataset.quality import CELLS, Measures
from engine.dataset.regular import file_digest, read_limited
from engine.errors import DatasetError, DiskError
from engine.files import atomic_write, default_cache_dir

HEAD = b"lorakiln quality 1\n"
"""Another number where what is measured, or how, changes."""

_MOST_BYTES = 2**31
_DIGEST_BYTES = 32
_BITS = CELLS * CELLS // 8
_LOOK = 16 * 16 * 3

RECORD = np.dtype(
    [
        ("mark", "V20"),
        ("content", "V32"),
        ("values", "<f4", (6,)),
        ("edges", "<f4", (4,)),
        ("border", "<f4", (4,)),
        ("shape", "<u2", (2,)),
        ("flags", "u1", (2,)),
        ("look", "u1", (_LOOK,)),
        ("lighter", "u1", (_BITS,)),
        ("darker", "u1", (_BITS,)),
    ]
)
"""One picture, little-endian."""


@dataclass(frozen=True)
class Kept:
    """A picture's measures, with the SHA-256 of the bytes that they are of."""

    content: bytes
    measures: Measures


class QualityStore:
    """What was measured of the pictures of one dataset folder; belongs to one thread at a time.

    Args:
        file: where it is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._by_mark: dict[bytes, Kept] = {}
        self._by_content: dict[bytes, Kept] = {}
        self._unsaved = 0
        for mark, kept in _read(file):
            self._take(mark, kept)

    def find(self, path: Path) -> Kept | None:
        """What is known of the picture as it is now, by name and time alone; None where it must be looked at."""
        mark = mark_of(path)
        return self._by_mark.get(mark) if mark else None

    def find_moved(self, path: Path) -> Kept | None:
        """What is known of the same bytes under another name; reads the whole file.

        Raises:
            DatasetError: it cannot be read.
        """
        mark = mark_of(path)
        kept = self._by_content.get(bytes.fromhex(file_digest(path)))
        if kept is not None and mark:
            self._take(mark, kept)
            self._unsaved += 1
        return kept

    def add(self, path: Path, measures: Measures) -> Kept:
        """Keep what was measured of a picture.

        Raises:
            DatasetError: it cannot be read any more.
        """
        mark = mark_of(path)
        kept = Kept(bytes.fromhex(file_digest(path)), measures)
        if mark:
            self._take(mark, kept)
            self._unsaved += 1
        return kept

    @property
    def due(self) -> bool:
        """Whether so much is new that it should be saved: rarely where much is known, as all of it is written."""
        return self._unsaved >= max(256, len(self._by_mark) // 4)

    def save(self, keep: Iterable[Path] = ()) -> str:
        """Write what is new; returns why it could not be, or "".

        Where more than half of what is known is of none of the pictures in ``keep``, that is dropped.

        A cache that cannot be written costs time, nothing else.
        """
        if not self._unsaved:
            return ""
        wanted = {mark for path in keep if (mark := mark_of(path))}
        everything = not wanted or len(self._by_mark) <= 2 * len(wanted)
        records = [_record(mark, kept) for mark, kept in self._by_mark.items() if everything or mark in wanted]
        body = HEAD + np.concatenate(records).tobytes() if records else HEAD
        try:
            atomic_write(self._file, body + hashlib.sha256(body).digest())
        except DiskError as err:
            return err.detail
        self._unsaved = 0
        return ""

    def _take(self, mark: bytes, kept: Kept) -> None:
        self._by_mark[mark] = kept
        self._by_content[kept.content] = kept


def store_for(folder: Path, cache: Path | None = None) -> QualityStore:
    """The store of a dataset folder, in the cache folder ``cache`` or the usual one."""
    name = hashlib.sha1(os.fsencode(os.path.abspath(folder)), usedforsecurity=False).hexdigest()
    return QualityStore((cache or default_cache_dir()) / "quality" / f"{name}.bin")


def mark_of(path: Path) -> bytes:
    """What tells a picture from itself after a change, unread: path, size, time; empty where it is gone."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b""
    told = b"%s|%d|%d" % (os.fsencode(os.path.abspath(path)), found.st_size, found.st_mtime_ns)
    return hashlib.sha1(told, usedforsecurity=False).digest()


def _record(mark: bytes, kept: Kept) -> NDArray[np.void]:
    seen = kept.measures
    record = np.zeros(1, RECORD)
    record["mark"], record["content"] = np.void(mark), np.void(kept.content)
    record["values"] = seen.sharpness, seen.blocks, seen.light, seen.contrast, seen.colour, seen.transparent
    record["flags"] = seen.turned, seen.cmyk
    record["edges"], record["border"], record["shape"] = seen.edges, seen.border, seen.shape
    record["look"] = np.clip(seen.look.round(), 0, 255)
    record["lighter"], record["darker"] = seen.lighter, seen.darker
    return record


def _read(file: Path) -> list[tuple[bytes, Kept]]:
    """What a file holds; nothing where there is none, or it is not whole."""
    try:
        data = read_limited(file, _MOST_BYTES)
    except DatasetError:
        return []
    return records_in(data)


def records_in(data: bytes) -> list[tuple[bytes, Kept]]:
    """The records of a store's bytes, with their marks; nothing where they are not whole, or say what cannot be."""
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if not body.startswith(HEAD) or (len(body) - len(HEAD)) % RECORD.itemsize:
        return []
    if hashlib.sha256(body).digest() != digest:
        return []
    records = np.frombuffer(body, RECORD, offset=len(HEAD))
    numbers = np.concatenate([records[name] for name in ("values", "edges", "border")], axis=1)
    if not np.isfinite(numbers).all():
        return []
    return [(record["mark"].tobytes(), _kept(record)) for record in records]


def _kept(record: np.void) -> Kept:
    sharpness, blocks, light, contrast, colour, clear = (float(value) for value in record["values"])
    red, green, blue, varied = (float(value) for value in record["edges"])
    left, top, right, bottom = (float(value) for value in record["border"])
    width, height = (int(value) for value in record["shape"])
    measures = Measures(
        sharpness, blocks, light, contrast, colour, (red, green, blue, varied), (left, top, right, bottom),
        record["look"].astype(np.float32), record["lighter"], record["darker"], (width, height),
        clear, int(record["flags"][0]), bool(record["flags"][1]),
    )  # fmt: skip
    return Kept(record["content"].tobytes(), measures)
