"""Cropping pictures one after another: a box on the large picture, what it leaves, and the bucket that gives.

The picture's file stays as it is; the box is kept in the notes beside it. Going to another picture keeps what was
changed, leaving does not.
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
from engine.text import safe_text
from tui.catalog import Row
from tui.cropping import FREE, Shape, drawn, moved, resized, scaled, shaped, shapes_for, whole
from tui.keys.crop import CROP_KEYS
from tui.keys.key import bindings
from tui.safe import safe
from tui.widgets.cells import glyphs_of
from tui.widgets.crop_preview import CropPreview, Point
from tui.widgets.dataset_training import SHIPPED
from tui.widgets.keyline import KeyLine
from tui.widgets.notice import Notice
from tui.widgets.picture_info import ENLARGED, mask_shown, parts_of
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

STEPS = 40
"""Large steps from one edge of a picture to the other."""

LARGER = 1.06
UNREAD = "The picture cannot be read, or was not yet: there is nothing to crop"


class CropScreen(Screen[str | None]):
    """Returns the path of the picture that was shown last.

    Args:
        rows: the pictures to go through.
        at: which of them comes first.
    """

    app: KilnApp

    CSS_PATH = "crop.tcss"
    BINDINGS = bindings(CROP_KEYS)

    def __init__(self, workplace: Workplace, rows: Sequence[Row], at: int) -> None:
        super().__init__()
        self._workplace = workplace
        self._catalog = workplace.catalog
        self._rows = list(rows)
        self._at = at
        self._shape: Shape = FREE
        self._fine = self._masks = False
        self._shapes: tuple[Shape, ...] = (FREE,)
        self.box: Crop | None = None
        """The box as it is drawn; None while the picture's size is not known."""

    @property
    def row(self) -> Row:
        """The picture shown."""
        return self._rows[self._at]

    @property
    def changed(self) -> bool:
        """Whether the box is another one than the crop that is kept."""
        return self.box is not None and self._kept() != self.box

    def compose(self) -> ComposeResult:
        """A head line, the picture, what the box gives, the keys."""
        yield Static(id="head")
        yield CropPreview(self._workplace.thumbnails, id="cropped")
        yield Static(id="gives")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """The first picture."""
        self._take()

    def _kept(self) -> Crop:
        size = self.row.width, self.row.height
        return used_crop(self.row.crop, *size) or whole(size)

    def _take(self) -> None:
        """Show another picture."""
        row, dataset = self.row, self._catalog.dataset
        self._shape, self.box = FREE, None
        if row.width and dataset is not None:
            self._shapes = shapes_for((row.width, row.height), dataset.resolution, dataset.buckets)
            self.box = self._kept()
        self._show()

    def _show(self) -> None:
        row, box = self.row, self.box
        crop = parts_of(box, row.width, row.height) if box is not None else None
        mask = mask_shown(row, self._catalog.dataset) if self._masks else None
        self.query_one(CropPreview).show_picture(row.path, row.picture_mark, crop, crop, mask)
        state = " (changed)" if self.changed else ""
        place_ = f"{self._at + 1:,}/{len(self._rows):,}"
        self.query_one("#head", Static).update(safe(f"Crop {place_}  {row.name}{state}", 300))
        self.query_one("#gives", Static).update(safe(self._gives(), 300))

    def _gives(self) -> str:
        """Size, place, bucket and enlargement of what the box leaves."""
        row, box, dataset = self.row, self.box, self._catalog.dataset
        if box is None or dataset is None:
            return UNREAD
        left, top, width, height = box
        cut = box != whole((row.width, row.height))
        parts = [
            f"{width}x{height} at {left},{top} of {row.width}x{row.height}" if cut else f"all of {width}x{height}"
        ]
        parts.append(bucket_in_words(width, height, dataset.resolution, dataset.buckets))
        parts.append(f"shape {self._shape.name}")
        parts.append(f"steps of {self._step(0)} px")
        return f" {glyphs_of(self.app).dot} ".join(parts)

    def _step(self, axis: int) -> int:
        """Pixels of one step across (0) or down (1)."""
        return 1 if self._fine else max(1, round((self.row.width, self.row.height)[axis] / STEPS))

    def _set(self, box: Crop) -> None:
        self.box = box
        self._show()

    def action_move(self, right: int, down: int) -> None:
        """Move the box by steps."""
        if self.box is not None:
            size = self.row.width, self.row.height
            self._set(moved(self.box, size, right * self._step(0), down * self._step(1)))

    def action_size(self, wider: int, higher: int) -> None:
        """Move the right or the lower edge by steps."""
        if self.box is not None:
            size = self.row.width, self.row.height
            self._set(resized(self.box, size, wider * self._step(0), higher * self._step(1), self._shape))

    def action_scale(self, by: int) -> None:
        """Make the box larger or smaller about its middle."""
        if self.box is not None:
            factor = 1 + 1 / max(self.box[2:]) if self._fine else LARGER
            self._set(scaled(self.box, (self.row.width, self.row.height), factor**by, self._shape))

    def action_shape(self, by: int) -> None:
        """Take the next shape."""
        if self.box is not None:
            self._shape = self._shapes[(self._shapes.index(self._shape) + by) % len(self._shapes)]
            self._set(shaped(self.box, (self.row.width, self.row.height), self._shape))

    def action_fine(self) -> None:
        """Steps of one pixel, or large ones."""
        self._fine = not self._fine
        self._show()

    def action_mask(self) -> None:
        """Show the mask, or hide it."""
        self._masks = not self._masks
        self._show()

    def action_remove(self) -> None:
        """Take all of the picture."""
        if self.box is not None:
            self._shape = FREE
            self._set(whole((self.row.width, self.row.height)))

    def action_step(self, by: int) -> None:
        """Keep the box and go to another picture."""
        if self._keep() and 0 <= self._at + by < len(self._rows):
            self._at += by
            self._take()

    def action_keep(self) -> None:
        """Keep the box and go back."""
        if self._keep():
            self.dismiss(str(self.row.path))

    def action_leave(self) -> None:
        """Go back; the picture's crop is as it was."""
        self.dismiss(str(self.row.path))

    def on_crop_preview_dragged(self, event: CropPreview.Dragged) -> None:
        """In the box the mouse moves it; from outside it draws another one."""
        event.stop()
        if self.box is None:
            return
        size = self.row.width, self.row.height
        if self._dragging is None:
            self._dragging = _inside(event.start, parts_of(self.box, *size)) and self.box != whole(size)
        if self._dragging:
            right, down = ((event.here[axis] - event.last[axis]) * size[axis] for axis in (0, 1))
            self._set(moved(self.box, size, round(right), round(down)))
        elif event.here != event.start:
            self._set(drawn(_pixels(event.start, size), _pixels(event.here, size), size, self._shape))
        if event.over:
            self._dragging = None

    _dragging: bool | None = None
    """Whether the mouse moves the box; None while no button is pressed."""

    def _keep(self) -> bool:
        """Write the crop down where it was changed; False where the picture takes no notes."""
        if not self.changed or self.box is None:
            return True
        crop = used_crop(self.box, self.row.width, self.row.height)
        if self._catalog.note(self.row, crop=crop):
            return True
        self.app.say(safe_text(SHIPPED))
        return False


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


def _inside(point: Point, parts: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = parts
    return left <= point[0] <= right and top <= point[1] <= bottom


def _pixels(point: Point, size: tuple[int, int]) -> tuple[int, int]:
    return round(point[0] * size[0]), round(point[1] * size[1])
