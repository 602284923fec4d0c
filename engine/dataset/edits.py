"""Writing captions back: only what was changed, in the file's own manner, and never over someone else's change.

A :class:`CaptionFile` is a caption as it stood on disk, with the digest of its bytes. Whoever edits one hands it back
together with the new text; the write goes ahead only while the file still holds those bytes. Encoding, byte-order
mark, the line ends of lines that are still there, the last line feed and permissions stay as they were.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.dataset.breaks import PLAIN_ENDS, breaks_kept
from engine.dataset.captions import MAX_CAPTION_BYTES, caption_text
from engine.dataset.regular import read_limited
from engine.errors import DatasetError
from engine.files import atomic_path, flush
from engine.locks import alone_in
from engine.text import safe_text

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class CaptionFile:
    """A caption file as read: what an edit starts from.

    Attributes:
        path: where it stands, or would stand.
        text: its text; line ends are ``\\n``, byte-order mark and one last line feed are left out.
        digest: SHA-256 (hex) of its bytes; "" where there is no file.
        mark: its byte-order mark.
        newline: its line end; the most frequent one where they are mixed.
        ending: the line end after the last line, or "".
        body: its text with the line ends that it has, without mark and ending.
    """

    path: Path
    text: str
    digest: str
    mark: bytes = b""
    newline: str = "\n"
    ending: str = "\n"
    body: str = field(default="", repr=False)

    @property
    def encoding(self) -> str:
        """Python's name of the encoding."""
        return dict(_MARKS).get(self.mark, "utf-8")


class CaptionChanged(DatasetError):
    """Someone else created, changed or removed the file since it was read; nothing was written.

    Attributes:
        now: the file as it is now.
    """

    def __init__(self, now: CaptionFile) -> None:
        what = "no longer holds what was opened" if now.digest else "was removed"
        super().__init__(
            "The caption was changed by another program",
            f"{safe_text(now.path)} {what}; nothing was written",
            "Choose which of the two to keep.",
        )
        self.now = now


def caption_path(picture: Path, extensions: Sequence[str]) -> Path:
    """Where a new caption of ``picture`` goes: beside it, with the first of the endings."""
    return next(caption_places(picture, extensions))


def caption_places(picture: Path, extensions: Sequence[str]) -> Iterator[Path]:
    """Where a caption of ``picture`` may stand, in the order in which the endings are tried."""
    stem = os.path.splitext(picture)[0]
    for ending in extensions or (".txt",):
        yield Path(f"{stem}.{ending.lower().lstrip('.')}")


def open_caption(path: Path) -> CaptionFile:
    """Read a caption for editing; a file that is not there is an empty caption.

    Raises:
        DatasetError: it cannot be read or is no caption, as in :func:`engine.dataset.captions.read_caption`.
    """
    if not os.path.lexists(path):
        return CaptionFile(path, "", "")
    return parsed(path, read_limited(path, MAX_CAPTION_BYTES))


def write_caption(base: CaptionFile, text: str) -> CaptionFile:
    """Replace what ``base`` was read from by ``text``; returns the file as it is then.

    Waits for the disk: not for a thread that draws. A text that is already there is not written. A link is replaced
    by a file of its own, so nothing outside the dataset's folder is ever written.

    Raises:
        CaptionChanged: the file is no longer as ``base`` has it.
        DatasetError: the text cannot be read back as a caption (control characters, too long), what stands there
            now cannot be read, or another process keeps writing in the folder.
        DiskError: it could not be written; what stood there before is unharmed.
    """
    refuse_changed(base)
    after, data = planned(base, text)
    if after is base:
        return base
    # Another lorakiln is kept out until the new file stands; of other programs only the rename's moment is left.
    with alone_in(base.path.parent), atomic_path(base.path, mode_of(base.path)) as temp:
        temp.write_bytes(data)
        flush(temp)
        refuse_changed(base)
    return after


def planned(base: CaptionFile, text: str, raw: str | None = None) -> tuple[CaptionFile, bytes]:
    """The file as it is once ``text`` stands in place of ``base``, and its bytes; ``base`` itself if nothing changes.

    Args:
        base: the file as it was read.
        text: what is to stand there; every line end counts as a line feed.
        raw: the same text with the line ends that it is to have, the last one too; as ``base`` has them where None.

    Raises:
        DatasetError: the text cannot be read back as a caption.
    """
    if raw is not None:
        data = base.mark + _bytes(base, raw)
        caption_text(data, base.path)
        return parsed(base.path, data), data
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text == base.text:
        return base, b""
    body = breaks_kept(base.body, text, PLAIN_ENDS, base.newline)
    # An emptied caption is an empty file.
    data = base.mark + _bytes(base, body + base.ending if body else "")
    caption_text(data, base.path)
    return replace(base, text=text, digest=_digest(data), body=body), data


def mode_of(path: Path) -> int | None:
    """Permissions of the file that is replaced; None where there is none."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def refuse_changed(base: CaptionFile) -> None:
    """Raise :class:`CaptionChanged` unless the file still is what ``base`` was read from."""
    if not os.path.lexists(base.path):
        if base.digest:
            raise CaptionChanged(CaptionFile(base.path, "", ""))
        return
    data = read_limited(base.path, MAX_CAPTION_BYTES)
    if _digest(data) != base.digest:
        raise CaptionChanged(parsed(base.path, data))


def raw_of(base: CaptionFile) -> str:
    """The text of ``base`` as its file has it: with its own line ends, the last one too."""
    whole = base.body + base.ending
    # Of a file of nothing, ending says what a new line would end with.
    return whole if _digest(base.mark + _bytes(base, whole)) == base.digest else base.body


def parsed(path: Path, data: bytes) -> CaptionFile:
    """What a caption file of these bytes is.

    Raises:
        DatasetError: they are no caption.
    """
    text = caption_text(data, path)
    mark = next((mark for mark, _ in _MARKS if data.startswith(mark)), b"")
    raw = data[len(mark) :].decode(dict(_MARKS).get(mark, "utf-8"))
    newline = _newline(raw)
    ending = next((end for end in ("\r\n", "\n", "\r") if raw.endswith(end)), "" if raw else newline)
    body = raw.removesuffix(ending)
    return CaptionFile(path, text.removesuffix("\n"), _digest(data), mark, newline, ending, body)


def _newline(raw: str) -> str:
    crlf = raw.count("\r\n")
    counts = {"\n": raw.count("\n") - crlf, "\r\n": crlf, "\r": raw.count("\r") - crlf}
    return max(counts, key=lambda newline: counts[newline])


def _bytes(base: CaptionFile, text: str) -> bytes:
    try:
        return text.encode(base.encoding)
    except UnicodeEncodeError as err:
        raise DatasetError(
            "The caption cannot be written",
            f"{safe_text(base.path)}: character {err.start + 1} is half of a pair and stands for nothing",
            "Remove it.",
        ) from err


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
