"""A picture in all its detail, of which a part is shown; the mouse drags it and its wheel zooms."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from textual.events import MouseScrollDown, MouseScrollUp
from textual.message import Message

from tui.picture_window import Size
from tui.widgets.crop_preview import CropPreview, Point
from tui.widgets.overlays import Crop, MaskShown


class LargePicture(CropPreview):
    """A preview that shows a part of its picture."""

    class Turned(Message):
        """The wheel was turned: ``by`` 1 for nearer, -1 for farther, over a point in parts of what is seen."""

        def __init__(self, by: int, at: Point) -> None:
            super().__init__()
            self.by, self.at = by, at

    @property
    def room(self) -> Size:
        """The widget's size in halves of a cell's height: as wide as high, as pictures are fitted."""
        return max(1, self.size.width), max(1, 2 * self.size.height)

    def show_part(self, path: Path, mark: Hashable, crop: Crop | None, mask: MaskShown | None, window: Crop) -> None:
        """Show ``window`` of a picture, dark outside of ``crop``."""
        picture, extra = (path, mark, crop), {"mask": mask, "window": window}
        if (picture, extra) != (self._picture, self._extra):
            self._picture, self._extra = picture, extra
            self._ask()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Nearer."""
        self._turn(1, event.x, event.y)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Farther."""
        self._turn(-1, event.x, event.y)

    def _turn(self, by: int, x: int, y: int) -> None:
        at = self.point_at(x, y)
        if at is not None:
            self.post_message(self.Turned(by, at))
