"""The samples' pictures as cells: which are wanted for the room there is.

What is made of them is :mod:`tui.widgets.samples`'s business, which builds on this.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.events import SampleSaved
from tui.places import sample_in
from tui.widgets.cells import Run
from tui.widgets.decoded import DecodedPictures, Wanted

THUMB_COLUMNS = 13
THUMB_ROWS = 6
FILM_HEIGHT = THUMB_ROWS + 1
PROMPT_LINES = 2


@dataclass(frozen=True)
class Places:
    """How the pane's rows are shared: the large picture, and how many thumbnails below it (0: none).

    A flat pane has ``row`` pictures of ``rows`` lines side by side instead of a large one.
    """

    rows: int
    thumbs: int
    row: int = 0


class SamplePictures(DecodedPictures):
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
        super().__init__(pool, id=id)
        self._folder = folder
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

    def _picture(self, path: str, columns: int, rows: int) -> list[list[Run]]:
        folder = self._folder()
        where = str(sample_in(folder, path)) if folder is not None else ""
        return self._drawn(
            (where, columns, rows, self.glyphs.ascii), self.style_of("samples--hatch"), self.rich_style
        )


def film_of(samples: list[SampleSaved], current: SampleSaved | None, count: int) -> list[SampleSaved]:
    """Up to ``count`` pictures of the current one's prompt, oldest first, the current one among them."""
    if current is None or count < 1:
        return []
    film = [sample for sample in samples if sample.index == current.index]
    end = max(count, min(len(film), film.index(current) + 1 + count // 2))
    return film[max(0, min(end, len(film)) - count) : end]
