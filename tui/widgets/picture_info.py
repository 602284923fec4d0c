"""What becomes of a picture in training, in a line or two: size, bucket, crop, enlargement, and its problem."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.strip import Strip

from engine.config import DatasetConfig
from engine.dataset.buckets import Placement, place
from engine.errors import ConfigError, DatasetError
from engine.text import safe_text
from tui.widgets.cells import CellWidget, Run, strip_of, wrap

if TYPE_CHECKING:
    from tui.catalog import Row
    from tui.widgets.preview import Crop

ENLARGED = 1.05
"""Below this an enlargement is not worth a word."""


@dataclass(frozen=True)
class Facts:
    """What is said of a picture; ``problem`` begins with the word for its severity."""

    parts: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""
    bad: bool = False


def placement_of(row: Row, dataset: DatasetConfig | None) -> Placement | None:
    """How the picture becomes pixels; None while its size is not known, or where it fits no bucket."""
    if dataset is None or not row.width or not row.height:
        return None
    try:
        return place(row.width, row.height, dataset.resolution, dataset.buckets)
    except (ConfigError, DatasetError):
        return None


def crop_of(placement: Placement | None) -> Crop | None:
    """The part of the picture that is trained on."""
    if placement is None:
        return None
    return (
        placement.left / placement.resized_w,
        placement.top / placement.resized_h,
        (placement.left + placement.bucket_w) / placement.resized_w,
        (placement.top + placement.bucket_h) / placement.resized_h,
    )


def facts_of(row: Row, placement: Placement | None, arrow: str) -> Facts:
    """The words for one picture."""
    parts = []
    if row.width and row.height:
        size = f"{row.width}x{row.height}"
        parts.append(f"{size} {arrow} bucket {placement.bucket_w}x{placement.bucket_h}" if placement else size)
    if placement is not None:
        across = placement.resized_w - placement.bucket_w
        down = placement.resized_h - placement.bucket_h
        parts.append(f"crop {across} px across" if across else f"crop {down} px down" if down else "no crop")
        scale = placement.resized_w / row.width
        if scale > ENLARGED:
            parts.append(f"enlarged {scale:.1f} times")
    if row.format:
        parts.append(safe_text(row.format, 20))
    if row.repeats != 1:
        parts.append(f"{row.repeats} times an epoch")
    if row.regularization:
        parts.append("class picture (regularization)")
    bad = row.severity == "error"
    # A picture that cannot be read says so in its own place.
    unread = not row.width and any(problem.severity == "error" for problem in row.picture_problems)
    problem = f"{'error' if bad else 'warning'}: {safe_text(row.problem, 400)}" if row.problem and not unread else ""
    return Facts(tuple(parts), problem, safe_text(row.hint, 400), bad)


class PictureInfo(CellWidget):
    """The facts of the picture shown, as many lines as there is room for."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"info--fact", "info--warning", "info--error"}

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.facts = Facts()

    def tell(self, facts: Facts) -> None:
        """Show other facts."""
        if facts != self.facts:
            self.facts = facts
            self.refresh()

    def content_key(self) -> Hashable:
        """The facts."""
        return self.facts

    def paint(self, width: int, height: int) -> list[Strip]:
        """Facts, then what is wrong."""
        facts = self.facts
        fact = self.style_of("info--fact")
        rows: list[list[Run]] = []
        line = ""
        for part in facts.parts:
            joined = f"{line} {self.glyphs.dot} {part}" if line else part
            if line and len(joined) > width:
                rows.append([(line, fact)])
                joined = part
            line = joined
        if line:
            rows.append([(line, fact)])
        if facts.problem:
            style = self.style_of("info--error" if facts.bad else "info--warning")
            sign = self.glyphs.error if facts.bad else self.glyphs.warning
            told = f"{sign} {facts.problem}" + (f" ({facts.hint})" if facts.hint else "")
            rows += [[(text, style)] for text in wrap(told, width)]
        return [strip_of(row, width, self.rich_style) for row in rows[:height]]
