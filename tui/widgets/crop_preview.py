"""The picture being cropped, and the mouse on it: where it was pressed, dragged and let go, in parts of it."""

from __future__ import annotations

from textual.events import MouseDown, MouseMove, MouseUp
from textual.message import Message

from tui.widgets.preview import Preview

Point = tuple[float, float]


class CropPreview(Preview):
    """A preview on which boxes can be drawn."""

    class Dragged(Message):
        """The mouse went from ``start`` over ``last`` to ``here``; ``over`` when the button was let go."""

        def __init__(self, start: Point, last: Point, here: Point, over: bool) -> None:
            super().__init__()
            self.start, self.last, self.here, self.over = start, last, here, over

    _start: Point | None = None
    _last: Point = (0.0, 0.0)

    def point_at(self, x: int, y: int) -> Point | None:
        """The point of the picture under a cell of this widget; outside of the picture the nearest in it."""
        if self._drawn is None or not self._drawn.cells.lines:
            return None
        columns, rows = self._drawn.cells.columns, self._drawn.cells.rows
        left, above = (self.size.width - columns) // 2, max(0, (self.size.height - rows) // 2)
        across, down = (x - left + 0.5) / columns, (y - above + 0.5) / rows
        return max(0.0, min(across, 1.0)), max(0.0, min(down, 1.0))

    def on_mouse_down(self, event: MouseDown) -> None:
        """Begin."""
        self._start = self.point_at(event.x, event.y)
        if self._start is not None:
            self._last = self._start
            self.capture_mouse()

    def on_mouse_move(self, event: MouseMove) -> None:
        """Go on."""
        self._tell(event.x, event.y, over=False)

    def on_mouse_up(self, event: MouseUp) -> None:
        """End."""
        self._tell(event.x, event.y, over=True)
        self._start = None
        self.release_mouse()

    def _tell(self, x: int, y: int, over: bool) -> None:
        here = self.point_at(x, y)
        if self._start is None or here is None or (here == self._last and not over):
            return
        self.post_message(self.Dragged(self._start, self._last, here, over))
        self._last = here
