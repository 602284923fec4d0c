"""Mending files of a dataset, one at a time and only when asked: each can be taken back, and the original is kept.

A picture or caption that is replaced is first put into the folder ``originals`` beside it, which holds a note that
keeps it out of training (see :func:`engine.dataset.walk.walk`). Nothing is overwritten: a name that is taken is an
error. What is done comes back as a :class:`Mended`, and :func:`take_back` undoes it as long as nobody changed what
was made.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.buckets import Placement
from engine.dataset.captions import MAX_CAPTION_BYTES, caption_text
from engine.dataset.edits import caption_places
from engine.dataset.pairs import PICTURES
from engine.dataset.regular import file_digest, read_limited
from engine.dataset.walk import ORIGINALS_NOTE
from engine.errors import DatasetError, DiskError
from engine.files import atomic_path, disk_error, flush
from engine.locks import alone_in
from engine.text import safe_text

if TYPE_CHECKING:
    from engine.dataset.decoder import Decoder

ORIGINALS = "originals"
"""Folder beside what was changed."""

_NOTE = "What lies here is as it was before lorakiln changed it. This file keeps it out of training.\n"

ENCODINGS = ("utf-16-le", "utf-16-be", "cp1252", "shift_jis", "gb18030", "cp1251", "latin-1")
"""What captions that are no UTF-8 are tried as, the likeliest first."""


@dataclass(frozen=True)
class Mended:
    """One change of files, as it was made.

    Attributes:
        what: in words, safe to show.
        made: files that were made, with the SHA-256 of their bytes.
        moved: files that were moved: from where, to where.
    """

    what: str
    made: tuple[tuple[Path, str], ...] = ()
    moved: tuple[tuple[Path, Path], ...] = ()


def readings(path: Path) -> tuple[tuple[str, str], ...]:
    """The encodings that a caption could be in, each with its text as it would read; none for one that is fine.

    Raises:
        DatasetError: it cannot be read, or is too long for a caption.
    """
    data = read_limited(path, MAX_CAPTION_BYTES)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return tuple(_readings(data, path))
    return ()


def _readings(data: bytes, path: Path) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    # Every other byte of Latin text in UTF-16 is zero; elsewhere it would read as rare signs.
    names = ENCODINGS if data.count(0) * 4 > len(data) else ENCODINGS[2:]
    for name in names:
        try:
            text = data.decode(name)
            caption_text(text.encode(), path)
        except (UnicodeDecodeError, UnicodeEncodeError, DatasetError):
            continue
        if text not in seen:
            seen.add(text)
            yield name, text


def to_utf8(path: Path, encoding: str) -> Mended:
    """Write a caption anew as UTF-8, read in one of the encodings that :func:`readings` names.

    Raises:
        DatasetError: it is not as it was, or an original of that name is kept already.
        DiskError: it could not be written; the caption is as it was.
    """
    text = dict(readings(path)).get(encoding)
    if text is None:
        raise DatasetError(
            "The caption is not as it was", f"{safe_text(path)} does not read as {encoding}", "Look at it again."
        )
    return _replaced(path, path, text.encode(), f"{safe_text(path.name, 120)} read as {encoding}, written as UTF-8")


def to_png(path: Path, width: int, height: int, decoder: Decoder, background: str) -> Mended:
    """Write a picture anew as PNG, as it is trained on: its first frame, upright, on ``background``, red green blue.

    Raises:
        DatasetError: it cannot be decoded, or the new name or that of the kept original is taken.
        DiskError: it could not be written; the picture is as it was.
    """
    from PIL import Image

    whole = Placement(width, height, width, height, 0, 0)
    packed = io.BytesIO()
    Image.fromarray(decoder.pixels(path, whole, background, flip=False)).save(packed, "PNG")
    target = path.with_suffix(".png")
    return _replaced(path, target, packed.getvalue(), f"{safe_text(path.name, 120)} made a plain PNG")


def _replaced(path: Path, target: Path, data: bytes, what: str) -> Mended:
    """``data`` at ``target`` in place of ``path``, whose original is kept."""
    kept = path.parent / ORIGINALS / path.name
    _must_be_free(kept)
    if target != path:
        _must_be_free(target)
    with alone_in(path.parent):
        _make_originals(kept.parent)
        _second_name(path, kept)
        try:
            with atomic_path(target) as temp:
                temp.write_bytes(data)
            if target != path:
                _unlink(path)
        except DiskError:
            if path.is_file():  # all is as it was; a second original would be in the way of the next try
                _unlink(kept)
            raise
    return Mended(what, ((target, hashlib.sha256(data).hexdigest()),), ((path, kept),))


def _second_name(path: Path, other: Path) -> None:
    """The same file under another name; a copy where the file system has no links, or it is one."""
    try:
        if path.is_symlink():
            raise OSError
        os.link(path, other)
        flush(other.parent)
    except OSError:
        with atomic_path(other) as temp:
            shutil.copy2(path, temp)


def _unlink(path: Path) -> None:
    try:
        path.unlink()
        flush(path.parent)
    except OSError as err:
        raise disk_error(err, path) from err


def rename_apart(path: Path, extensions: tuple[str, ...]) -> Mended:
    """Give a picture that shares its stem with another a name of its own, with a copy of their caption.

    Raises:
        DatasetError: it shares its stem with none (any more).
        DiskError: it could not be renamed.
    """
    others = [
        name
        for name in sorted(os.listdir(path.parent))
        if os.path.splitext(name)[0] == path.stem and os.path.splitext(name)[1].lower() in PICTURES
    ]
    if len(others) < 2 or path.name not in others:
        raise DatasetError("The name is its own", f"no other picture is called {safe_text(path.stem)}", "Look again.")
    stem = _free_stem(path, extensions)
    target = path.with_name(stem + path.suffix)
    caption = next((place for place in caption_places(path, extensions) if place.is_file()), None)
    data = read_limited(caption, MAX_CAPTION_BYTES) if caption is not None else b""
    made = []
    with alone_in(path.parent):
        if caption is not None:
            copy = target.with_suffix(caption.suffix)
            with atomic_path(copy) as temp:
                temp.write_bytes(data)
            made.append((copy, hashlib.sha256(data).hexdigest()))
        _second_name(path, target)
        _unlink(path)
    told = f"{safe_text(path.name, 120)} renamed to {safe_text(target.name, 120)}"
    return Mended(told + (", with a copy of the caption" if made else ""), tuple(made), ((path, target),))


def _free_stem(path: Path, extensions: tuple[str, ...]) -> str:
    taken = {os.path.splitext(name)[0].casefold() for name in os.listdir(path.parent)}
    stem = f"{path.stem}-{path.suffix.lower().lstrip('.')}"
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if name.casefold() not in taken)


def keep_beside(original: Path, made: Path, ending: str, extensions: tuple[str, ...]) -> Mended:
    """Take a picture that a program made of a copy into the dataset, beside ``original``, with a copy of its caption.

    Raises:
        DatasetError: the name is taken, or something cannot be read.
        DiskError: it could not be written.
    """
    target = original.with_name(f"{original.stem}-{ending}{made.suffix.lower()}")
    caption = next((place for place in caption_places(original, extensions) if place.is_file()), None)
    written: list[tuple[Path, bytes]] = [(target, made.read_bytes())]
    if caption is not None:
        written.append((target.with_suffix(caption.suffix), read_limited(caption, MAX_CAPTION_BYTES)))
    for path, _ in written:
        _must_be_free(path)
    for path, data in reversed(written):
        with atomic_path(path) as temp:
            temp.write_bytes(data)
    files = tuple((path, hashlib.sha256(data).hexdigest()) for path, data in written)
    return Mended(f"{safe_text(target.name, 120)} added", files)


def take_back(mended: Mended) -> None:
    """Undo a change: what was moved goes back, what was made goes, if it is still as it was made.

    Raises:
        DatasetError: something of it was changed since; nothing is undone.
        DiskError: it could not be done wholly; no original is lost.
    """
    for path, digest in mended.made:
        if os.path.lexists(path) and file_digest(path) != digest:
            raise DatasetError(
                "It was changed since", f"{safe_text(path)} is not as it was made", "Put it right by hand."
            )
    replaced = {path for path, _ in mended.made}
    for old, now in mended.moved:
        if not now.is_file():
            raise DatasetError("The original is gone", f"{safe_text(now)} is not there", "Nothing was changed.")
        if old not in replaced:
            _must_be_free(old)
    try:
        for old, now in mended.moved:
            os.replace(now, old)  # over what was made of it, where that has its name
            flush(old.parent)
        for path, _ in mended.made:
            if path not in {old for old, _ in mended.moved}:
                path.unlink(missing_ok=True)
                flush(path.parent)
    except OSError as err:
        raise disk_error(err, mended.made[0][0] if mended.made else mended.moved[0][0]) from err


def _make_originals(folder: Path) -> None:
    """The folder for what is replaced, with the note that keeps it out of training.

    Raises:
        DatasetError: a folder of that name is the user's own.
    """
    note = folder / ORIGINALS_NOTE
    if os.path.lexists(folder) and not note.is_file():
        raise DatasetError(
            "The folder for originals is taken",
            f"{safe_text(folder)} is there, and is not lorakiln's",
            "Rename it: what is replaced is kept in a folder of that name.",
        )
    if not note.is_file():
        with atomic_path(note) as temp:  # makes the folder too
            temp.write_text(_NOTE)


def _must_be_free(path: Path) -> None:
    if os.path.lexists(path):
        raise DatasetError(
            "A file of that name is there", f"{safe_text(path)} would be overwritten", "Rename or remove it first."
        )
