"""Mending files of a dataset, one at a time and only when asked: each can be taken back, and the original is kept.

A picture or caption that is replaced is first put into the folder ``originals`` beside it, which holds a note that
keeps it out of training (see :func:`engine.dataset.walk.walk`). Nothing is overwritten: a name that is taken is an
error. What is done comes back as a :class:`Mended`, and :func:`take_back` undoes it as long as nobody changed what
was made. Whoever keeps a journal is told of it before the first file is touched (``announce``); what a kill left half
done is taken back just as well.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
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
    import numpy as np
    from numpy.typing import NDArray

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
        moved: files that were moved: from where, to where, and the SHA-256 of their bytes.
    """

    what: str
    made: tuple[tuple[Path, str], ...] = ()
    moved: tuple[tuple[Path, Path, str], ...] = ()


Announce = Callable[[Mended], None]
"""Told what is about to be changed; an error of its own ends it before anything is."""


def _nobody(mended: Mended) -> None:
    pass


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


def to_utf8(path: Path, encoding: str, announce: Announce = _nobody) -> Mended:
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
    told = f"{safe_text(path.name, 120)} read as {encoding}, written as UTF-8"
    return _replaced(path, path, text.encode(), told, announce)


def to_png(
    path: Path, width: int, height: int, decoder: Decoder, background: str, announce: Announce = _nobody
) -> Mended:
    """Write a picture anew as PNG, as it is trained on: its first frame, upright, on ``background``, red green blue.

    Raises:
        DatasetError: it cannot be decoded, or the new name or that of the kept original is taken.
        DiskError: it could not be written; the picture is as it was.
    """
    whole = Placement(width, height, width, height, 0, 0)
    told = f"{safe_text(path.name, 120)} made a plain PNG"
    return _repainted(path, decoder.pixels(path, whole, background, flip=False), told, announce)


def gif_to_png(path: Path, decoder: Decoder, background: str, announce: Announce = _nobody) -> Mended:
    """As :func:`to_png`, of a GIF, which cannot be trained on as it is."""
    told = f"{safe_text(path.name, 120)} made a PNG of its first frame"
    return _repainted(path, decoder.first_frame(path, background), told, announce)


def _repainted(path: Path, pixels: NDArray[np.uint8], told: str, announce: Announce) -> Mended:
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, "PNG")
    return _replaced(path, path.with_suffix(".png"), packed.getvalue(), told, announce)


def _replaced(path: Path, target: Path, data: bytes, what: str, announce: Announce) -> Mended:
    """``data`` at ``target`` in place of ``path``, whose original is kept."""
    kept = path.parent / ORIGINALS / path.name
    _must_be_free(kept)
    if target != path:
        _must_be_free(target)
    mended = Mended(what, ((target, hashlib.sha256(data).hexdigest()),), ((path, kept, file_digest(path)),))
    announce(mended)
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
    return mended


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


def rename_apart(path: Path, extensions: tuple[str, ...], announce: Announce = _nobody) -> Mended:
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
    copy = target.with_suffix(caption.suffix) if caption is not None else None
    told = f"{safe_text(path.name, 120)} renamed to {safe_text(target.name, 120)}"
    mended = Mended(
        told + (", with a copy of the caption" if copy is not None else ""),
        ((copy, hashlib.sha256(data).hexdigest()),) if copy is not None else (),
        ((path, target, file_digest(path)),),
    )
    announce(mended)
    with alone_in(path.parent):
        if copy is not None:
            with atomic_path(copy) as temp:
                temp.write_bytes(data)
        _second_name(path, target)
        _unlink(path)
    return mended


def _free_stem(path: Path, extensions: tuple[str, ...]) -> str:
    taken = {os.path.splitext(name)[0].casefold() for name in os.listdir(path.parent)}
    stem = f"{path.stem}-{path.suffix.lower().lstrip('.')}"
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if name.casefold() not in taken)


def keep_beside(
    original: Path, made: Path, ending: str, extensions: tuple[str, ...], announce: Announce = _nobody
) -> Mended:
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
    files = tuple((path, hashlib.sha256(data).hexdigest()) for path, data in written)
    mended = Mended(f"{safe_text(target.name, 120)} added", files)
    announce(mended)
    for path, data in reversed(written):
        with atomic_path(path) as temp:
            temp.write_bytes(data)
    return mended


def take_back(mended: Mended) -> None:
    """Undo a change: what was moved goes back, what was made goes, if it is still as it was made.

    What was done only in part, or taken back in part, is undone as well; what is as it was before stays.

    Raises:
        DatasetError: something of it was changed since; nothing is undone.
        DiskError: it could not be done wholly; no original is lost.
    """
    before = {old: digest for old, _, digest in mended.moved}
    for path, digest in mended.made:
        if os.path.lexists(path) and file_digest(path) not in (digest, before.get(path)):
            raise DatasetError(
                "It was changed since", f"{safe_text(path)} is not as it was made", "Put it right by hand."
            )
    made = {path for path, _ in mended.made}
    moved = [(old, now) for old, now, digest in mended.moved if not _is_back(old, now, digest)]
    for old, now in moved:
        if old not in made and not (os.path.lexists(old) and os.path.samefile(old, now)):
            _must_be_free(old)
    try:
        for old, now in moved:
            _put_back(now, old)
        for path, _ in mended.made:
            if path not in before:
                path.unlink(missing_ok=True)
                flush(path.parent)
    except OSError as err:
        raise disk_error(err, mended.made[0][0] if mended.made else mended.moved[0][0]) from err


def _is_back(old: Path, now: Path, digest: str) -> bool:
    """Whether what was moved is where it was, and nowhere else.

    Raises:
        DatasetError: it is in neither place.
    """
    if now.is_file():
        return False
    if old.is_file() and file_digest(old) == digest:
        return True
    raise DatasetError("The original is gone", f"{safe_text(now)} is not there", "Nothing was changed.")


def _put_back(now: Path, old: Path) -> None:
    """Over what was made of it, where that has its name."""
    if os.path.lexists(old) and os.path.samefile(old, now):
        now.unlink()  # two names of one file: renaming would leave both
    else:
        os.replace(now, old)
    flush(old.parent)


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
