"""Mending a dataset from the screen: one step at a time, each of which can be taken back.

Comes in: problems that the user asked to mend. Goes out: what was done, in words. Steps are kept as long as the
workstation lives; the originals of what was replaced lie beside, see :mod:`engine.dataset.mend`. Called in a thread:
it decodes and writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from engine.dataset.mend import Mended, rename_apart, take_back, to_png, to_utf8
from engine.dataset.problems import Problem
from engine.errors import DatasetError
from engine.text import safe_text
from tui.places import is_shipped

if TYPE_CHECKING:
    from engine.dataset.decoder import Decoder
    from tui.catalog import Catalog
    from tui.catalog_rows import Row

PATIENCE_S = 20.0
"""How long the catalog is waited for; it reads on behind."""

SHIPPED = "These pictures are not changed", "they belong to lorakiln", "ctrl+n copies them into a dataset of yours."

Crops = Mapping[Path, tuple[int, ...]]


@dataclass
class Step:
    """What one key did: files that were changed, and notes as they were before."""

    what: str
    files: list[Mended] = field(default_factory=list)
    notes: list[tuple[Path, dict[str, object]]] = field(default_factory=list)


class Mender:
    """Mends what a catalog shows, and takes it back."""

    def __init__(self, catalog: Catalog, decoder: Decoder) -> None:
        self._catalog, self._decoder = catalog, decoder
        self.steps: list[Step] = []

    def mend(self, problems: Iterable[Problem], encoding: str = "", crops: Crops | None = None) -> Step:
        """Mend each problem by its own fix; what was done before one fails stays, and can be taken back.

        Raises:
            EngineError: one could not be mended; nothing was done for those after it.
        """
        step = Step("")
        try:
            for found in problems:
                if found.file is not None:
                    self._mend(found, step, encoding, crops or {})
        finally:
            self._keep(step)
        return step

    def exclude(self, path: Path) -> Step:
        """Leave a picture out of training, or take it back in."""
        step = Step("")
        row = self._row(path)
        self._note(step, path, exclude=None if row is not None and row.excluded else True)
        self._keep(step)
        return step

    def add(self, mended: Mended, exclude: Path | None = None) -> Step:
        """Take up files that were made elsewhere as a step, with a picture that is left out for them."""
        step = Step("", [mended])
        if exclude is not None:
            self._note(step, exclude, exclude=True)
        self._keep(step)
        return step

    def undo(self) -> str:
        """Take the last step back; returns what it was, or "" where there is none.

        Raises:
            EngineError: something was changed since; what could be taken back was.
        """
        if not self.steps:
            return ""
        step = self.steps[-1]
        while step.files:
            take_back(step.files[-1])
            step.files.pop()
        for path, before in reversed(step.notes):
            if (row := self._row(path)) is not None:
                self._catalog.note(row, **before)
        self.steps.pop()
        self._settle()
        return step.what

    def _mend(self, found: Problem, step: Step, encoding: str, crops: Crops) -> None:
        path, dataset = found.file, self._catalog.dataset
        assert path is not None and dataset is not None
        if is_shipped(path):
            raise DatasetError(*SHIPPED)
        if found.fix == "encoding":
            step.files.append(to_utf8(path, encoding))
        elif found.fix == "rename":
            step.files.append(rename_apart(path, dataset.captions.extensions))
        elif found.fix == "convert":
            info = self._decoder.probe(path)
            step.files.append(to_png(path, info.width, info.height, self._decoder, dataset.background))
        elif found.fix == "crop" and path in crops:
            self._note(step, path, crop=crops[path])
        elif found.fix == "exclude":
            self._note(step, path, exclude=True)

    def _note(self, step: Step, path: Path, **notes: object) -> None:
        row = self._row(path)
        if row is None:
            raise DatasetError("The picture is not listed", safe_text(path), "Look at the dataset again.")
        before = {name: getattr(row.notes, name) for name in notes}
        if not self._catalog.note(row, **notes):
            raise DatasetError(*SHIPPED)
        step.notes.append((path, before))

    def _row(self, path: Path) -> Row | None:
        index = self._catalog.index_of(str(path))
        return self._catalog.rows[index] if index is not None else None

    def _keep(self, step: Step) -> None:
        count = len(step.files) + len(step.notes)
        if not count:
            return
        if len(step.files) == 1:
            step.what = step.files[0].what
        elif step.files:
            step.what = f"{len(step.files)} files mended"
        else:
            names = ", ".join(safe_text(path.name, 60) for path, _ in step.notes[:2])
            words = (
                "cropped" if "crop" in step.notes[0][1] else "left out" if self._left_out(step) else "taken back in"
            )
            step.what = f"{names if count < 3 else f'{count} pictures'} {words}"
        self.steps.append(step)
        self._settle()

    def _settle(self) -> None:
        """Wait until the catalog has written notes and read the folders again: whoever looks next sees it."""
        self._catalog.refresh()
        end = time.monotonic() + PATIENCE_S
        while self._catalog.state == "scanning" and time.monotonic() < end:
            time.sleep(0.02)

    @staticmethod
    def _left_out(step: Step) -> bool:
        return not any(before.get("exclude") for _, before in step.notes)


_menders: WeakKeyDictionary[Catalog, Mender] = WeakKeyDictionary()


def mender_of(catalog: Catalog, decoder: Decoder) -> Mender:
    """The mender of a catalog: it keeps its steps while screens come and go."""
    if catalog not in _menders:
        _menders[catalog] = Mender(catalog, decoder)
    return _menders[catalog]


def question(problems: list[Problem]) -> tuple[str, str, str]:
    """Title, detail and the answer's words for mending these, which share a fix."""
    count, fix = len(problems), problems[0].fix
    names = "\n".join(problem.path for problem in problems[:6]) + (f"\nand {count - 6} more" if count > 6 else "")
    kept = "The originals are kept in a folder beside them, out of training. u takes it back."
    titles = {
        "convert": ("Make plain PNGs of these?", kept, f"Convert {count}"),
        "rename": ("Rename these?", "Each gets a name of its own and a copy of the caption. u takes it back.",
                   f"Rename {count}"),
        "crop": ("Crop these?", "The crop is noted beside them; the files stay as they are. u takes it back.",
                 f"Crop {count}"),
        "exclude": ("Leave these out of training?", "It is noted beside them; the files stay. u takes it back.",
                    f"Leave out {count}"),
    }  # fmt: skip
    title, detail, answer = titles[fix]
    return title, f"{detail}\n\n{names}", answer
