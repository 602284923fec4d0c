"""One caption on the user's desk: its text as the user has it, and what is known of its file.

Plain values and pure functions; :mod:`tui.caption_desk` is what reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.dataset.breaks import ANY_BREAK
from engine.dataset.edits import CaptionFile
from engine.dataset.past import Past
from engine.errors import DatasetError, EngineError
from tui.session import Draft

if TYPE_CHECKING:
    from tui.catalog import Row

Signature = tuple[int, int, int, int] | None


@dataclass(eq=False)
class Sheet:
    """One caption as the user has it before him."""

    row: Row
    base: CaptionFile
    """The file as last read or written: what the next write goes over."""
    text: str
    """As in the editor; every line break is a line feed."""
    clean: str
    """How the editor shows ``base``; a text that equals it is never written."""
    readable: bool = True
    """Whether there is a text to edit; else ``problem`` says why not."""
    locked: bool = False
    """It belongs to the program and is only shown."""
    problem: EngineError | None = None
    """Why the file could not be read, or the text not written."""
    theirs: CaptionFile | None = None
    """The file as others changed it while the text was edited; nothing is written until the user has chosen."""
    asked: bool = False
    """The user was asked what to do about ``theirs``."""
    writing: str | None = None
    """The text that is being written."""
    past: Past | None = None
    """Undo and redo; None until there is a text to edit."""
    cursor: tuple[int, int] = (0, 0)
    signature: Signature = field(default=None)

    @property
    def editable(self) -> bool:
        """Whether the user may type."""
        return self.readable and not self.locked

    @property
    def dirty(self) -> bool:
        """Whether the text is not in the file."""
        return self.text != self.clean

    @property
    def altered(self) -> bool:
        """Whether the file has line breaks (U+2028 and such) that become plain ones in lines that are edited."""
        return self.clean != self.base.text


def shown(text: str) -> str:
    """``text`` as the editor has it: it takes every line break that Unicode knows for a plain one."""
    return ANY_BREAK.sub("\n", text)


def draft_of(sheet: Sheet) -> Draft:
    """What the session keeps of a text that is not in its file."""
    return Draft(str(sheet.row.path), sheet.text, sheet.base.digest, *sheet.cursor)


def unreadable(sheet: Sheet, err: DatasetError) -> None:
    """The file of ``sheet`` cannot be read; what the user typed stays."""
    if sheet.problem is None or (sheet.problem.title, sheet.problem.detail) != (err.title, err.detail):
        sheet.problem = err
    if not sheet.dirty:
        sheet.text = sheet.clean = ""
        sheet.readable = False
