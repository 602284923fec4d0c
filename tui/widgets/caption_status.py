"""Where a caption stands, in words: for the pane's border, and a note under the text where one is due."""

from __future__ import annotations

from engine.text import safe_text
from tui.caption_sheet import Sheet
from tui.caption_template import left_open
from tui.glyphs import Glyphs
from tui.safe import neutral


def status_of(sheet: Sheet | None, glyphs: Glyphs, epoch: int = 0) -> str:
    """One or a few words; ``epoch`` is the one from which an edit counts in a live run, 0 where there is none."""
    if sheet is None:
        return ""
    if not sheet.readable:
        return f"{glyphs.error} cannot be read"
    if sheet.locked:
        return f"{glyphs.waiting} read only"
    if sheet.theirs is not None:
        return f"{glyphs.warning} not saved: changed on disk"
    if sheet.problem is not None and sheet.dirty:
        return f"{glyphs.warning} not saved: {safe_text(sheet.problem.title, 60)}"
    if sheet.dirty or sheet.writing is not None:
        return f"{glyphs.running} editing"
    if not sheet.base.digest:
        return f"{glyphs.states['new']} no caption"
    counts = f", counts from epoch {epoch}" if epoch else ""
    return f"{glyphs.done} saved{counts}"


def note_of(sheet: Sheet | None, glyphs: Glyphs, slots: frozenset[str] = frozenset()) -> str:
    """What the user should know about this text; empty when there is nothing. ``slots`` are the template's."""
    if sheet is None:
        return "Choose a picture in the dataset (1) to see it and edit its caption."
    if sheet.locked:
        return "Belongs to the demonstration, a part of lorakiln: to edit, copy the pictures to your own folder."
    if sheet.theirs is not None:
        return f"{glyphs.warning} Another program changed this caption: ctrl+s to choose which to keep."
    if sheet.problem is not None:
        problem = sheet.problem
        parts = (problem.title, problem.detail, problem.hint)
        return f"{glyphs.warning} {safe_text('. '.join(part.rstrip('.') for part in parts if part), 500)}."
    if sheet.altered:
        return f"{glyphs.warning} Holds line separators that become plain line ends where you edit."
    hidden = sum(1 for char in sheet.text if char not in "\n\t" and neutral(char) != char)
    if hidden:
        return f"{glyphs.warning} Holds {hidden} invisible or control characters; the model reads them."
    if found := left_open(sheet.text, slots):
        return f"{glyphs.warning} Not filled in: {safe_text(' '.join(found), 200)} (tab goes there)."
    return ""
