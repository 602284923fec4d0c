"""The dataset table's columns: which fit a width, and what one row says in each of them.

Pure functions; every state has a sign and a word, so that it can be told without colour. Styles are named by the
part of the component class after ``table--``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

from rich.cells import cell_len, set_cell_size

from tui.catalog_rows import UNREAD, Row
from tui.glyphs import Glyphs

CURSOR = 2
"""Cells in front of each row for the cursor's mark."""

# From the richest to the poorest: cells that a longest name may ask for before a column goes, and the columns with
# their cells. What is asked first gives way last: bucket, then size, then tokens go.
_LAYOUTS: tuple[tuple[int, dict[str, int]], ...] = (
    (22, {"size": 9, "bucket": 9, "tokens": 9, "stars": 5, "state": 10}),
    (20, {"size": 9, "tokens": 9, "stars": 5, "state": 10}),
    (16, {"size": 9, "tokens": 7, "stars": 2, "state": 9}),
    (16, {"size": 9, "tokens": 7, "stars": 2, "state": 1}),
    (13, {"tokens": 7, "stars": 2, "state": 9}),
    (12, {"tokens": 7, "stars": 2, "state": 1}),
    (10, {"stars": 2, "state": 1}),
    (0, {"state": 1}),
)
_FULL_STATE = 15
_MUCH_ENLARGED = 2.0
"""Scale from a picture to its bucket from which it is said, as `kiln dataset check` does."""
_SHORTEST_NAME = 5
_EXTRAS = {"sharp": 6, "loss": 6}
_RIGHT = frozenset({"size", "bucket", "tokens", *_EXTRAS})
_LABELS = {
    "name": "file", "size": "size", "bucket": "bucket", "tokens": "clip/t5", "stars": "stars", "state": "state",
    "sharp": "sharp", "loss": "loss",
}  # fmt: skip

# Word in the wide table, word in the narrow one; the note below the table says it in full.
_WORDS = {
    "no-caption": ("no caption", "caption"),
    "caption": ("bad caption", "caption"),
    "empty-caption": ("empty", "empty"),
    "picture": ("unreadable", "picture"),
    "bucket": ("too small", "small"),
    "exif": ("turned", "turned"),
    "transparent": ("transparent", "alpha"),
    "animated": ("animated", "frames"),
}
_BY_SEVERITY = {"error": ("error", "error"), "warning": ("warning", "warning")}


@dataclass(frozen=True)
class Column:
    """One column: what it shows, which is also what sorting by it is called, and where it lies."""

    key: str
    left: int
    width: int


@dataclass(frozen=True)
class Limits:
    """Tokens that the text encoders read."""

    clip: int = 77
    t5: int = 512


@lru_cache(maxsize=32)
def columns_for(width: int, tokens: bool = True, longest: int = 20, extra: str = "") -> tuple[Column, ...]:
    """The columns that fit ``width`` cells, from left to right.

    Args:
        width: cells of a row.
        tokens: whether there are counts to show.
        longest: cells of the longest name; what it leaves goes to the state's words, so that columns stay together.
        extra: a column more, see :func:`extra_of`.
    """
    for asked, layout in _LAYOUTS:
        fixed = {extra: _EXTRAS[extra]} if extra else {}
        fixed |= {key: cells for key, cells in layout.items() if tokens or key != "tokens"}
        room = width - CURSOR - sum(fixed.values()) - len(fixed)
        if room >= min(longest, asked):
            break
    name = max(1, min(room, max(longest, _SHORTEST_NAME)))
    if fixed["state"] > 1:
        fixed["state"] = min(_FULL_STATE, fixed["state"] + max(0, room - name))
    columns, left = [], CURSOR
    for key, cells in {"name": name, **fixed}.items():
        columns.append(Column(key, left, cells))
        left += cells + 1
    return tuple(columns)


def extra_of(sort: str) -> str:
    """The column that is there only while the table is sorted by it; empty where ``sort`` has one anyway."""
    return sort if sort in _EXTRAS else ""


def label_of(column: Column, sort: str, descending: bool, glyphs: Glyphs) -> str:
    """A column's heading, with a mark where the table is sorted by it."""
    text, mark = _LABELS[column.key], ""
    if column.key == sort:
        mark = ("v" if descending else "^") if glyphs.ascii else ("▼" if descending else "▲")
    if column.key == "stars" and column.width < len(text + mark):
        text = "*" if glyphs.ascii else "★"
    elif column.key == "tokens" and column.width < len(text + mark):
        text = "tokens"
    text = text[: column.width - len(mark)] + mark
    return _fitted(text, column)


def cell_of(row: Row, column: Column, limits: Limits, edited: int, glyphs: Glyphs) -> tuple[str, str]:
    """Text (exactly as wide as the column) and style name of one cell.

    Args:
        row: the picture.
        column: which cell.
        limits: tokens that are read; what goes over is marked, ``!`` for T5 and ``+`` for CLIP.
        edited: epoch from which an edited caption counts; 0 when it was not edited during the run.
        glyphs: the signs to draw with.
    """
    style = "dim"
    if column.key == "name":
        text, style = shortened(row.name, column.width, glyphs), "dim" if row.excluded else ""
    elif column.key == "size":
        text = _size(row.width, row.height)
    elif column.key == "bucket":
        text = _size(*(row.bucket or (0, 0)))
    elif column.key == "tokens":
        text, style = _tokens(row, column.width, limits)
    elif column.key == "sharp":
        text = f"{row.sharp} %" if row.sharp is not None else ""
    elif column.key == "loss":
        text = f"{row.loss:.3g}" if row.loss is not None else ""
    elif column.key == "stars":
        text, style = _stars(row.stars, column.width, glyphs), "star"
    else:
        text, style = _state(row, edited, column.width, glyphs, limits)
    return _fitted(text, column), style


def is_problem(row: Row, limits: Limits) -> bool:
    """Whether something is wrong with a picture: also a caption whose end T5 does not read.

    Of one that is kept out of training nothing is.
    """
    if row.excluded:
        return False
    return bool(row.severity) or (row.t5 is not None and row.t5 > limits.t5)


def shortened(name: str, width: int, glyphs: Glyphs) -> str:
    """``name`` in at most ``width`` cells: folders give way first, from their ends, then the name's middle."""
    if cell_len(name) <= width:
        return name
    mark = glyphs.ellipsis
    folders, base = os.path.split(name)
    room = width - cell_len(mark + os.sep + base)
    if folders and room >= 0:
        return set_cell_size(folders, room).rstrip() + mark + os.sep + base
    if cell_len(base) <= width:
        return base
    head = max(1, (width - len(mark)) // 3)
    tail = max(0, width - len(mark) - head)
    if base.isascii():
        return (base[:head] + mark + base[len(base) - tail :])[:width]
    return set_cell_size(base, max(1, width - len(mark))) + mark


def _size(width: int, height: int) -> str:
    return f"{width}x{height}" if width else ""


def _tokens(row: Row, width: int, limits: Limits) -> tuple[str, str]:
    if row.clip is None or row.t5 is None:
        return "", "dim"
    over = row.t5 > limits.t5
    t5 = f"{row.t5}!" if over else str(row.t5)
    # CLIP's overflow is mild: its mark is the first to go where there is no room.
    texts = (f"{row.clip}{'+' if row.clip > limits.clip else ''}/{t5}", f"{row.clip}/{t5}", t5)
    return next(text for text in texts if len(text) <= width or text is t5), ("warning" if over else "dim")


def _stars(stars: int, width: int, glyphs: Glyphs) -> str:
    sign = "*" if glyphs.ascii else "★"
    if not stars:
        return ""
    return sign * stars if width >= 5 else f"{stars}{sign}"


def _enlarged(row: Row) -> bool:
    """Whether the picture has so few pixels that its bucket blurs it."""
    if row.bucket is None or not row.width:
        return False
    return row.bucket[0] * row.bucket[1] > _MUCH_ENLARGED**2 * row.width * row.height


def _state(row: Row, edited: int, width: int, glyphs: Glyphs, limits: Limits) -> tuple[str, str]:
    texts: tuple[str, ...]
    if row.excluded:
        texts, style = (f"{glyphs.excluded} excluded", f"{glyphs.excluded} out", glyphs.excluded), "dim"
    elif row.severity:
        words = _WORDS.get(row.code, _BY_SEVERITY[row.severity])
        sign = glyphs.error if row.severity == "error" else glyphs.warning
        texts, style = (*(f"{sign} {word}" for word in words), sign), row.severity
    elif edited:
        shorter = (f"{glyphs.running} {word} {edited}" for word in ("from epoch", "epoch", "ep"))
        texts, style = (*shorter, glyphs.running), "edited"
    elif row.t5 is not None and row.t5 > limits.t5:
        texts, style = (f"{glyphs.warning} caption cut", f"{glyphs.warning} cut", glyphs.warning), "warning"
    elif _enlarged(row):
        texts, style = (f"{glyphs.warning} much enlarged", f"{glyphs.warning} small", glyphs.warning), "warning"
    elif row.picture_mark == UNREAD:
        texts, style = (glyphs.waiting,), "dim"
    elif row.regularization:
        texts, style = (f"{glyphs.done} class picture", f"{glyphs.done} class", "c"), "dim"
    else:
        texts, style = (f"{glyphs.done} ok", glyphs.done), "dim"
    signs = _signs(row, bool(edited), glyphs)
    fitting = [*(text + signs for text in texts), *texts]
    return next((text for text in fitting if cell_len(text) <= width), texts[-1]), style


def _signs(row: Row, told: bool, glyphs: Glyphs) -> str:
    """What follows the state's word where there is room: repeats of its own, and that the caption was edited."""
    repeats = f" {glyphs.times}{row.own_repeats}" if row.own_repeats is not None else ""
    return repeats + (f" {glyphs.edited}" if row.edited and not told else "")


def _fitted(text: str, column: Column) -> str:
    missing = column.width - cell_len(text)
    if missing < 0:
        return set_cell_size(text, column.width)
    return " " * missing + text if column.key in _RIGHT else text + " " * missing
