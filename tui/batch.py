"""Many captions changed at once: what an operation would do to each, doing it, and taking it back.

Comes in: rows of the catalog and an operation. Goes out: a preview of every change; on request the files, written in
the thread of whoever calls, and the rows that are others now. The journal belongs to the work folder, so a batch can
be taken back after a restart. Nothing here draws.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.applying import Outcome, Wanted, apply, redo, undo
from engine.dataset.batch_edits import Operation, edit_of
from engine.dataset.journal import Journal, journal_path
from engine.errors import DatasetError
from engine.text import safe_text
from tui.places import is_shipped, journal_in

if TYPE_CHECKING:
    from tui.catalog import Catalog, Row
    from tui.workplace import Workplace

NAMED = 6
"""Captions named, of those that were left out."""


@dataclass(eq=False)
class Item:
    """A caption that an operation changes; ``ticked`` while it is to be."""

    row: Row
    old: str
    new: str
    ticked: bool = True


def texts_of(rows: Iterable[Row]) -> dict[Path, Row]:
    """The captions of ``rows`` that may be changed, each once: pictures may share one, and some are the program's."""
    found: dict[Path, Row] = {}
    for row in rows:
        if row.caption is not None and not is_shipped(row.path):
            found.setdefault(row.caption_path, row)
    return found


def preview(operation: Operation, rows: Iterable[Row], stop: Callable[[], bool] = lambda: False) -> list[Item]:
    """What ``operation`` would change; less where it was stopped.

    Raises:
        DatasetError: the operation cannot be used.
    """
    edit = edit_of(operation)
    found: list[Item] = []
    for row in texts_of(rows).values():
        if stop():
            break
        old = (row.caption or "").strip()
        new = edit(old).strip()
        if new != old:
            found.append(Item(row, old, new))
    return found


class Batches:
    """The work folder's batches: applied, undone and redone one at a time, in the caller's thread.

    Args:
        journal: what was done.
        catalog: the rows.
    """

    def __init__(self, journal: Journal, catalog: Catalog) -> None:
        self.journal, self._catalog = journal, catalog
        self._alone = threading.Lock()

    def apply(
        self, what: str, items: Sequence[Item], told: Callable[[int], None], stop: Callable[[], bool]
    ) -> Outcome:
        """Write the ticked captions as one step. Waits for the disk.

        Raises:
            DiskError: the journal cannot be written.
        """
        wanted = [Wanted(item.row.caption_path, item.old, item.new) for item in items if item.ticked]
        with self._alone:
            return apply(what, wanted, self.journal, told, stop)

    def move(
        self, back: bool, told: Callable[[int, int], None], stop: Callable[[], bool] = lambda: False
    ) -> Outcome | None:
        """Take the newest step back, or do the one again that was taken back last; None where there is none.

        ``told`` hears how many captions are written, and of how many. What was stopped can be gone on with: the step
        stays the next one.

        Raises:
            DiskError: the journal cannot be read or written.
        """
        within = {row.caption_path for row in self._catalog.rows if not is_shipped(row.path)}
        with self._alone:
            step = self.journal.undoable() if back else self.journal.redoable()
            total = len(step.changes) if step is not None else 0
            if total:
                told(0, total)
            return (undo if back else redo)(self.journal, within, lambda count: told(count, total), stop)

    def take(self, outcome: Outcome, back: bool = False) -> list[Row]:
        """Have the catalog take up what was written; returns the rows. In the screen's thread."""
        texts = {change.path: change.before if back else change.after for change in outcome.done}
        changed = [row for row in self._catalog.rows if row.caption_path in texts]
        for row in changed:
            self._catalog.set_caption(row, texts[row.caption_path] or "")
        return changed


def batches_of(workplace: Workplace) -> Batches:
    """The batches of a work folder; undone in this process alone where nothing can be written there."""
    return Batches(Journal(journal_in(workplace, journal_path)), workplace.catalog)


def told(outcome: Outcome, did: str) -> str:
    """What became of a step, in a line that is safe to show; ``did`` says what was done to the captions."""
    count = len(outcome.done)
    left = f"; {len(outcome.refused):,} left as they were" if outcome.refused else ""
    stopped = ", stopped before the rest" if outcome.stopped and not outcome.refused else ""
    return f"{did} {count:,} caption{'' if count == 1 else 's'}{left}{stopped}"


def refusal(outcome: Outcome) -> DatasetError | None:
    """Which captions were left out, and why; None where none was."""
    if not outcome.refused:
        return None
    lines = [
        f"{safe_text(path.name, 80)}: {error.title}; {safe_text(error.detail, 160)}"
        for path, error in outcome.refused[:NAMED]
    ]
    if more := len(outcome.refused) - NAMED:
        lines += [f"and {more:,} more"] if more > 0 else []
    count = len(outcome.refused)
    return DatasetError(
        f"{count:,} caption{' was' if count == 1 else 's were'} left as {'it was' if count == 1 else 'they were'}",
        "\n".join(lines),
        "The others are done. R in the dataset pane reads the folder again; then try once more.",
    )
