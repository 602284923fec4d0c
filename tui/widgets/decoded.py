"""A widget that draws pictures as cells: which are wanted now, decoded by threads, kept, forgotten oldest first.

What was asked for and is no longer in sight when its turn comes is not decoded at all.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.style import Style
from textual.events import Resize

from tui.widgets.cells import CellWidget, Run, wrap
from tui.widgets.picture import PictureCells, load_picture, piece_style

KEPT_PICTURES = 200

Wanted = tuple[str, int, int, bool]
"""Path, columns and rows of the box, and whether in ASCII."""


class DecodedPictures(CellWidget):
    """Base of a widget with pictures.

    Args:
        pool: threads that decode pictures.
        id: the widget's.
        classes: the widget's.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        id: str | None = None,  # noqa: A002 - Textual's name
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._pool = pool
        self._kept: OrderedDict[Wanted, PictureCells] = OrderedDict()
        self._pending: set[Wanted] = set()
        self._sought: frozenset[Wanted] = frozenset()
        self._loads = 0

    def on_resize(self, event: Resize) -> None:
        """Another size needs other cells."""
        self._load_missing()

    def _wanted(self) -> list[Wanted]:
        """The pictures in sight, in the boxes that they are drawn in."""
        raise NotImplementedError

    def _decode(self, wanted: Wanted) -> PictureCells:
        """Decode one; in a thread. One of our own PNG files, unless a subclass knows better."""
        path, columns, rows, ascii_only = wanted
        return load_picture(Path(path), columns, rows, ascii_only)

    def _load_missing(self) -> None:
        wanted_now = self._wanted()
        self._sought = frozenset(wanted_now)
        for wanted in wanted_now:
            if wanted not in self._kept and wanted not in self._pending:
                self._pending.add(wanted)
                self.run_worker(self._load(wanted), group="pictures", exit_on_error=True)

    def _if_sought(self, wanted: Wanted) -> PictureCells | None:
        return self._decode(wanted) if wanted in self._sought else None

    async def _load(self, wanted: Wanted) -> None:
        cells = await asyncio.get_running_loop().run_in_executor(self._pool, self._if_sought, wanted)
        self._pending.discard(wanted)
        if cells is None:
            if wanted in self._sought:  # it came back into sight meanwhile
                self._load_missing()
            return
        self._kept[wanted] = cells
        while len(self._kept) > KEPT_PICTURES:
            self._kept.popitem(last=False)
        self._loads += 1
        self.refresh()

    def _drawn(self, wanted: Wanted, hatch: Style, blank: Style) -> list[list[Run]]:
        """A picture in its box, or its problem; hatched until it is decoded."""
        _, columns, rows, _ = wanted
        cells = self._kept.get(wanted)
        if cells is None:
            sign = self.glyphs.empty * min(columns, rows * 2)
            return placed([[(sign, hatch)]] * rows, columns, rows, blank)
        if cells.problem:
            words = wrap(f"picture {cells.problem}", max(1, columns))[:rows]
            return placed([[(line, hatch)] for line in words], columns, rows, blank)
        lines = [
            [(text, piece_style(front, back) if front >= 0 else blank) for text, front, back in line]
            for line in cells.lines
        ]
        return placed(lines, columns, rows, blank)


def placed(lines: list[list[Run]], columns: int, rows: int, blank: Style) -> list[list[Run]]:
    """Centre ``lines`` in a box."""
    above = max(0, (rows - len(lines)) // 2)
    placed: list[list[Run]] = [[] for _ in range(rows)]
    for number, line in enumerate(lines[:rows]):
        width = sum(len(text) for text, _ in line)
        placed[above + number] = [(" " * max(0, (columns - width) // 2), blank), *line]
    return placed
