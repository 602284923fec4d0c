"""The captions on the user's desk: texts being edited, and how they get to their files without anything being lost.

Comes in: what the user types, and what others do to the files. Goes out: files, each written only over what it was
read from, in a thread of its own; and drafts in the session for all that is not in its file. The desk belongs to
the host: texts, conflicts and the editor's undo history are there when another screen comes. Everything but the
writing itself happens in the screen's thread.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from engine.dataset.breaks import breaks_kept
from engine.dataset.edits import CaptionChanged, CaptionFile, open_caption, write_caption
from engine.errors import DatasetError, DiskError, EngineError
from engine.text import safe_text
from tui.caption_past import PastShelf
from tui.caption_sheet import Sheet, Signature, draft_of, shown, unreadable
from tui.places import is_shipped
from tui.session import Draft, Keeper, SessionState

if TYPE_CHECKING:
    from tui.catalog import Row

KEPT_SHEETS = 100
"""Captions without unsaved text that stay on the desk; of the others the disk has the past."""

UNASKED = "unasked"
"""In place of a file's digest: a draft from elsewhere is in conflict with whatever the file holds."""

Seen = tuple[Signature, CaptionFile | DatasetError]


class CaptionDesk:
    """All sheets, and the thread that writes them.

    Args:
        session: drafts are kept here.
        saved: told of every caption written, with its text, in the screen's thread.
        keep: writes a packed session, in the writing thread: drafts must outlive a host that is killed.
        own: drafts of an earlier session are written without a question only below this folder; everywhere if None.
        pasts: where the steps to undo are kept over restarts; nowhere when None.
    """

    def __init__(
        self,
        session: SessionState,
        saved: Callable[[Row, str], None] | None = None,
        keep: Callable[[dict[str, Any]], None] | None = None,
        own: Path | None = None,
        pasts: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._session = session
        self._saved = saved
        self._own = own
        self._looking: Future[None] | None = None
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()
        self._waiting = dict(session.drafts)
        if session.draft.path:
            self._waiting[session.draft.path] = session.draft
        self._done: SimpleQueue[tuple[Sheet, str, CaptionFile | EngineError]] = SimpleQueue()
        self._seen: SimpleQueue[tuple[Sheet, Seen]] = SimpleQueue()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="captions")
        self._writes: list[Future[None]] = []
        self.keeper = Keeper(session, keep, self._pool)
        """Has the writing thread write new drafts down."""
        self._pasts = PastShelf(pasts, self._pool)
        self.current: Sheet | None = None
        self.tell: Callable[[], None] | None = None
        """Called in the writing thread after every write: time for :meth:`collect`."""

    @property
    def unsaved(self) -> list[Sheet]:
        """Every sheet whose text is not in its file."""
        return [sheet for sheet in self._sheets.values() if sheet.dirty]

    @property
    def waiting(self) -> list[str]:
        """Pictures with a draft of an earlier session that was not taken up yet."""
        return list(self._waiting)

    def open(self, row: Row) -> Sheet:
        """The sheet of ``row``: the one on the desk, or a new one from its file and its draft."""
        key = str(row.path)
        sheet = self._sheets.get(key)
        if sheet is not None and sheet.base.path != row.caption_path and not sheet.dirty and not sheet.writing:
            sheet = None  # its caption is another file now
        if sheet is None:
            sheet = self._sheets[key] = self._new(row)
        sheet.row = row
        sheet.asked = False
        self._sheets.move_to_end(key)
        _forget_old(self._sheets, self.current)
        return sheet

    def edit(self, sheet: Sheet, text: str, cursor: tuple[int, int] = (0, 0)) -> None:
        """Take what the editor holds."""
        if not sheet.editable:
            return
        sheet.text, sheet.cursor = text, cursor
        if sheet.past is not None:
            sheet.past.take(text)
        if sheet.theirs is not None and text == shown(sheet.theirs.text):
            self.take_theirs(sheet)
        self._remember()

    def save(self, sheet: Sheet) -> None:
        """Begin to write a sheet's text, if there is something to write and nothing speaks against it."""
        self._pasts.keep(sheet.past, sheet.base.path)
        if sheet.dirty and sheet.writing is None and sheet.theirs is None and sheet.editable:
            sheet.writing = sheet.text

            def work(base: CaptionFile = sheet.base, text: str = sheet.text) -> None:
                self._done.put((sheet, text, written(base, text)))
                if self.tell is not None:
                    self.tell()

            write = self._pool.submit(work)
            self._writes = [*(former for former in self._writes if not former.done()), write]

    def save_all(self) -> None:
        """Begin to write whatever can be written."""
        for sheet in self.unsaved:
            self.save(sheet)

    def collect(self) -> list[Sheet]:
        """Take up the writes that ended since the last call; returns their sheets."""
        ended = []
        while True:
            try:
                sheet, text, outcome = self._done.get_nowait()
            except Empty:
                break
            sheet.writing = None
            ended.append(sheet)
            if isinstance(outcome, CaptionFile):
                sheet.base, sheet.clean = outcome, text
                sheet.problem, sheet.signature = None, None
                if self._saved is not None:
                    self._saved(sheet.row, text)
            elif isinstance(outcome, CaptionChanged):
                self._changed(sheet, outcome.now)
            else:
                sheet.problem = outcome
        if ended:
            self._remember()
            self.keeper.keep()
        return ended

    def tend(self, sheet: Sheet | None) -> None:
        """Once in a while: have the writing thread keep new drafts, and look at the file of ``sheet``.

        A disk that hangs must not hang the screen; :meth:`take_looks` has what was seen.
        """
        self.keeper.keep()
        if sheet is None or sheet.writing is not None or (self._looking is not None and not self._looking.done()):
            return

        def look(path: Path = sheet.base.path, known: Signature = sheet.signature) -> None:
            if (seen := seen_at(path, known)) is not None:
                self._seen.put((sheet, seen))
                if self.tell is not None:
                    self.tell()

        self._looking = self._pool.submit(look)

    def take_looks(self) -> list[Sheet]:
        """Take up what was seen since the last call; returns the sheets that are others now."""
        changed: list[Sheet] = []
        while True:
            try:
                sheet, seen = self._seen.get_nowait()
            except Empty:
                return changed
            if sheet.writing is None and self._take_seen(sheet, seen):
                changed.append(sheet)

    def look(self, sheet: Sheet) -> bool:
        """See whether others changed the file: an unedited text follows it, an edited one is in conflict with it.

        Returns:
            Whether the sheet is another one now.
        """
        if sheet.writing is not None:
            return False
        seen = seen_at(sheet.base.path, sheet.signature)
        return seen is not None and self._take_seen(sheet, seen)

    def _take_seen(self, sheet: Sheet, seen: Seen) -> bool:
        signature, now = seen
        before = (sheet.text, sheet.theirs, sheet.readable, sheet.problem)
        if isinstance(now, DatasetError):
            unreadable(sheet, now)
        elif now.path == sheet.base.path:
            sheet.signature = signature
            if now.digest != sheet.base.digest or not sheet.readable:
                self._changed(sheet, now)
            else:
                # What a draft was begun on is known by its digest alone until the file is read.
                sheet.base, sheet.clean, sheet.theirs = now, shown(now.text), None
        self._remember()
        return before != (sheet.text, sheet.theirs, sheet.readable, sheet.problem)

    def keep_mine(self, sheet: Sheet) -> None:
        """Write the user's text over what others wrote (and only over that)."""
        if sheet.theirs is not None:
            sheet.base, sheet.clean, sheet.theirs = sheet.theirs, shown(sheet.theirs.text), None
            sheet.problem = None
            self.save(sheet)
            self._remember()

    def take_theirs(self, sheet: Sheet) -> None:
        """Give up the user's text for the file's."""
        if sheet.theirs is not None:
            self._adopt(sheet, sheet.theirs)
            self._remember()

    def settle(self, timeout_s: float = 2.0) -> list[Sheet]:
        """Write all that can be written and wait for it; what could not be stays a draft. For leaving the screen."""
        ended = []
        # Twice: a text may have gone on while its former state was being written.
        for _ in range(2):
            self.save_all()
            wait([*self._writes, *self.keeper.writes, *self._pasts.writes], timeout_s / 2)
            ended += self.collect()
        return ended

    def close(self) -> None:
        """Settle, and end the writing thread."""
        self.settle()
        self._pool.shutdown(wait=False)

    def _new(self, row: Row) -> Sheet:
        path = row.caption_path
        draft = self._waiting.pop(str(row.path), None)
        signature = _signature(path)
        try:
            base = open_caption(path)
        except DatasetError as err:
            sheet = Sheet(row, CaptionFile(path, "", ""), "", "", readable=False, problem=err)
            if draft is not None:
                sheet.text, sheet.base = draft.text, CaptionFile(path, "", draft.base)
                sheet.readable = sheet.dirty
            return sheet
        sheet = Sheet(row, base, shown(base.text), shown(base.text), signature=signature)
        sheet.locked = is_shipped(path)
        if draft is not None and not sheet.locked and draft.text != sheet.text:
            sheet.text, sheet.cursor = draft.text, (draft.row, draft.column)
            if base.digest != draft.base or not _is_below(path, self._own):
                # Still begun on what it was begun on: should the session end here, it is in conflict again.
                known = draft.base if base.digest != draft.base else UNASKED
                sheet.theirs, sheet.base = base, CaptionFile(path, "", known)
        if not sheet.locked:
            sheet.past = self._pasts.of(path, sheet.text, sheet.clean)
        return sheet

    def _changed(self, sheet: Sheet, now: CaptionFile) -> None:
        if sheet.dirty and sheet.text != shown(now.text):
            if sheet.theirs is None or sheet.theirs.digest != now.digest:
                sheet.theirs, sheet.asked = now, False
            sheet.problem = None
        else:
            self._adopt(sheet, now)

    def _adopt(self, sheet: Sheet, now: CaptionFile) -> None:
        text = shown(now.text)
        if sheet.past is None and not sheet.locked:
            sheet.past = self._pasts.of(now.path, text, text)
        elif sheet.past is not None and sheet is not self.current:  # the editor makes the current one follow
            sheet.past.take(text)
        sheet.base, sheet.text, sheet.clean = now, text, text
        sheet.theirs, sheet.problem, sheet.readable = None, None, True

    def _remember(self) -> None:
        """Keep in the session all that is not in its file."""
        drafts = {key: draft_of(sheet) for key, sheet in self._sheets.items() if sheet.dirty}
        current = str(self.current.row.path) if self.current is not None else ""
        self._session.draft = drafts.pop(current, Draft())
        self._session.drafts = self._waiting | drafts


def written(base: CaptionFile, text: str) -> CaptionFile | EngineError:
    """What stands in the file once ``text`` is written over ``base``, or why it is not. Waits for the disk."""
    try:
        return write_caption(base, breaks_kept(base.text, text))
    except EngineError as err:
        return err
    except (OSError, ValueError) as err:
        return DiskError("The caption could not be written", safe_text(err), "Save it under another name.")


def seen_at(path: Path, known: Signature) -> Seen | None:
    """What stands at ``path`` now; None if it has the signature that is known. Waits for the disk."""
    # Looked at before it is read: what changes in between is seen the next time.
    signature = _signature(path)
    if signature is not None and signature == known:
        return None
    try:
        return signature, open_caption(path)
    except DatasetError as err:
        return signature, err


def _signature(path: str | os.PathLike[str]) -> Signature:
    """What changes with a file's contents; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is None or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _forget_old(sheets: OrderedDict[str, Sheet], current: Sheet | None) -> None:
    spare = len(sheets) - KEPT_SHEETS
    for key in [key for key, sheet in sheets.items() if not sheet.dirty and sheet.writing is None]:
        if spare <= 0:
            return
        if sheets[key] is not current:
            del sheets[key]
            spare -= 1
