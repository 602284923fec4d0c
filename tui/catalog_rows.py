"""One row of the dataset: what is known of a picture and its caption, and how rows are found and put in order.

Plain values and pure functions, apart from :func:`read_caption_of`, which reads one file. Rows are made and filled
by :mod:`tui.catalog_load`, and shown by :mod:`tui.widgets.dataset`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from engine.config import DatasetConfig
from engine.dataset.buckets import place
from engine.dataset.decoder import ImageInfo
from engine.dataset.edits import caption_path
from engine.dataset.pairs import Pair
from engine.dataset.problems import Problem, from_error
from engine.dataset.query import Query, haystack
from engine.dataset.scan import caption_of, picture_warnings
from engine.dataset.sidecar import PictureNotes
from engine.errors import DatasetError
from engine.text import safe_text

Mark = tuple[int, int] | None
"""A file's time of change (ns) and size; None where there is no file."""

UNREAD: Mark = (-1, -1)

SORTS = ("name", "size", "bucket", "tokens", "stars", "state", "sharp", "loss")


@dataclass(eq=False)
class Row:
    """One picture. Mutable and owned by the catalog; it stays the same object while its file stays."""

    path: Path
    name: str
    """Place below the folder, safe to show; the folder's own name goes in front where there are several."""
    caption_path: Path
    """The caption's file, or where a new one would be written."""
    caption: str | None = None
    """As the trainer reads it; None where there is no file, or one that cannot be read (then ``problem`` says so)."""
    width: int = 0
    """Pixels after the EXIF rotation; 0 until the header was read."""
    height: int = 0
    bucket: tuple[int, int] | None = None
    clip: int | None = None
    """CLIP tokens of the text trained on; None until counted."""
    t5: int | None = None
    stars: int = 0
    excluded: bool = False
    """The user keeps it out of training."""
    own_repeats: int | None = None
    """The user's repeats for this picture alone; None where the folder's count."""
    crop: tuple[int, int, int, int] | None = None
    """The user's crop: left, top, width, height in pixels of the turned picture."""
    sharp: int | None = None
    """How sharp it is among the dataset's pictures: a percentile, 0 the most blurred; None until looked at."""
    twin: int = 0
    """Which group of near duplicates it belongs to, counted from 1; 0 where it has none."""
    edited: bool = False
    """Its caption was changed in this workstation since the dataset was opened."""
    loss: float | None = None
    """Its loss at fixed noise as measured last; None where it was not."""
    marked: bool = False
    """The user marked it, to do something to several at once; as long as the dataset is open."""
    problem: str = ""
    """What is wrong with it, safe to show; empty when nothing is."""
    severity: str = ""
    """``error`` (not trained on), ``warning`` or empty."""
    haystack: str = ""
    """Name and caption as the filter searches them."""

    hint: str = ""
    """What to do about the problem."""
    code: str = ""
    """The problem's code, see :mod:`engine.dataset.problems`."""
    format: str = ""
    """What the picture's header says: JPEG, PNG ..."""
    repeats: int = 1
    regularization: bool = False
    caption_listed: bool = False
    """The folder's walk found the caption: where it is a link, it leads nowhere outside."""
    caption_mark: Mark = UNREAD
    picture_mark: Mark = UNREAD
    counted: str | None = None
    """The text that ``clip`` and ``t5`` are of."""
    caption_problems: Sequence[Problem] = ()
    picture_problems: Sequence[Problem] = ()

    @property
    def notes(self) -> PictureNotes:
        """What the folder's sidecar file says about the picture, or is about to say."""
        return PictureNotes(
            stars=self.stars or None, exclude=self.excluded or None, repeats=self.own_repeats, crop=self.crop
        )

    def take_notes(self, notes: PictureNotes) -> None:
        """Show what the folder's sidecar file says about the picture."""
        self.stars, self.excluded = notes.stars or 0, bool(notes.exclude)
        self.own_repeats, self.crop = notes.repeats, notes.crop

    def judge(self) -> None:
        """Put problem, severity, code and hint together from what is wrong with picture and caption."""
        found = [*self.picture_problems, *self.caption_problems]
        found.sort(key=lambda problem: problem.severity != "error")
        worst = found[0] if found else None
        self.problem = "; ".join(problem.message for problem in found)
        self.severity = worst.severity if worst else ""
        self.hint, self.code = (worst.hint, worst.code) if worst else ("", "")


def mark_of(path: Path) -> Mark:
    """When ``path`` was changed last, and how long it is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def prefixes_of(folders: Sequence[Path]) -> dict[Path, str]:
    """What to put before the names of each folder's pictures: as much of its end as tells it from the others.

    Empty for a folder that is alone: nothing has to be told apart.
    """
    parts = {folder: Path(os.path.abspath(folder)).parts for folder in folders}
    if len(set(parts.values())) < 2:
        return dict.fromkeys(folders, "")
    prefixes = {}
    for folder, own in parts.items():
        others = {other for other in parts.values() if other != own}
        needed = next((n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)), len(own))
        prefixes[folder] = safe_text(os.path.join(*own[-needed:], ""), 120)
    return prefixes


def row_of(pair: Pair, dataset: DatasetConfig, known: Row | None = None, prefix: str = "") -> Row:
    """A row for ``pair``; the known one where there is one, so that whoever shows it goes on showing it."""
    text = pair.caption or caption_path(pair.path, dataset.captions.extensions)
    name = prefix + pair.name
    row = known or Row(pair.path, name, text, haystack=haystack(name, ""))
    if row.caption_path != text:
        row.caption_path, row.caption_mark = text, UNREAD
    row.caption_listed = pair.caption is not None
    row.repeats, row.regularization = pair.repeats, pair.regularization
    return row


def read_caption_of(row: Row, dataset: DatasetConfig) -> bool:
    """Read the caption's file if it is not as it was read last; returns whether it was."""
    followed = row.caption_listed or not os.path.islink(row.caption_path)
    mark = mark_of(row.caption_path) if followed else None
    if mark == row.caption_mark:
        return False
    problems: list[Problem] = []
    pair = Pair(row.path, row.caption_path if mark else None, row.name, row.repeats, row.regularization)
    text = caption_of(pair, dataset, problems)
    row.caption = text if mark else None
    row.caption_problems = problems
    row.haystack = haystack(row.name, row.caption or "")
    row.caption_mark = mark
    row.judge()
    return True


def take_info(row: Row, outcome: ImageInfo | DatasetError, dataset: DatasetConfig) -> None:
    """Take what the picture's header says; a bucket it cannot have is a problem of the picture.

    Raises:
        ConfigError: the bucket settings allow no bucket.
    """
    row.bucket = None
    if isinstance(outcome, DatasetError):
        row.width = row.height = 0
        row.picture_problems = [from_error(row.path, "picture", outcome)]
    else:
        row.width, row.height, row.format = outcome.width, outcome.height, outcome.format
        row.picture_problems = picture_warnings(row.path, outcome)
        try:
            placed = place(row.width, row.height, dataset.resolution, dataset.buckets)
            row.bucket = placed.bucket_w, placed.bucket_h
        except DatasetError as err:
            row.picture_problems = [*row.picture_problems, from_error(row.path, "bucket", err)]
    row.judge()


def matching(rows: Sequence[Row], query: Query, sort: str = "name", descending: bool = False) -> list[Row]:
    """Those of ``rows`` that ``query`` finds, in the order asked for; what is not known yet comes last."""
    found = list(rows) if query.everything else list(filter(query.matches, rows))
    if sort == "name":
        return found[::-1] if descending else found
    value = _VALUES[sort]
    values = [(value(row), row) for row in found]
    known = [pair for pair in values if pair[0] is not None]
    known.sort(key=_first, reverse=descending)
    return [row for _, row in known] + [row for value, row in values if value is None]


_first = itemgetter(0)


def _tokens(row: Row) -> Any:
    return None if row.t5 is None or row.clip is None else (row.t5, row.clip)


_SEVERITIES = {"error": 0, "warning": 1, "": 2}

_VALUES: dict[str, Callable[[Row], Any]] = {
    "size": lambda row: row.width * row.height or None,
    "bucket": lambda row: row.bucket,
    "tokens": _tokens,
    "stars": lambda row: row.stars,
    "sharp": lambda row: row.sharp,
    "loss": lambda row: row.loss,
    "state": lambda row: (_SEVERITIES[row.severity], row.code),
}
