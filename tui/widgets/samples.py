"""The samples pane: the newest picture as it arrives, or any earlier one; below it the same prompt over the epochs.

left and right walk through all samples, up and down through the epochs of one prompt. Pictures come from a pool of
two threads; until one is there its place is hatched. Cells are kept, so walking back costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from textual.events import Resize
from textual.strip import Strip

from engine.events import SampleSaved
from engine.text import safe_text
from tui.keymap import SAMPLE_KEYS, bindings
from tui.places import sample_in
from tui.view import RunView
from tui.widgets.cells import CellWidget, Run, strip_of, wrap
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
    """How the pane's rows are shared: the large picture, and how many thumbnails below it (0: none)."""

    rows: int
    thumbs: int


class SamplesPane(CellWidget, can_focus=True):
    """Pictures drawn while training, one large with prompt and epoch, and a film of the same prompt.

    Args:
        pool: threads that decode pictures.
        folder: gives the run's folder once it is known; pictures are looked for there alone.
        id: the widget's.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"samples--label", "samples--prompt", "samples--mark", "samples--hatch"}
    BINDINGS = bindings(SAMPLE_KEYS)
    TOPICS = frozenset({"samples", "stage", "state"})

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

    def show(self, view: RunView) -> None:
        """Take the newest samples and have the pictures in sight decoded."""
        super().show(view)
        stage = view.stages.get(view.stage)
        drawing = stage is not None and view.state == "sampling"
        subtitle = safe_text(f"{stage.name} {stage.done}/{stage.total}", 40) if drawing and stage else ""
        if subtitle != (self.border_subtitle or ""):
            self.border_subtitle = subtitle
        self._load_missing()

    def on_resize(self, event: Resize) -> None:
        """Another size needs other cells."""
        self._load_missing()

    def content_key(self) -> Hashable:
        """Sample shown, samples there, pictures decoded."""
        return len(self.view.samples), self.chosen, self._loads, self.view.folder

    def action_walk(self, by: int) -> None:
        """Go ``by`` samples on, or back when negative; past the newest means following it."""
        count = len(self.view.samples)
        at = (count - 1 if self.chosen is None else self.chosen) + by
        self._choose(max(0, at) if at < count - 1 else None)

    def action_epoch(self, by: int) -> None:
        """Go to the same prompt's next or former picture."""
        current = self.current
        if current is None:
            return
        same = [at for at, sample in enumerate(self.view.samples) if sample.index == current.index]
        place = same.index(self.view.samples.index(current)) + by
        if 0 <= place < len(same):
            self._choose(same[place])

    def action_newest(self) -> None:
        """Follow the newest sample."""
        self._choose(None)

    async def action_large(self) -> None:
        """Show the pane alone, and the picture as large as it gets."""
        await self.screen.run_action("zoom")

    def _choose(self, at: int | None) -> None:
        self.chosen = at
        self._load_missing()
        self.refresh()

    def _places(self, width: int, height: int) -> Places:
        thumbs = width // (THUMB_COLUMNS + 1)
        film = height >= 24 and thumbs >= 2 and len(film_of(self.view.samples, self.current, 2)) >= 2
        return Places(max(1, height - 1 - PROMPT_LINES - (FILM_HEIGHT if film else 0)), thumbs if film else 0)

    def _wanted(self) -> list[Wanted]:
        width, height = self.size
        current = self.current
        folder = self._folder()
        if current is None or folder is None or width < 4 or height < 4:
            return []
        places = self._places(width, height)
        ascii_only = self.glyphs.ascii
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

    def paint(self, width: int, height: int) -> list[Strip]:
        """Heading, picture, prompt, film."""
        current = self.current
        if current is None:
            hint = [("samples appear here as they are drawn".center(width), self.style_of("samples--label"))]
            return [strip_of(row, width, self.rich_style) for row in _placed([hint], width, height, self.rich_style)]
        places = self._places(width, height)
        rows = [self._heading(current, width)]
        rows += self._picture(current.path, width, places.rows)
        prompt = wrap(safe_text(current.prompt, 600), max(8, width - 1))
        if len(prompt) > PROMPT_LINES:
            prompt = [*prompt[: PROMPT_LINES - 1], prompt[PROMPT_LINES - 1][: width - 4] + self.glyphs.ellipsis]
        prompt += [""] * (PROMPT_LINES - len(prompt))
        rows += [[(line, self.style_of("samples--prompt"))] for line in prompt]
        if places.thumbs:
            rows += self._film_rows(places.thumbs)
        return [strip_of(row, width, self.rich_style) for row in rows[:height]]

    def _heading(self, sample: SampleSaved, width: int) -> list[Run]:
        dot = f" {self.glyphs.dot} "
        at = self.view.samples.index(sample) + 1
        parts = [
            f"{at}/{len(self.view.samples)}",
            f"epoch {sample.epoch}",
            f"step {sample.step}",
            f"seed {sample.seed}",
        ]
        if self.chosen is not None:
            parts.append("end: newest")
        while len(dot.join(parts)) > width and len(parts) > 1:
            parts.pop()
        return [(dot.join(parts), self.style_of("samples--label"))]

    def _picture(self, path: str, columns: int, rows: int) -> list[list[Run]]:
        folder = self._folder()
        cells = None
        if folder is not None:
            cells = self._kept.get((str(sample_in(folder, path)), columns, rows, self.glyphs.ascii))
        hatch = self.style_of("samples--hatch")
        if cells is None:
            return _placed(
                [[(self.glyphs.empty * min(columns, rows * 2), hatch)]] * rows, columns, rows, self.rich_style
            )
        if cells.problem:
            return _placed([[(f"picture {cells.problem}", hatch)]], columns, rows, self.rich_style)
        lines = [
            [(text, piece_style(front, back) if front >= 0 else self.rich_style) for text, front, back in line]
            for line in cells.lines
        ]
        return _placed(lines, columns, rows, self.rich_style)

    def _film_rows(self, thumbs: int) -> list[list[Run]]:
        rows: list[list[Run]] = [[] for _ in range(FILM_HEIGHT)]
        for sample in film_of(self.view.samples, self.current, thumbs):
            for row, runs in zip(rows, self._thumb(sample), strict=True):
                row += [*runs, (" ", self.rich_style)]
        return rows

    def _thumb(self, sample: SampleSaved) -> list[list[Run]]:
        here = sample == self.current
        label = f"[e{sample.epoch}]" if here else f"e{sample.epoch}"
        style = self.style_of("samples--mark" if here else "samples--label")
        picture = self._picture(sample.path, THUMB_COLUMNS, THUMB_ROWS)
        rows = [[(label.center(THUMB_COLUMNS), style)]]
        for runs in picture:
            width = sum(len(text) for text, _ in runs)
            rows.append([*runs, (" " * (THUMB_COLUMNS - width), self.rich_style)])
        return rows


def film_of(samples: list[SampleSaved], current: SampleSaved | None, count: int) -> list[SampleSaved]:
    """Up to ``count`` pictures of the current one's prompt, oldest first, the current one among them."""
    if current is None or count < 1:
        return []
    film = [sample for sample in samples if sample.index == current.index]
    end = max(count, min(len(film), film.index(current) + 1 + count // 2))
    return film[max(0, min(end, len(film)) - count) : end]


def _placed(lines: list[list[Run]], columns: int, rows: int, blank: Style) -> list[list[Run]]:
    """Centre ``lines`` in a box."""
    above = max(0, (rows - len(lines)) // 2)
    placed: list[list[Run]] = [[] for _ in range(rows)]
    for number, line in enumerate(lines[:rows]):
        width = sum(len(text) for text, _ in line)
        placed[above + number] = [(" " * max(0, (columns - width) // 2), blank), *line]
    return placed
