"""The picture and caption pane: one row of the dataset at a time, its picture, its text, and what the text costs.

Texts save themselves: shortly after the last key, and whenever the user goes on to something else. All texts are on
the :class:`~tui.caption_desk.CaptionDesk`, which outlives the pane; the pane shows one of them, asks when a file was
changed by others meanwhile, and says where things stand in its border.
"""

from __future__ import annotations

import time

from textual.events import DescendantBlur
from textual.message import Message
from textual.widgets import TextArea

from engine.text import safe_text
from tui.caption_sheet import Sheet
from tui.catalog import Row
from tui.keys.caption import CAPTION_KEYS
from tui.keys.key import bindings
from tui.screens.conflict import ConflictDialog
from tui.widgets.caption_aids import CaptionAids
from tui.widgets.caption_view import COUNT_AFTER_S
from tui.widgets.gauges import Counted

AUTOSAVE_S = 0.7
"""From the last key to the write."""
LONGEST_S = 2.0
"""Who types without a rest is saved all the same."""
LOOK_S = 1.0
"""How often the file is looked at for changes by others."""
KEEP_S = 0.4
"""How often what was typed is kept as a draft: a host that is killed costs a second of typing at most."""
RETRY_LOOKS = 5
"""After so many looks, texts that could not be written are tried again."""
POLL_S = 0.25
IDLE_S = 1.0
"""No question is asked while the user types."""


class CaptionPane(CaptionAids):
    """One row at a time, its text saved by itself."""

    BINDINGS = bindings(CAPTION_KEYS)

    class StepWanted(Message):
        """The user wants the next (1) or the previous (-1) picture and to go on typing."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    class CaptionSaved(Message):
        """The caption of ``row`` was written."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    class BackWanted(Message):
        """The user wants to go back to the dataset."""

    class Written(Message):
        """The desk's thread ended a write."""

    def on_mount(self) -> None:
        """Begin without a row."""
        self.desk.tell = lambda: self.post_message(self.Written())  # type: ignore[assignment]
        self._looks = 0
        self._typed_at = self._unsaved_since = 0.0
        self.set_interval(LOOK_S, self._look)
        self.set_interval(KEEP_S, self._keep)
        self.set_interval(POLL_S, self._poll)
        self.set_interval(POLL_S, self.learn)
        self.editor.complete = self.offered
        if self._session.reminder:
            self.remind(0)
        self.desk.current = None
        self._show_sheet()

    def on_unmount(self) -> None:
        """Nothing typed stays behind in the editor."""
        self._stow()
        self.desk.tell = None
        if self._own_desk:
            self.desk.close()
        else:
            self.desk.settle()

    def show_row(self, row: Row | None) -> None:
        """Show another row; what was typed in the former one is being written."""
        if row is self.row:
            return
        self._leave()
        self.row = row
        self.desk.current = self.desk.open(row) if row is not None else None
        self._show_sheet()
        if self.sheet is not None and self.sheet.dirty:
            self._later("save", AUTOSAVE_S, self._save)  # a draft of an earlier screen

    def _show_sheet(self) -> None:
        sheet = self.sheet
        if sheet is None:
            self.editor.load("", None, (0, 0))
            self.editor.read_only = True
        else:
            self.editor.load(sheet.text, sheet.past, sheet.cursor)
            if self.desk.look(sheet):
                self.editor.past = sheet.past
                self.editor.take(sheet.text)
        self._tell_facts()
        self._tell_status()
        known = self.row is not None and sheet is not None and sheet.readable
        counted = Counted(self.row.clip, self.row.t5) if known and self.row is not None else Counted()
        self.gauges.tell(counted, (self._catalog.clip_limit, self._catalog.t5_limit), self._catalog.tokenizer_problem)
        self._later("count", COUNT_AFTER_S, self._count)

    def _leave(self) -> None:
        """The row is left: write its text; where that cannot be, say that it is kept."""
        self._stow()
        sheet = self.sheet
        if sheet is None:
            return
        self.desk.save(sheet)
        if sheet.theirs is not None:
            self.app.notify(
                f"{safe_text(sheet.row.name, 80)} was changed by another program too: your text is kept, "
                "go back to it to choose", severity="warning",
            )  # fmt: skip

    def _stow(self) -> None:
        """Hand the editor's text to the desk: messages of changes may still be under way."""
        if self.sheet is not None:
            self.desk.edit(self.sheet, self.editor.text, self.editor.cursor_location)

    def _keep(self) -> None:
        """Have what was typed kept, whatever becomes of this process; it is not in its file yet."""
        if self.sheet is not None and self.sheet.dirty:
            self._stow()
            self.desk.keeper.keep()

    def _save(self) -> None:
        self._unsaved_since = 0.0
        self._stow()
        if self.sheet is not None:
            self.desk.save(self.sheet)
            self._tell_status()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Something was typed, undone, or loaded."""
        event.stop()
        before = self.sheet.text if self.sheet is not None else ""
        self._stow()
        if self.sheet is None or self.sheet.text == before:
            return
        self._typed_at = time.monotonic()
        self._unsaved_since = self._unsaved_since or self._typed_at
        left = self._unsaved_since + LONGEST_S - self._typed_at
        self._later("save", max(0.01, min(AUTOSAVE_S, left)), self._save)
        self._later("count", COUNT_AFTER_S, self._count)
        self._tell_status()

    def on_descendant_blur(self, event: DescendantBlur) -> None:
        """Whoever leaves the text wants it saved."""
        self._save()

    def on_caption_pane_written(self, event: Written) -> None:
        """Take up what the desk's thread has done."""
        event.stop()
        self._stow()
        if self.sheet in self.desk.take_looks() and self.sheet is not None:
            self._follow(self.sheet)
        for sheet in self.desk.collect():
            if sheet.problem is None and sheet.theirs is None:
                self.post_message(self.CaptionSaved(sheet.row))
            if sheet is self.sheet:
                self._follow(sheet)
                if sheet.dirty and sheet.problem is None:
                    self._later("save", AUTOSAVE_S, self._save)
            elif sheet.problem is not None:
                self.app.notify(
                    f"The caption of {safe_text(sheet.row.name, 80)} is not saved: "
                    f"{safe_text(sheet.problem.title, 100)}", severity="warning",
                )  # fmt: skip

    def action_step(self, by: int) -> None:
        """Go to another picture without leaving the text."""
        self._save()
        self.post_message(self.StepWanted(by))

    def action_out(self) -> None:
        """Back to the dataset."""
        self._save()
        self.post_message(self.BackWanted())

    def action_save(self) -> None:
        """Write now, or ask what to do where others changed the file."""
        self._stow()
        if self.sheet is not None and self.sheet.theirs is not None:
            self._ask(self.sheet)
        self._save()

    def _look(self) -> None:
        """See what others did to the file; try again what could not be written."""
        self._looks += 1
        self._stow()
        if self._looks % RETRY_LOOKS == 0:
            self.desk.save_all()
        if self._catalog.state == "ready":
            self._take_up_drafts()
        sheet = self.sheet
        self.desk.tend(sheet)
        if sheet is None:
            return
        if sheet.base.path != sheet.row.caption_path and not sheet.dirty and sheet.writing is None:
            self.desk.current = self.desk.open(sheet.row)  # the picture has another caption file now
            self._show_sheet()
        if sheet.theirs is not None and not sheet.asked and time.monotonic() - self._typed_at > IDLE_S:
            self._ask(sheet)

    def _take_up_drafts(self) -> None:
        """Texts of an earlier session are written, as they would have been then."""
        for path in self.desk.waiting:
            at = self._catalog.index_of(path)
            if at is not None and at < len(self._catalog.rows):
                self.desk.save(self.desk.open(self._catalog.rows[at]))

    def _follow(self, sheet: Sheet) -> None:
        """The desk's text is the newer one."""
        self.editor.past = sheet.past
        self.editor.take(sheet.text)
        self._tell_status()

    def _ask(self, sheet: Sheet) -> None:
        if self.screen is not self.app.screen or sheet.theirs is None:
            return
        sheet.asked = True
        seen = sheet.theirs

        def answered(answer: str | None) -> None:
            if sheet.theirs is None or answer not in ("mine", "theirs"):
                return
            if sheet.theirs.digest != seen.digest:
                self._ask(sheet)  # it was changed again while the question stood
                return
            if answer == "mine":
                self.desk.keep_mine(sheet)
            else:
                self.desk.take_theirs(sheet)
            if sheet is self.sheet:
                self._follow(sheet)

        theirs = seen.text if seen.digest else None
        self.app.push_screen(ConflictDialog(safe_text(seen.path.name), sheet.text, theirs), answered)
