"""The samples' pictures as cells: which are wanted for the room there is, decoded by threads, kept.

What is made of them is :mod:`tui.widgets.samples`'s business, which builds on this.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.style import Style
from textual.events import Resize

from engine.events import SampleSaved
from tui.places import sample_in
from tui.widgets.cells import CellWidget, Run
from tui.widgets.picture import PictureCells, load_picture, piece_style

THUMB_COLUMNS = 13
THUMB_ROWS = 6
FILM_HEIGHT = THUMB_ROWS + 1
KEPT_PICTURES = 200
PROMPT_LINES = 2

Wanted = tuple[str, int, int, bool]
"""Path, columns and rows of the box, and whether in ASCII."""


@dataclass(frozen=True)
class Places:
    """How the pane's rows are shared: the large picture, and how many thumbnails below it (0: none).

    A flat pane has ``row`` pictures of ``rows`` lines side by side instead of a large one.
    """

    rows: int
    thumbs: int
    row: int = 0


class SamplePictures(CellWidget):
    """The pictures of a pane of samples.

    Args:
        pool: threads that decode pictures.
        folder: gives the run's folder once it is known; pictures are looked for there alone.
        id: the widget's.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        folder: Callable[[], Path | None],
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(id=id)
        self._folder = folder
        self._pool = pool
        self._kept: OrderedDict[Wanted, PictureCells] = OrderedDict()
        self._pending: set[Wanted] = set()
        self._loads = 0
        self.chosen: int | None = None
        """Index of the sample walked to; None follows the newest."""

    @property
    def current(self) -> SampleSaved | None:
        """The sample shown large."""
        samples = self.view.samples
        if not samples:
            return None
        return samples[-1 if self.chosen is None else min(self.chosen, len(samples) - 1)]

    def forget(self) -> None:
        """Another run's pictures are coming."""
        self._kept.clear()
        self.chosen = None

    def on_resize(self, event: Resize) -> None:
        """Another size needs other cells."""
        self._load_missing()

    def _places(self, width: int, height: int) -> Places:
        thumbs = width // (THUMB_COLUMNS + 1)
        film = height >= 24 and thumbs >= 2 and len(film_of(self.view.samples, self.current, 2)) >= 2
        rows = max(1, height - 1 - PROMPT_LINES - (FILM_HEIGHT if film else 0))
        row = width // (2 * rows + 1)
        if not film and row >= 2 and rows >= 4:
            return Places(rows, 0, row)
        return Places(rows, thumbs if film else 0)

    def _beside(self, places: Places) -> list[SampleSaved]:
        """The pictures of a flat pane: the newest that fit, or those that end with the one walked to."""
        samples, current = self.view.samples, self.current
        if current is None:
            return []
        end = max(places.row, samples.index(current) + 1)
        return samples[max(0, min(end, len(samples)) - places.row) : end]

    def _wanted(self) -> list[Wanted]:
        width, height = self.size
        current = self.current
        folder = self._folder()
        if current is None or folder is None or width < 4 or height < 4:
            return []
        places = self._places(width, height)
        ascii_only = self.glyphs.ascii
        if places.row:
            return [
                (str(sample_in(folder, s.path)), 2 * places.rows, places.rows, ascii_only)
                for s in self._beside(places)
            ]
        wanted = [(str(sample_in(folder, current.path)), width, places.rows, ascii_only)]
        wanted += [
            (str(sample_in(folder, s.path)), THUMB_COLUMNS, THUMB_ROWS, ascii_only)
            for s in film_of(self.view.samples, current, places.thumbs)
        ]
        return wanted

    def _load_missing(self) -> None:
        for wanted in self._wanted():
            if wanted not in self._kept and wanted not in self._pending:
                self._pending.add(wanted)
                self.run_worker(self._load(wanted), group="pictures", exit_on_error=True)

    async def _load(self, wanted: Wanted) -> None:
        path, columns, rows, ascii_only = wanted
        loop = asyncio.get_running_loop()
        cells = await loop.run_in_executor(self._pool, load_picture, Path(path), columns, rows, ascii_only)
        self._pending.discard(wanted)
        self._kept[wanted] = cells
        while len(self._kept) > KEPT_PICTURES:
            self._kept.popitem(last=False)
        self._loads += 1
        self.refresh()

    def _picture(self, path: str, columns: int, rows: int) -> list[list[Run]]:
        folder = self._folder()
        cells = None
        if folder is not None:
            cells = self._kept.get((str(sample_in(folder, path)), columns, rows, self.glyphs.ascii))
        hatch = self.style_of("samples--hatch")
        if cells is None:
            return placed(
                [[(self.glyphs.empty * min(columns, rows * 2), hatch)]] * rows, columns, rows, self.rich_style
            )
        if cells.problem:
            return placed([[(f"picture {cells.problem}", hatch)]], columns, rows, self.rich_style)
        lines = [
            [(text, piece_style(front, back) if front >= 0 else self.rich_style) for text, front, back in line]
            for line in cells.lines
        ]
        return placed(lines, columns, rows, self.rich_style)


def film_of(samples: list[SampleSaved], current: SampleSaved | None, count: int) -> list[SampleSaved]:
    """Up to ``count`` pictures of the current one's prompt, oldest first, the current one among them."""
    if current is None or count < 1:
        return []
    film = [sample for sample in samples if sample.index == current.index]
    end = max(count, min(len(film), film.index(current) + 1 + count // 2))
    return film[max(0, min(end, len(film)) - count) : end]


def placed(lines: list[list[Run]], columns: int, rows: int, blank: Style) -> list[list[Run]]:
    """Centre ``lines`` in a box."""
    above = max(0, (rows - len(lines)) // 2)
    placed: list[list[Run]] = [[] for _ in range(rows)]
    for number, line in enumerate(lines[:rows]):
        width = sum(len(text) for text, _ in line)
        placed[above + number] = [(" " * max(0, (columns - width) // 2), blank), *line]
    return placed
