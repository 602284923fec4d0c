"""A tagger's list of tags, read strictly, and how scores become a caption of tags."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.captioners.request import Tagging
from engine.dataset.regular import read_limited
from engine.errors import ModelFileError
from engine.text import safe_text

TAGS_NAME = "selected_tags.csv"
MAX_TAGS_BYTES = 16 * 2**20
MAX_TAGS = 200_000
LONGEST_TAG = 200

CHARACTER, RATING = 4, 9
"""Categories by their numbers in the list; every other one counts as general."""

_WORDS = re.compile(r"[^\W_]{2}")


@dataclass(frozen=True)
class TagList:
    """Names as they are written in captions, and their categories, in the order of the model's outputs."""

    names: tuple[str, ...]
    categories: tuple[int, ...]


def read_tags(path: Path) -> TagList:
    """Read a ``selected_tags.csv``: a line of headings with at least ``name`` and ``category``, then one tag a line.

    Raises:
        ModelFileError: it is no such list; the detail names the line.
        DatasetError: it cannot be read.
    """
    data = read_limited(path, MAX_TAGS_BYTES)
    if len(data) > MAX_TAGS_BYTES:
        raise _refused(path, 0, f"larger than {MAX_TAGS_BYTES // 2**20} MB")
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        return _parsed(path, lines)
    except UnicodeDecodeError as err:
        raise _refused(path, data.count(b"\n", 0, err.start) + 1, "no UTF-8") from err
    except csv.Error as err:
        raise _refused(path, lines.line_num, f"no table of values ({err})") from err


def _parsed(path: Path, lines: csv._reader) -> TagList:  # type: ignore[name-defined]
    heads: list[str] = next(lines, [])
    if "name" not in heads or "category" not in heads:
        raise _refused(path, 1, "no columns `name` and `category`")
    name_at, category_at = heads.index("name"), heads.index("category")
    names: list[str] = []
    categories: list[int] = []
    for line in lines:
        if len(line) != len(heads):
            raise _refused(path, lines.line_num, f"{len(line)} values under {len(heads)} headings")
        name, category = line[name_at], line[category_at]
        if not category.isascii() or not category.isdigit() or len(category) > 3:
            raise _refused(path, lines.line_num, f"{category[:40]!a} is no category")
        if not name.strip() or len(name) > LONGEST_TAG or safe_text(name, LONGEST_TAG * 8) != name:
            raise _refused(path, lines.line_num, f"{name[:40]!a} is no tag")
        if len(names) == MAX_TAGS:
            raise _refused(path, lines.line_num, f"more than {MAX_TAGS:,} tags")
        names.append(written(name))
        categories.append(int(category))
    if not names:
        raise _refused(path, 2, "no tags")
    return TagList(tuple(names), tuple(categories))


def written(tag: str) -> str:
    """A tag as captions have it: with spaces for underscores, but for faces such as ``^_^`` and ``0_0``."""
    tag = tag.strip()
    return tag.replace("_", " ") if _WORDS.search(tag) else tag


def chosen_tags(tags: TagList, scores: Sequence[float], how: Tagging) -> str:
    """The caption that one picture's scores make: the rating where it is wanted, characters, then general tags, each
    kind from the surest on. A score that is no number counts as none."""
    barred = {written(tag).lower() for tag in how.blacklist}
    rating: tuple[float, str] = (0.0, "")
    found: list[tuple[bool, float, str]] = []
    for name, category, score in zip(tags.names, tags.categories, scores, strict=True):
        if name.lower() in barred:
            continue
        if category == RATING:
            rating = max(rating, (score, name)) if score == score else rating
        elif category == CHARACTER and how.characters and score >= how.character:
            found.append((False, -score, name))
        elif category not in (CHARACTER, RATING) and score >= how.general:
            found.append((True, -score, name))
    first = [f"rating: {rating[1]}"] if how.rating and rating[1] else []
    return ", ".join([*first, *(name for _, _, name in sorted(found))])


def _refused(path: Path, line: int, what: str) -> ModelFileError:
    where = f"{safe_text(path, 400)}, line {line}" if line else safe_text(path, 400)
    return ModelFileError(
        "The tagger's list of tags cannot be used", f"{where}: {what}", f"Get {TAGS_NAME} anew, with the model."
    )
