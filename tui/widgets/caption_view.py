"""How the picture and caption pane looks: its parts, where they lie, and what they are told of the row shown.

What becomes of the texts is :mod:`tui.widgets.caption`'s business, which builds on this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.geometry import Region
from textual.widgets import Static

from tui.aside import aside
from tui.caption_desk import CaptionDesk
from tui.caption_sheet import Sheet
from tui.caption_template import slots_of
from tui.caption_words import Words
from tui.catalog import Catalog, Row
from tui.safe import safe
from tui.session import SessionState
from tui.settings import Editing
from tui.thumbnails import Thumbnails
from tui.widgets.caption_editor import CaptionEditor, Marks
from tui.widgets.caption_status import note_of, status_of
from tui.widgets.cells import glyphs_of
from tui.widgets.gauges import Counted, Gauges
from tui.widgets.picture_info import Facts, PictureInfo, crop_of, facts_of, mask_shown, mask_words, placement_of
from tui.widgets.preview import Preview

COUNT_AFTER_S = 0.15


class CaptionView(Vertical):
    """Picture, facts, editor, note and gauges.

    Args:
        catalog: told of written captions, asked for token counts.
        session: drafts are kept here.
        thumbnails: gives the pictures.
        desk: the texts; one of the pane's own, closed with it, when None.
        editing: how the user wants to type.
        id: the widget's.
    """

    def __init__(
        self,
        catalog: Catalog,
        session: SessionState,
        thumbnails: Thumbnails,
        desk: CaptionDesk | None = None,
        editing: Editing | None = None,
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        self._titling = False
        super().__init__(id=id)
        self._catalog = catalog
        self._session = session
        self._own_desk = desk is None
        self.desk = desk or CaptionDesk(session, catalog.set_caption)
        self.row: Row | None = None
        self.preview = Preview(thumbnails, id="preview")
        self.info = PictureInfo(id="picture-info")
        self.editing = Editing() if editing is None else editing
        self.words = Words()
        """What is known of words by now."""
        self.reminder = Static(id="caption-reminder")
        self.reminder.display = False
        self.editor = CaptionEditor(id="caption-editor")
        self.editor.slots = slots_of(self.editing.template)
        self.note = Static(id="caption-note")
        self.gauges = Gauges(id="gauges")
        self._version = -1
        self.show_mask = False
        self._waits: dict[str, Any] = {}
        self._told = ("", "", "")

    @property
    def sheet(self) -> Sheet | None:
        """The caption shown."""
        return self.desk.current

    def compose(self) -> ComposeResult:
        """Picture above or beside the text."""
        yield self.preview
        with Vertical(id="caption-text"):
            yield self.info
            yield self.reminder
            yield self.editor
            yield self.note
            yield self.gauges

    def on_resize(self, event: Resize) -> None:
        """A flat pane has the picture beside the text."""
        self.set_class(event.size.width >= 56 and event.size.width > 2 * event.size.height, "-beside")

    def focus(self, scroll_visible: bool = True) -> Self:
        """Going to the pane is going to the text."""
        self.editor.focus(scroll_visible)
        return self

    def _poll(self) -> None:
        """The catalog may know more of the row by now."""
        if self._catalog.version == self._version:
            return
        self._version = self._catalog.version
        self._tell_facts()
        self._tell_status()
        if self.gauges.counted.clip is None:
            self._later("count", COUNT_AFTER_S, self._count)

    def flip_mask(self) -> str:
        """Show masks over pictures, or hide them; returns what happened, in words."""
        self.show_mask = not self.show_mask
        self._tell_facts()
        if not self.show_mask:
            return "Masks are hidden"
        return mask_words(None if self.row is None else mask_shown(self.row, self._catalog.dataset))

    def _tell_facts(self) -> None:
        row = self.row
        if row is None:
            self.preview.show_picture(None)
            self.info.tell(Facts())
            return
        placement = placement_of(row, self._catalog.dataset)
        dataset = self._catalog.dataset
        mask = mask_shown(row, dataset) if self.show_mask else None
        self.preview.show_picture(row.path, row.picture_mark, crop_of(row, placement), mask=mask)
        self.info.tell(facts_of(row, placement, glyphs_of(self.app).arrow))

    def _tell_status(self) -> None:
        sheet, glyphs = self.sheet, glyphs_of(self.app)
        self.editor.read_only = sheet is None or not sheet.editable
        epoch = self._session.edited.get(str(sheet.row.path), 0) if sheet is not None else 0
        title = f"2 Caption  {sheet.row.name}" if sheet is not None else "2 Caption"
        self.set_class(sheet is None, "-none")
        told = (title, status_of(sheet, glyphs, epoch), note_of(sheet, glyphs, self.editor.slots))
        if told != self._told:  # each of them costs a frame, the note a layout
            self._told = told
            self._titling = True
            self.border_title, self.border_subtitle = safe(told[0], 120), safe(told[1], 120)
            self._titling = False
            self.note.update(safe(told[2], 600))
            self.note.display = bool(told[2])

    def refresh(self, *regions: Region, **options: Any) -> Self:
        """A new title repaints the border, not the picture with it: that is tens of kilobytes."""
        if self._titling and not regions:
            width, height = self.outer_size
            left, top = self.content_offset  # regions count from the content
            regions = (Region(-left, -top, width, 1), Region(-left, height - 1 - top, width, 1))
        return super().refresh(*regions, **options)

    def _count(self) -> None:
        row, text = self.row, self.editor.text
        if row is not None and self.sheet is not None and self.sheet.readable:
            work: Any = partial(self._counting, row, text)  # Textual's types know no function with arguments
            self.run_worker(work, group="tokens", exclusive=True)

    async def _counting(self, row: Row, text: str) -> None:
        limits = (self._catalog.clip_limit, self._catalog.t5_limit)
        counted, misspelt = await aside(self, None, self._looked_over, row, text)
        if row is self.row and text == self.editor.text:
            self.gauges.tell(counted, limits, self._catalog.tokenizer_problem)
            self.editor.mark(Marks(counted.clip_cut, counted.t5_cut, misspelt))

    def _looked_over(self, row: Row, text: str) -> tuple[Counted, tuple[tuple[int, int], ...]]:
        """What a text costs, and its misspelt words; in a thread."""
        return Counted.of(text, self._catalog.measure(row, text)), tuple(self.words.speller.misspelt(text))

    def _later(self, name: str, after_s: float, work: Callable[[], object]) -> None:
        """Do ``work`` once nothing of that name was asked for during ``after_s``."""
        if name in self._waits:
            self._waits[name].stop()
        self._waits[name] = self.set_timer(after_s, work)
