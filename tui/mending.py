"""Mending a dataset from the screen: one step at a time, each of which can be taken back.

Comes in: problems that the user asked to mend. Goes out: what was done, in words. Steps are kept in the work folder,
so they can be taken back after a restart; the originals of what was replaced lie beside, see
:mod:`engine.dataset.mend`. Called in a thread: it decodes and writes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.dataset.mend import Announce, Mended, gif_to_png, rename_apart, take_back, to_png, to_utf8
from engine.dataset.mend_journal import MendJournal, MendStep, mend_journal_path
from engine.dataset.pairs import GIF
from engine.dataset.problems import Problem
from engine.errors import DatasetError, DiskError, EngineError
from engine.text import safe_text
from tui.places import is_shipped, journal_in

if TYPE_CHECKING:
    from engine.dataset.decoder import Decoder
    from tui.catalog import Catalog
    from tui.catalog_rows import Row
    from tui.workplace import Workplace

PATIENCE_S = 20.0
"""How long the catalog is waited for; it reads on behind."""

SHIPPED = "These pictures are not changed", "they belong to lorakiln", "ctrl+n copies them into a dataset of yours."

Crops = Mapping[Path, tuple[int, ...]]


class Mender:
    """Mends what a catalog shows, and takes it back.

    Args:
        catalog, decoder: of the dataset.
        journal: what was mended.

    Attributes:
        undoable: whether there is something to take back, as far as is known; :meth:`recall` asks the disk.
    """

    def __init__(self, catalog: Catalog, decoder: Decoder, journal: MendJournal) -> None:
        self._catalog, self._decoder, self._journal = catalog, decoder, journal
        self.undoable = False
        self._number = 0
        """The step that what is changed now belongs to; 0 begins one."""

    def recall(self) -> None:
        """Look whether there is something to take back. A journal that cannot be read is told when that is tried."""
        with contextlib.suppress(DiskError):
            self.undoable = self._journal.undoable() is not None

    def mend(self, problems: Iterable[Problem], encoding: str = "", crops: Crops | None = None) -> str:
        """Mend each problem by its own fix; returns what was done. What was done before one fails stays, and can be
        taken back.

        Raises:
            EngineError: one could not be mended; nothing was done for those after it.
        """
        with self._step() as told:
            for found in problems:
                if found.file is not None:
                    self._mend(found, encoding, crops or {})
        return told()

    def exclude(self, path: Path) -> str:
        """Leave a picture out of training, or take it back in."""
        with self._step() as told:
            row = self._row(path)
            self._note(path, exclude=None if row is not None and row.excluded else True)
        return told()

    def add(self, make: Callable[[Announce], Mended], exclude: Path | None = None) -> str:
        """Files that are made by ``make`` as a step, with a picture that is left out for them."""
        with self._step() as told:
            self._file(make)
            if exclude is not None:
                self._note(exclude, exclude=True)
        return told()

    def undo(self) -> str:
        """Take the last step back; returns what it was, or "" where there is none.

        Raises:
            EngineError: something was changed since, or it was done in another dataset; what could be taken back was.
        """
        step = self._journal.undoable()
        if step is None:
            self.undoable = False
            return ""
        self._refuse_elsewhere(step)
        try:
            for files in reversed(range(len(step.files))):
                take_back(step.files[files])
                self._journal.left(step.number, files, len(step.notes))
            rows = {os.path.abspath(row.path): row for row in self._catalog.rows} if step.notes else {}
            for path, before in reversed(step.notes):
                if (row := rows.get(str(path))) is not None:
                    self._catalog.note(row, **before)
            if step.notes:
                self._journal.left(step.number, 0, 0)
        finally:
            self.recall()
        self._settle()
        return step.what

    def _mend(self, found: Problem, encoding: str, crops: Crops) -> None:
        path, dataset = found.file, self._catalog.dataset
        assert path is not None and dataset is not None
        if is_shipped(path):
            raise DatasetError(*SHIPPED)
        if found.fix == "encoding":
            self._file(lambda announce: to_utf8(path, encoding, announce))
        elif found.fix == "rename":
            self._file(lambda announce: rename_apart(path, dataset.captions.extensions, announce))
        elif found.fix == "convert" and path.suffix.lower() == GIF:
            self._file(lambda announce: gif_to_png(path, self._decoder, dataset.background, announce))
        elif found.fix == "convert":
            info = self._decoder.probe(path)
            size = info.width, info.height
            self._file(lambda announce: to_png(path, *size, self._decoder, dataset.background, announce))
        elif found.fix == "crop" and path in crops:
            self._note(path, crop=crops[path])
        elif found.fix == "exclude":
            self._note(path, exclude=True)

    def _file(self, make: Callable[[Announce], Mended]) -> None:
        """Have files changed, which the journal hears of first; of what fails nothing stays."""
        announced: list[Mended] = []

        def announce(mended: Mended) -> None:
            self._number = self._journal.file(self._number, mended)
            announced.append(mended)

        try:
            make(announce)
        except EngineError:
            step = self._journal.step(self._number) if announced else None
            if step is not None:
                with contextlib.suppress(EngineError):  # then the next undo says what is wrong
                    take_back(announced[0])
                    self._journal.left(step.number, len(step.files) - 1, len(step.notes))
            raise

    def _note(self, path: Path, **notes: object) -> None:
        row = self._row(path)
        if row is None:
            raise DatasetError("The picture is not listed", safe_text(path), "Look at the dataset again.")
        if is_shipped(path):
            raise DatasetError(*SHIPPED)
        before = {name: getattr(row.notes, name) for name in notes}
        self._number = self._journal.note(self._number, path, before)
        self._catalog.note(row, **notes)

    def _row(self, path: Path) -> Row | None:
        index = self._catalog.index_of(str(path))
        return self._catalog.rows[index] if index is not None else None

    @contextlib.contextmanager
    def _step(self) -> Iterator[Callable[[], str]]:
        """What is changed within is one step; yields what tells what was done."""
        done: list[MendStep] = []
        self._number = 0
        try:
            yield lambda: done[0].what if done else ""
        finally:
            with contextlib.suppress(DiskError):
                if self._number and (step := self._journal.step(self._number)) is not None:
                    done.append(step)
                    self.undoable = True
            if self._number:
                self._settle()

    def _refuse_elsewhere(self, step: MendStep) -> None:
        """Only files of the dataset that is open are touched, whatever a journal says."""
        dataset = self._catalog.dataset
        folders = [Path(os.path.abspath(folder.path)) for folder in dataset.folders] if dataset is not None else []
        for path in step.paths:
            if not any(path.is_relative_to(folder) for folder in folders):
                raise DatasetError(
                    "It was done in another dataset", f"{step.what}: {safe_text(path)}", "Open it to take it back."
                )

    def _settle(self) -> None:
        """Wait until the catalog has written notes and read the folders again: whoever looks next sees it."""
        self._catalog.refresh()
        end = time.monotonic() + PATIENCE_S
        while self._catalog.state == "scanning" and time.monotonic() < end:
            time.sleep(0.02)


def mender_of(workplace: Workplace) -> Mender:
    """The mender of a work folder; taken back in this process alone where nothing can be written there."""
    return Mender(workplace.catalog, workplace.decoder, MendJournal(journal_in(workplace, mend_journal_path)))


def question(problems: list[Problem]) -> tuple[str, str, str]:
    """Title, detail and the answer's words for mending these, which share a fix."""
    count, fix = len(problems), problems[0].fix
    names = "\n".join(problem.path for problem in problems[:6]) + (f"\nand {count - 6} more" if count > 6 else "")
    kept = "The originals are kept in a folder beside them, out of training. u takes it back."
    titles = {
        "convert": ("Make plain PNGs of these?", f"Of several frames the first is kept. {kept}", f"Convert {count}"),
        "rename": ("Rename these?", "Each gets a name of its own and a copy of the caption. u takes it back.",
                   f"Rename {count}"),
        "crop": ("Crop these?", "The crop is noted beside them; the files stay as they are. u takes it back.",
                 f"Crop {count}"),
        "exclude": ("Leave these out of training?", "It is noted beside them; the files stay. u takes it back.",
                    f"Leave out {count}"),
    }  # fmt: skip
    title, detail, answer = titles[fix]
    return title, f"{detail}\n\n{names}", answer
