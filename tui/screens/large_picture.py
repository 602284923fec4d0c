"""One picture on the whole screen, zoomed and moved by keys and mouse, and from it to the next.

Up to 2,048 pixels a side are decoded for it, in the thumbnails' threads; what is drawn is the part in sight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from tui.catalog import Row
from tui.keys.key import bindings
from tui.keys.large import LARGE_KEYS
from tui.listing import Listing
from tui.picture_window import PAN, Look, Size, moved, part_of, zoomed
from tui.safe import safe
from tui.widgets.cells import glyphs_of
from tui.widgets.crop_preview import CropPreview
from tui.widgets.keyline import KeyLine
from tui.widgets.large_picture import LargePicture
from tui.widgets.notice import Notice
from tui.widgets.picture_info import crop_of, facts_of, mask_shown, mask_words, placement_of
from tui.workplace import Workplace

if TYPE_CHECKING:
    from tui.app import KilnApp

POLL_S = 0.3
"""How often it is looked whether the catalog knows more of the picture."""


class LargePictureScreen(Screen[str | None]):
    """Returns the path of the picture that was shown last.

    Args:
        listing: the pictures to go through; marks go into it.
        at: which of them comes first.
        masks: whether masks are shown, as they were where one comes from.
    """

    app: KilnApp

    CSS_PATH = "large_picture.tcss"
    BINDINGS = bindings(LARGE_KEYS)

    def __init__(self, workplace: Workplace, listing: Listing, at: int, masks: bool = False) -> None:
        super().__init__()
        self._workplace = workplace
        self._listing = listing
        self._rows = list(listing.rows)
        self._at = at
        self._dark, self.masks = True, masks
        self.look = Look()

    @property
    def row(self) -> Row:
        """The picture shown."""
        return self._rows[self._at]

    @property
    def _sizes(self) -> tuple[Size, Size]:
        """Of the picture, and of the room for it; a square while the picture's is not known."""
        size = (self.row.width or 1, self.row.height or 1)
        return size, self.query_one(LargePicture).room

    def compose(self) -> ComposeResult:
        """A head line, the picture, what becomes of it, the keys."""
        yield Static(id="head")
        yield LargePicture(self._workplace.thumbnails, id="large")
        yield Static(id="facts")
        yield Notice()
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the picture once it is known how much room there is."""
        self.call_after_refresh(self._show)
        self.set_interval(POLL_S, self._show)

    def on_unmount(self) -> None:
        """Its pictures take much memory."""
        self._workplace.thumbnails.forget_large()

    def on_resize(self) -> None:
        """Another shape shows another part."""
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        row, dataset = self.row, self._workplace.catalog.dataset
        placement, glyphs = placement_of(row, dataset), glyphs_of(self.app)
        mask = mask_shown(row, dataset) if self.masks else None
        self.query_one(LargePicture).show_part(
            row.path,
            row.picture_mark,
            crop_of(row, placement) if self._dark else None,
            mask,
            part_of(self.look, *self._sizes),
        )
        place = f"{self._at + 1:,}/{len(self._rows):,}"
        marked = f" {glyphs.marked} marked" if row.marked else ""
        zoom = f"  {self.look.zoom:g} {glyphs.times}" if self.look.zoom > 1 else ""
        facts = facts_of(row, placement, glyphs.arrow)
        self.query_one("#head", Static).update(safe(f"{place}  {row.name}{marked}{zoom}", 300))
        told = [*facts.parts, f"{row.stars} stars" if row.stars else "", facts.problem]
        told += [mask_words(mask)] if self.masks else []
        self.query_one("#facts", Static).update(safe(f" {glyphs.dot} ".join(filter(None, told)), 400))

    def action_zoom(self, by: int) -> None:
        """Nearer or farther."""
        self._go(zoomed(self.look, *self._sizes, by))

    def action_whole(self) -> None:
        """The whole picture."""
        self._go(Look())

    def action_pan(self, right: int, down: int) -> None:
        """Look at another part."""
        self._go(moved(self.look, *self._sizes, right * PAN, down * PAN))

    def action_step(self, by: int) -> None:
        """Another picture, all of it."""
        if 0 <= self._at + by < len(self._rows):
            self._at += by
            self._go(Look())

    def action_mark(self) -> None:
        """Mark the picture, or unmark it."""
        self._listing.mark_row(self.row)
        self._show()

    def action_crop(self) -> None:
        """Darken what training cuts off, or not."""
        self._dark = not self._dark
        self._show()

    def action_mask(self) -> None:
        """Show the mask, or hide it."""
        self.masks = not self.masks
        self._show()

    def action_back(self) -> None:
        """Back to the dataset."""
        self.dismiss(str(self.row.path))

    def on_large_picture_turned(self, event: LargePicture.Turned) -> None:
        """The wheel zooms."""
        event.stop()
        self._go(zoomed(self.look, *self._sizes, event.by, event.at))

    def on_crop_preview_dragged(self, event: CropPreview.Dragged) -> None:
        """The mouse takes the picture along."""
        event.stop()
        right, down = (event.last[axis] - event.here[axis] for axis in (0, 1))
        self._go(moved(self.look, *self._sizes, right, down))

    def _go(self, look: Look) -> None:
        self.look = look
        self._show()
