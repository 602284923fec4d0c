"""The picture beside its caption: cells of two colours, over them Kitty's or Sixel's pixels where there are such.

The cells are always there, so whatever lies over the picture (a dialog, a toast) and goes away again leaves a
picture behind. The pixels travel in the strip of the picture's last line, so they are written whenever that is, and
only then; they are taken away while anything covers the place. What the crop to the bucket cuts off is dark.
Drawing runs in the thumbnails' pool; of a fast change of pictures only the last one is drawn.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import ControlType, Segment
from rich.style import Style
from textual.app import App
from textual.events import Hide, Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets._toast import Toast

from tui.thumbnails import Thumbnail, Thumbnails
from tui.widgets.cells import CellWidget, Run, strip_of, wrap
from tui.widgets.graphics import kitty_forget, kitty_picture, kitty_show, placed, sixel_picture
from tui.widgets.overlays import Crop, MaskShown, darkened, framed, masked, windowed
from tui.widgets.picture import Manner, PictureCells, fit, picture_cells, piece_style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tui.app import KilnApp
    from tui.terminal.traits import Traits

KEPT_BYTES = 32 * 2**20
"""Drawn pictures that are kept, as seen last, take about so much memory."""
MOST_PIXELS = 640_000
"""A thumbnail has not more to show; a larger picture is megabytes of text, each time that something lay over it."""
MOST_CELL = (64, 128)
"""Pixels of a cell; what a terminal tells beyond is not believed."""
USUAL_CELL = (10, 20)
HATCH_AFTER_S = 0.12
"""A picture that is there sooner replaces the former one without hatching in between."""
COVER_POLL_S = 0.25
KITTY_NUMBER = 0x6B696C6E
"""The number of our picture in the terminal's memory; a second one at the same time has the next number."""


@dataclass(frozen=True)
class Wanted:
    """Everything that a drawn picture depends on."""

    path: Path
    mark: Hashable
    """When the file was changed last."""
    crop: Crop | None
    columns: int
    rows: int
    manner: Manner
    protocol: str = ""
    cell: tuple[int, int] = (0, 0)
    number: int = KITTY_NUMBER
    frame: Crop | None = None
    """What a line is drawn around."""
    mask: MaskShown | None = None
    window: Crop | None = None
    """The part that is shown, in all its detail; None for the whole as it is kept small."""


@dataclass(frozen=True)
class Drawn:
    """A picture ready to show, or its problem. ``graphic`` is a protocol's sequence for the same cells."""

    cells: PictureCells
    graphic: str = ""
    hint: str = ""

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return 1000 + len(self.graphic) + sum(150 * len(line) for line in self.cells.lines)


class Drawings:
    """The pictures seen last, drawn: as many as ``most_bytes`` hold."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Wanted, Drawn] = OrderedDict()

    def __contains__(self, wanted: Wanted) -> bool:
        return wanted in self._kept

    def get(self, wanted: Wanted) -> Drawn | None:
        """The picture, if it was drawn."""
        if wanted in self._kept:
            self._kept.move_to_end(wanted)
        return self._kept.get(wanted)

    def put(self, wanted: Wanted, drawn: Drawn) -> None:
        """Keep a picture, at the cost of those not seen for longest."""
        former = self._kept.pop(wanted, None)
        self._bytes += drawn.bytes - (former.bytes if former is not None else 0)
        self._kept[wanted] = drawn
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].bytes


def draw(thumbnails: Thumbnails, wanted: Wanted) -> Drawn:
    """Load and draw one picture as cells; for the pool."""
    thumbnail = _loaded(thumbnails, wanted)
    if thumbnail.pixels is None:
        return Drawn(PictureCells(0, 0, (), thumbnail.problem), hint=thumbnail.hint)
    pixels = _overlaid(thumbnails, wanted, thumbnail.pixels)
    return Drawn(picture_cells(pixels, *_box(wanted, pixels.shape[1], pixels.shape[0]), wanted.manner))


def with_pixels(thumbnails: Thumbnails, wanted: Wanted, drawn: Drawn) -> Drawn:
    """The same in the terminal's own protocol too; for the pool, several times slower than cells."""
    thumbnail = _loaded(thumbnails, wanted)
    if thumbnail.pixels is None:
        return drawn
    size = (drawn.cells.columns * wanted.cell[0], drawn.cells.rows * wanted.cell[1])
    pixels = _overlaid(thumbnails, wanted, thumbnail.pixels)
    if wanted.protocol == "kitty":  # which enlarges by itself: nobody has to send what is not there
        size = (min(size[0], pixels.shape[1]), min(size[1], pixels.shape[0]))
        scale = min(1.0, (MOST_PIXELS / (size[0] * size[1])) ** 0.5)
        size = (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))
        return replace(drawn, graphic=kitty_picture(_resized(pixels, *size), wanted.number))
    return replace(drawn, graphic=sixel_picture(_resized(pixels, *size)))


def _box(wanted: Wanted, width: int, height: int) -> tuple[int, int]:
    """The cells that a picture of ``width`` x ``height`` pixels may take: a Sixel one is as large as it is sent."""
    if wanted.protocol != "sixel":
        return wanted.columns, wanted.rows
    columns, rows = fit(width, height, wanted.columns, wanted.rows)
    scale = min(1.0, (MOST_PIXELS / (columns * wanted.cell[0] * rows * wanted.cell[1])) ** 0.5)
    return max(1, int(columns * scale)), max(1, int(rows * scale))


def _loaded(thumbnails: Thumbnails, wanted: Wanted) -> Thumbnail:
    return thumbnails.load(wanted.path) if wanted.window is None else thumbnails.large(wanted.path)


def _overlaid(thumbnails: Thumbnails, wanted: Wanted, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if wanted.mask is not None:
        pixels = masked(pixels, thumbnails.mask(wanted.mask, pixels.shape[1], pixels.shape[0]))
    return windowed(framed(darkened(pixels, wanted.crop), wanted.frame, wanted.columns), wanted.window)


def _resized(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


class Preview(CellWidget):
    """One picture, as large as its place allows; ``number`` sets it apart from others on the same screen."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"preview--hatch", "preview--problem", "preview--hint"}

    def __init__(
        self,
        thumbnails: Thumbnails,
        id: str | None = None,  # noqa: A002 - Textual's name
        number: int = 0,
    ) -> None:
        super().__init__(id=id)
        self._thumbnails = thumbnails
        self._number = KITTY_NUMBER + number
        self._picture: tuple[Path, Hashable, Crop | None] | None = None
        self._extra: dict[str, Any] = {}
        self._kept = Drawings()
        self._wanted: Wanted | None = None
        self._drawn: Drawn | None = None
        """What is shown; the former picture while another one is drawn."""
        self._loading = False
        self._sent = ""
        """Kitty's picture that the terminal holds."""
        self._was_covered = False

    def on_mount(self) -> None:
        """Look now and then whether something lies over the pixels."""
        self.set_interval(COVER_POLL_S, self._watch_cover)

    def show_picture(
        self,
        path: Path | None,
        mark: Hashable = None,
        crop: Crop | None = None,
        frame: Crop | None = None,
        mask: MaskShown | None = None,
    ) -> None:
        """Show another picture, or none; dark outside of ``crop``, with a line around ``frame``, under its mask."""
        picture, extra = None if path is None else (path, mark, crop), {"frame": frame, "mask": mask}
        if (picture, extra) != (self._picture, self._extra):
            self._picture, self._extra = picture, extra
            self._ask()

    def on_resize(self, event: Resize) -> None:
        """Another size needs other cells."""
        self._take_away()
        self._ask()

    def on_hide(self, event: Hide) -> None:
        """Nothing of it may stay on the screen."""
        self._take_away()

    def on_unmount(self) -> None:
        """Nothing of it may stay on the screen."""
        self._take_away()

    def _ask(self) -> None:
        """Show what is wanted now, at once if it was drawn before."""
        width, height = self.size
        manner, protocol, cell = how_to_draw(self.app)
        if self._picture is None or width < 4 or height < 2 or manner is None:
            self._wanted, self._drawn, self._loading = None, None, False
        else:
            wanted = Wanted(*self._picture, width, height, manner, protocol, cell, self._number, **self._extra)
            if wanted == self._wanted:
                return
            self._wanted = wanted
            kept = self._kept.get(wanted)
            if kept is not None:
                self._drawn, self._loading = kept, False
            if kept is None or (wanted.protocol and not kept.graphic and not kept.cells.problem):
                work: Any = partial(self._load, wanted)  # Textual's types know no function with an argument
                self.run_worker(work, group="preview", exclusive=True, exit_on_error=True)
                self.set_timer(HATCH_AFTER_S, lambda: self._hatch(wanted))
        self.refresh()

    async def _load(self, wanted: Wanted) -> None:
        """Cells at once; pixels, where there are such, when the user stays."""
        loop, pool = asyncio.get_running_loop(), self._thumbnails.pool
        drawn = await loop.run_in_executor(pool, draw, self._thumbnails, wanted)
        self._keep(wanted, drawn)
        if wanted.protocol and not drawn.cells.problem:
            self._keep(wanted, await loop.run_in_executor(pool, with_pixels, self._thumbnails, wanted, drawn))

    def _keep(self, wanted: Wanted, drawn: Drawn) -> None:
        self._kept.put(wanted, drawn)
        if wanted == self._wanted:
            self._drawn, self._loading = drawn, False
            self.refresh()

    def _hatch(self, wanted: Wanted) -> None:
        if wanted == self._wanted and wanted not in self._kept:
            self._drawn, self._loading = None, True
            self.refresh()

    def content_key(self) -> Hashable:
        """The picture drawn, by identity: equal ones are the same."""
        return id(self._drawn), self._loading, self._picture is None

    def paint(self, width: int, height: int) -> list[Strip]:
        """The picture in the middle of its place."""
        lines = self._lines(width, height)
        above = max(0, (height - len(lines)) // 2)
        blank: list[list[Run]] = [[]] * above
        return [strip_of(line, width, self.rich_style) for line in [*blank, *lines][:height]]

    def _lines(self, width: int, height: int) -> list[list[Run]]:
        drawn = self._drawn
        if drawn is None:
            hatch = self.style_of("preview--hatch")
            return [[(self.glyphs.empty * width, hatch)]] * height if self._loading else []
        if drawn.cells.problem:
            problem, hint = self.style_of("preview--problem"), self.style_of("preview--hint")
            told = [(line, problem) for line in wrap(f"{self.glyphs.error} {drawn.cells.problem}", width)]
            return [[part] for part in [*told, *((line, hint) for line in wrap(drawn.hint, width))]]
        left = (" " * ((width - drawn.cells.columns) // 2), self.rich_style)
        return [
            [
                left,
                *((text, piece_style(front, back) if front >= 0 else self.rich_style) for text, front, back in line),
            ]
            for line in drawn.cells.lines
        ]

    def render_lines(self, crop: Region) -> list[Strip]:
        """The cells; in the picture's last line, what puts the pixels over them."""
        strips = super().render_lines(crop)
        drawn = self._drawn
        if drawn is None or not drawn.graphic or self._covered():
            return strips
        above = max(0, (self.size.height - drawn.cells.rows) // 2)
        last = above + drawn.cells.rows - 1 - crop.y
        if not 0 <= last < len(strips) or crop.width < self.size.width:
            return strips
        area = self.content_region
        sequence = self._pixels(drawn)
        column, row = area.x + (area.width - drawn.cells.columns) // 2, area.y + above
        return [*strips[:last], _carrying(strips[last], placed(sequence, column, row)), *strips[last + 1 :]]

    def _pixels(self, drawn: Drawn) -> str:
        """What shows the picture at the cursor; Kitty's is handed over before, on the way that frames take too."""
        if self._wanted is None or self._wanted.protocol != "kitty":
            return drawn.graphic
        if self._sent != drawn.graphic:
            self._write((kitty_forget(self._number) if self._sent else "") + drawn.graphic)
            self._sent = drawn.graphic
        return kitty_show(self._number, drawn.cells.columns, drawn.cells.rows)

    def _covered(self) -> bool:
        if not self.is_attached or self.screen is not self.app.screen or not self.is_on_screen:
            return True
        if not self.app._notifications:
            return False
        return any(toast.region.overlaps(self.region) for toast in self.screen.query(Toast))

    def _watch_cover(self) -> None:
        """Take the pixels away when something came over them, put them back when it is gone."""
        covered = self._covered()
        if covered != self._was_covered:
            self._was_covered = covered
            self._take_away()
            if not covered:
                self.refresh()

    def _take_away(self) -> None:
        if self._sent:
            self._sent = ""
            self._write(kitty_forget(self._number))

    def _write(self, sequence: str) -> None:
        """To the terminal after the frame, on the way that Textual's own sequences take."""
        driver = self.app._driver
        if driver is not None:
            driver.write(sequence)


def _carrying(strip: Strip, sequence: str) -> Strip:
    """``strip`` with a sequence in it that takes no cell and is written when the strip is.

    Before its last cell: what follows the last one is lost when strips are cut. That cell stays a cell.
    """
    head, tail = strip.divide([strip.cell_length - 1, strip.cell_length])
    control = Segment(sequence, Style.null(), [(ControlType.HOME,)])
    return Strip([*head, control, *tail], strip.cell_length)


def how_to_draw(app: App[Any]) -> tuple[Manner | None, str, tuple[int, int]]:
    """Kind of cells (None: no pictures), picture protocol or "", and a cell's size in pixels."""
    images = getattr(getattr(getattr(app, "workplace", None), "settings", None), "images", "auto")
    traits: Traits | None = getattr(app, "traits", None)
    if images == "off":
        return None, "", (0, 0)
    if getattr(app, "ascii_terminal", False):
        return "ascii", "", (0, 0)
    told = (traits.cell_width, traits.cell_height) if traits is not None else (0, 0)
    cell = told if all(0 < size <= most for size, most in zip(told, MOST_CELL, strict=True)) else USUAL_CELL
    protocol = traits.images if images == "auto" and traits is not None else images
    if protocol not in ("kitty", "sixel"):
        protocol = ""
    return "halves" if images == "half" else "quadrants", protocol, cell


def pictures_are_off(app: KilnApp) -> bool:
    """Whether pictures are not drawn at all, and said so."""
    off = how_to_draw(app)[0] is None
    if off:
        app.say("Pictures are off: images in the settings turns them on")
    return off
