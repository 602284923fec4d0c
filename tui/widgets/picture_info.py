"""What becomes of a picture in training, in a line or two: size, bucket, crop, enlargement, and its problem."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.strip import Strip

from engine.config import DatasetConfig
from engine.dataset.buckets import Placement, place
from engine.dataset.crops import trained_size, used_crop
from engine.dataset.masks import folder_of, mask_of
from engine.errors import ConfigError, DatasetError
from engine.text import safe_text
from tui.widgets.cells import CellWidget, Run, strip_of, wrap
from tui.widgets.overlays import MaskShown

if TYPE_CHECKING:
    from tui.catalog import Row
    from tui.widgets.overlays import Crop

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
        return place(*trained_size(row.crop, row.width, row.height), dataset.resolution, dataset.buckets)
    except (ConfigError, DatasetError):
        return None


def crop_of(row: Row, placement: Placement | None) -> Crop | None:
    """The part of the picture that is trained on: what the bucket leaves of the user's crop."""
    if placement is None:
        return None
    box = used_crop(row.crop, row.width, row.height) or (0, 0, row.width, row.height)
    left, top, width, height = box
    across, down = width / placement.resized_w, height / placement.resized_h
    return (
        (left + placement.left * across) / row.width,
        (top + placement.top * down) / row.height,
        (left + (placement.left + placement.bucket_w) * across) / row.width,
        (top + (placement.top + placement.bucket_h) * down) / row.height,
    )


def parts_of(box: tuple[int, int, int, int], width: int, height: int) -> Crop:
    """A box in pixels as parts of a picture of that size."""
    left, top, wide, high = box
    return left / width, top / height, (left + wide) / width, (top + high) / height


def mask_words(mask: MaskShown | None) -> str:
    """What is to be seen where masks are shown."""
    return "Red counts less" if mask is not None else "This picture has no mask (dataset.masks)"


def mask_shown(row: Row, dataset: DatasetConfig | None) -> MaskShown | None:
    """The picture's mask as it is drawn; None where it has none."""
    if dataset is None or not row.width:
        return None
    path = mask_of(row.path, folder_of(row.path, dataset.folders), dataset.masks)
    return None if path is None else MaskShown(path, path == row.path, (row.width, row.height))


def facts_of(row: Row, placement: Placement | None, arrow: str) -> Facts:
    """The words for one picture."""
    parts = []
    if row.width and row.height:
        size = f"{row.width}x{row.height}"
        if (box := used_crop(row.crop, row.width, row.height)) is not None:
            size += f" {arrow} {box[2]}x{box[3]} at {box[0]},{box[1]}"
        parts.append(f"{size} {arrow} bucket {placement.bucket_w}x{placement.bucket_h}" if placement else size)
    if placement is not None:
        across = placement.resized_w - placement.bucket_w
        down = placement.resized_h - placement.bucket_h
        parts.append(f"crop {across} px across" if across else f"crop {down} px down" if down else "no crop")
        scale = placement.resized_w / trained_size(row.crop, row.width, row.height)[0]
        if scale > ENLARGED:
            parts.append(f"enlarged {scale:.1f} times")
    if row.format:
        parts.append(safe_text(row.format, 20))
    if row.excluded:
        parts.append("excluded")
    elif row.seen != 1:
        parts.append(f"{row.seen} times an epoch")
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
