"""What the screen shows where pictures are cropped: the picture with the box on it, and what the box gives.

The base of :class:`tui.screens.crop.CropScreen`, which has the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from engine.config import BucketConfig
from engine.dataset.buckets import place
from engine.dataset.crops import used_crop
from engine.dataset.sidecar import Crop
from engine.errors import ConfigError, DatasetError
from tui.catalog import Row
from tui.cropping import FREE, Shape, shapes_for, whole
from tui.safe import safe
from tui.widgets.cells import glyphs_of
from tui.widgets.crop_preview import CropPreview
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.picture_info import ENLARGED, mask_shown, mask_words, parts_of
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

STEPS = 40
"""Large steps from one edge of a picture to the other."""

UNREAD = "The picture cannot be read, or was not yet: there is nothing to crop"


class CropView(Screen[str | None]):
    """A picture with a box on it; returns the path of the one that was shown last.

    Args:
        rows: the pictures to go through.
        at: which of them comes first.
        masks: whether masks are shown, as they were where one comes from.
    """

    app: KilnApp

    CSS_PATH = "crop.tcss"

    def __init__(self, workplace: Workplace, rows: Sequence[Row], at: int, masks: bool = False) -> None:
        super().__init__()
        self._workplace = workplace
        self.catalog = workplace.catalog
        self.rows = list(rows)
        self.at = at
        self.shape: Shape = FREE
        self.fine, self.masks = False, masks
        self.shapes: tuple[Shape, ...] = (FREE,)
        self.box: Crop | None = None
        """The box as it is drawn; None while the picture's size is not known."""

    @property
    def row(self) -> Row:
        """The picture shown."""
        return self.rows[self.at]

    @property
    def changed(self) -> bool:
        """Whether the box is another one than the crop that is kept."""
        return self.box is not None and self.kept() != self.box

    def compose(self) -> ComposeResult:
        """A head line, the picture, what the box gives, the keys."""
        yield Static(id="head")
        yield CropPreview(self._workplace.thumbnails, id="cropped")
        yield Static(id="gives")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """The first picture."""
        self.take()

    def kept(self) -> Crop:
        """The crop that is kept, or all of the picture."""
        size = self.row.width, self.row.height
        return used_crop(self.row.crop, *size) or whole(size)

    def take(self) -> None:
        """Show another picture."""
        row, dataset = self.row, self.catalog.dataset
        self.shape, self.box = FREE, None
        if row.width and dataset is not None:
            self.shapes = shapes_for((row.width, row.height), dataset.resolution, dataset.buckets)
            self.box = self.kept()
        self.show()

    def show(self) -> None:
        """Draw the box as it is now, and say what it gives."""
        row, box = self.row, self.box
        crop = parts_of(box, row.width, row.height) if box is not None else None
        mask = mask_shown(row, self.catalog.dataset) if self.masks else None
        self.query_one(CropPreview).show_picture(row.path, row.picture_mark, crop, crop, mask)
        state = " (changed)" if self.changed else ""
        head = f"Crop {self.at + 1:,}/{len(self.rows):,}  {row.name}{state}"
        self.query_one("#head", Static).update(safe(head, 300))
        dot = f" {glyphs_of(self.app).dot} "
        gives = dot.join([self._gives(), *([mask_words(mask)] if self.masks else [])])
        self.query_one("#gives", Static).update(safe(gives, 300))

    def _gives(self) -> str:
        """Size, place, bucket and enlargement of what the box leaves."""
        row, box, dataset = self.row, self.box, self.catalog.dataset
        if box is None or dataset is None:
            return UNREAD
        left, top, width, height = box
        cut = box != whole((row.width, row.height))
        what = f"{width}x{height} at {left},{top} of {row.width}x{row.height}" if cut else f"all of {width}x{height}"
        parts = [what]
        parts.append(bucket_in_words(width, height, dataset.resolution, dataset.buckets))
        parts.append(f"shape {self.shape.name}")
        parts.append(f"arrows move, with shift they size, by {self.step_px(0)} px")
        return f" {glyphs_of(self.app).dot} ".join(parts)

    def step_px(self, axis: int) -> int:
        """Pixels of one step across (0) or down (1)."""
        return 1 if self.fine else max(1, round((self.row.width, self.row.height)[axis] / STEPS))

    def set_box(self, box: Crop) -> None:
        """Draw another box."""
        self.box = box
        self.show()


def bucket_in_words(width: int, height: int, resolution: int, buckets: BucketConfig) -> str:
    """In which bucket a picture of that size is trained, how much is enlarged and cut off for it."""
    try:
        placed = place(width, height, resolution, buckets)
    except (ConfigError, DatasetError) as err:
        return err.title
    words = f"bucket {placed.bucket_w}x{placed.bucket_h}"
    scale = placed.resized_w / width
    if scale > ENLARGED:
        words += f", enlarged {scale:.1f} times"
    across, down = placed.resized_w - placed.bucket_w, placed.resized_h - placed.bucket_h
    return words + (f", {max(across, down)} px more cut off" if across or down else "")
