"""Cropping pictures one after another: a box on the large picture, what it leaves, and the bucket that gives.

The picture's file stays as it is; the box is kept in the notes beside it. Going to another picture keeps what was
changed, leaving does not.
"""

from __future__ import annotations

from engine.dataset.crops import used_crop
from engine.text import safe_text
from tui.cropping import FREE, drawn, moved, resized, scaled, shaped, whole
from tui.keys.crop import CROP_KEYS
from tui.keys.key import bindings
from tui.screens.crop_view import CropView
from tui.widgets.crop_preview import CropPreview, Point
from tui.widgets.dataset_training import SHIPPED
from tui.widgets.picture_info import parts_of

LARGER = 1.06
"""What one key makes of a side."""


class CropScreen(CropView):
    """One method a key, and the mouse."""

    BINDINGS = bindings(CROP_KEYS)

    def action_move(self, right: int, down: int) -> None:
        """Move the box by steps."""
        if self.box is not None:
            size = self.row.width, self.row.height
            self.set_box(moved(self.box, size, right * self.step_px(0), down * self.step_px(1)))

    def action_size(self, wider: int, higher: int) -> None:
        """Move the right or the lower edge by steps."""
        if self.box is not None:
            size = self.row.width, self.row.height
            self.set_box(resized(self.box, size, wider * self.step_px(0), higher * self.step_px(1), self.shape))

    def action_scale(self, by: int) -> None:
        """Make the box larger or smaller about its middle."""
        if self.box is not None:
            factor = 1 + 1 / max(self.box[2:]) if self.fine else LARGER
            self.set_box(scaled(self.box, (self.row.width, self.row.height), factor**by, self.shape))

    def action_shape(self, by: int) -> None:
        """Take the next shape."""
        if self.box is not None:
            self.shape = self.shapes[(self.shapes.index(self.shape) + by) % len(self.shapes)]
            self.set_box(shaped(self.box, (self.row.width, self.row.height), self.shape))

    def action_fine(self) -> None:
        """Steps of one pixel, or large ones."""
        self.fine = not self.fine
        self.show()

    def action_mask(self) -> None:
        """Show the mask, or hide it."""
        self.masks = not self.masks
        self.show()

    def action_remove(self) -> None:
        """Take all of the picture."""
        if self.box is not None:
            self.shape = FREE
            self.set_box(whole((self.row.width, self.row.height)))

    def action_step(self, by: int) -> None:
        """Keep the box and go to another picture."""
        if self._keep() and 0 <= self.at + by < len(self.rows):
            self.at += by
            self.take()

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
            self.set_box(moved(self.box, size, round(right), round(down)))
        elif event.here != event.start:
            self.set_box(drawn(_pixels(event.start, size), _pixels(event.here, size), size, self.shape))
        if event.over:
            self._dragging = None

    _dragging: bool | None = None
    """Whether the mouse moves the box; None while no button is pressed."""

    def _keep(self) -> bool:
        """Write the crop down where it was changed; False where the picture takes no notes."""
        if not self.changed or self.box is None:
            return True
        crop = used_crop(self.box, self.row.width, self.row.height)
        if self.catalog.note(self.row, crop=crop):
            return True
        self.app.say(safe_text(SHIPPED))
        return False


def _inside(point: Point, parts: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = parts
    return left <= point[0] <= right and top <= point[1] <= bottom


def _pixels(point: Point, size: tuple[int, int]) -> tuple[int, int]:
    return round(point[0] * size[0]), round(point[1] * size[1])
