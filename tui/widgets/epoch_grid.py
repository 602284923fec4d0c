"""The grid of pictures: prompts down, epochs across, beside the dataset's pictures nearest to each prompt.

The same widget shows one prompt over strengths. Both ways it scrolls by whole pictures, so that the cursor is always
in sight; what is not in sight is neither decoded nor drawn.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.cells import set_cell_size
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from engine.text import safe_text
from tui.epochs_shown import Shown
from tui.places import sample_in
from tui.widgets.cells import strip_of, wrap
from tui.widgets.decoded import DecodedPictures, Wanted
from tui.widgets.epoch_table import EpochChosen
from tui.widgets.picture import PictureCells, picture_cells
from tui.widgets.preview import how_to_draw

if TYPE_CHECKING:
    from tui.thumbnails import Thumbnails

LEAST_ROWS, MOST_ROWS = 4, 14
"""Rows of a picture; it is twice as many columns wide."""
FEWEST_ACROSS = 4
"""Pictures that are side by side before they are made larger."""
OWN_PART = 4
"""One of so many columns, at least, has the dataset's pictures."""
KEPT_STRIPS = 300

NO_PICTURES = (
    "This run drew no pictures. [[sampling.prompts]] in its configuration has them drawn as epochs end; x in the "
    "training pane of a live run draws them at once."
)


@dataclass(frozen=True)
class Plan:
    """How the room is shared: rows and columns of a picture, how many there are down and across.

    Attributes:
        trained: so many of the columns, the first ones, have training pictures.
    """

    rows: int
    down: int
    across: int
    trained: int

    @property
    def columns(self) -> int:
        """Cells of a picture's width."""
        return 2 * self.rows


def plan_for(width: int, height: int, lines: int, drawn: int, own: int) -> Plan:
    """Pictures as large as leaves a few lines and a few of them side by side; each line has a heading.

    Args:
        drawn: epochs that have pictures.
        own: the dataset's pictures; they have a part of the columns, and all that the epochs leave.
    """
    down = max(1, min(lines, (height - 1) // (LEAST_ROWS + 3)))
    rows = max(1, min(MOST_ROWS, (height - 1) // down - 1, (width // FEWEST_ACROSS - 1) // 2))
    across = max(1, width // (2 * rows + 1))
    trained = min(own, across - 1, max(across // OWN_PART, across - drawn, 1))
    return Plan(rows, max(1, (height - 1) // (rows + 1)), across - trained, trained)


@dataclass
class OwnChosen(Message):
    """The user pointed at a picture of the dataset, at ``place`` of the order for a prompt, by its number."""

    place: int
    prompt: int


class EpochGrid(DecodedPictures, can_focus=True):
    """The picture pane.

    Args:
        pool: threads that decode pictures.
        thumbnails: gives the small pictures of a dataset, whose files are strangers'.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"grid--head", "grid--here", "grid--prompt", "grid--kind", "grid--hatch"}

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        thumbnails: Callable[[], Thumbnails],
        id: str | None = None,  # noqa: A002 - Textual's name
    ) -> None:
        super().__init__(pool, id=id, classes="pane")
        self.shown = Shown()
        self._thumbnails = thumbnails
        self._left = self._top = 0
        self._by_picture: dict[tuple[Wanted, Style], list[Strip]] = {}
        self._arranged: Hashable = None

    def take(self, shown: Shown) -> None:
        """Show this; where the same pictures stay in sight, only their headings are drawn anew."""
        self.shown = shown
        before, self._arranged = self._arranged, self._arrangement()
        self._load_missing()
        if before != self._arranged or not self.size.height:
            self.refresh()
            return
        plan = self._plan
        heads = range(1, self.size.height, plan.rows + 1)
        self.refresh(*(Region(0, line, self.size.width, 1) for line in (0, *heads)))

    def content_key(self) -> Hashable:
        """What is shown, where the cursor is, and how many pictures were decoded."""
        shown = self.shown
        moved = shown.version, shown.at, shown.prompt, shown.by_strength, shown.own_at
        return moved, self._loads, self._left, self._top

    @property
    def lines(self) -> list[tuple[int, float]]:
        """Prompt and strength of each line of the grid."""
        shown, prompt = self.shown, self.shown.current_prompt
        if shown.by_strength:
            return [(prompt.index, strength) for strength in shown.strengths] if prompt is not None else []
        return [(prompt.index, 1.0) for prompt in shown.prompts]

    @property
    def _plan(self) -> Plan:
        return plan_for(*self.size, len(self.lines), len(self.shown.drawn), len(self.shown.own))

    @property
    def own_step(self) -> int:
        """How many of the dataset's pictures one goes on by: as many as there are in sight for a prompt."""
        plan = self._plan
        return max(1, plan.trained * (min(plan.down, len(self.lines)) if self.shown.by_strength else 1))

    def _arrangement(self) -> Hashable:
        """Keep the cursor in sight; what comes back differs when other pictures are."""
        plan, drawn = self._plan, self.shown.drawn
        if self.size.width:  # while it is hidden nothing is in sight, and nothing has to be
            column, beside = self._column, int(plan.across > 2)
            last = max(0, len(drawn) - plan.across)
            self._left = min(max(min(self._left, column - beside), column + beside - plan.across + 1, 0), last)
            line = 0 if self.shown.by_strength else self.shown.prompt
            self._top = max(0, min(self._top, line, len(self.lines) - plan.down), line - plan.down + 1)
        shown = self.shown
        return plan, self._left, self._top, shown.version, shown.by_strength, shown.own_at, tuple(self.lines)

    @property
    def _column(self) -> int:
        """The column of the cursor's epoch, or of the nearest one before it that has a picture."""
        return max(0, bisect_right(self.shown.drawn, self.shown.epoch) - 1)

    def _cells(self) -> list[list[Wanted | None]]:
        """What is in sight: for each line training pictures, as many as have columns, then the epochs."""
        plan, shown, ascii_only = self._plan, self.shown, self.glyphs.ascii
        found = []
        for number, (index, strength) in enumerate(self.lines[self._top : self._top + plan.down]):
            row: list[Wanted | None] = []
            for place in range(plan.trained):
                own = shown.own.at(index, self._own_place(number, place))
                row.append(None if own is None else (str(own[0]), plan.columns, plan.rows, ascii_only))
            for epoch in shown.drawn[self._left : self._left + plan.across]:
                sample = shown.grid.get((epoch, index, strength))
                where = "" if sample is None else str(sample_in(shown.folder, sample.path))
                row.append((where, plan.columns, plan.rows, ascii_only) if where else None)
            found.append(row)
        return found

    def _own_place(self, line: int, column: int) -> int:
        """The place, in its prompt's order, of a training picture; lines of one prompt have different ones."""
        before = line * self._plan.trained if self.shown.by_strength else 0
        return self.shown.own_at + before + column

    def _wanted(self) -> list[Wanted]:
        if self.size.width < 4 or self.size.height < 3 or how_to_draw(self.app)[0] is None:
            return []
        self._arrangement()
        return [cell for row in self._cells() for cell in row if cell is not None]

    def _decode(self, wanted: Wanted) -> PictureCells:
        path, columns, rows, ascii_only = wanted
        if path not in self.shown.own.paths:
            return super()._decode(wanted)
        thumbnail = self._thumbnails().load(Path(path))
        if thumbnail.pixels is None:
            return PictureCells(0, 0, (), thumbnail.problem)
        return picture_cells(thumbnail.pixels, columns, rows, "ascii" if ascii_only else "quadrants")

    def paint(self, width: int, height: int) -> list[Strip]:
        """Epochs above, then each line's prompt and its pictures."""
        if (text := self._nothing()) or height < 3:
            lines = wrap(text, max(8, width - 4))[:height]
            above = [""] * max(0, (height - len(lines)) // 2)
            head = self.style_of("grid--head")
            return [strip_of([(line.center(width), head)], width, self.rich_style) for line in [*above, *lines]]
        self._arrangement()
        plan, blank, hatch = self._plan, self.rich_style, self.style_of("grid--hatch")
        strips = [self._heading(plan, width)]
        gap = strip_of([], 1, blank)
        for number, row in enumerate(self._cells(), self._top):
            strips.append(self._label(number, width))
            pictures = [self._picture(cell, plan, blank, hatch) for cell in row]
            for line in range(plan.rows):
                joined = Strip.join([part for picture in pictures for part in (picture[line], gap)])
                strips.append(joined.adjust_cell_length(width, blank))
        return strips[:height]

    def _nothing(self) -> str:
        """Why there is nothing to draw; empty where there is something."""
        shown = self.shown
        if how_to_draw(self.app)[0] is None:
            return "Pictures are off: images in the settings turns them on."
        if not shown.grid:
            return NO_PICTURES if shown.version else " "  # a run that is being read may have some
        if shown.by_strength and shown.strengths in ([], [1.0]):
            drawn = ",".join(map(str, [epoch for epoch in shown.drawn if epoch][-3:])) or "4,8"
            folder = safe_text(os.path.relpath(shown.folder), 200)
            return (
                f"Pictures at full strength only. `kiln sample {folder} --epochs {drawn} --strengths 0.6,0.8,1.0` "
                "draws others, R shows them; s goes back to the prompts."
            )
        return ""

    def _heading(self, plan: Plan, width: int) -> Strip:
        head, mark = self.style_of("grid--head"), self.style_of("grid--here")
        runs = [(f"{self._own_heading(plan)} ", head)] if plan.trained else []
        column = self._column
        for number, epoch in enumerate(self.shown.drawn[self._left : self._left + plan.across], self._left):
            name = ("base" if epoch == 0 else f"e{epoch}") + ("!" if epoch in self.shown.copies else "")
            name = f"[{name}]" if number == column else name
            runs.append((name.center(plan.columns) + " ", mark if number == column else head))
        return strip_of(runs, width, self.rich_style)

    def _own_heading(self, plan: Plan) -> str:
        """Which of the dataset's pictures are in sight, as wide as their columns."""
        room, count, first = plan.trained * (plan.columns + 1) - 1, len(self.shown.own), self.shown.own_at + 1
        last = min(count, self.shown.own_at + self.own_step)
        which = f"{first}-{last}/{count}" if last > first else f"{first}/{count}"
        told = next((text for text in (f"training {which}", which) if len(text) <= room), "training")
        return set_cell_size(told.center(room), room)

    def _label(self, number: int, width: int) -> Strip:
        shown = self.shown
        index, strength = self.lines[number]
        prompt = next(prompt for prompt in shown.prompts if prompt.index == index)
        here = number == shown.prompt and not shown.by_strength
        kind = f"strength {strength:g}" if shown.by_strength else prompt.kind or f"prompt {index + 1}"
        sign = ">" if here and len(shown.prompts) > 1 else " "
        room = max(1, width - len(kind) - 4)
        text = safe_text(prompt.text, 400)
        cut = set_cell_size(text, room - 1) + self.glyphs.ellipsis[:1] if len(text) > room else text
        style = self.style_of("grid--here" if here else "grid--kind")
        return strip_of([(f"{sign}{kind}: ", style), (cut, self.style_of("grid--prompt"))], width, self.rich_style)

    def _picture(self, wanted: Wanted | None, plan: Plan, blank: Style, hatch: Style) -> list[Strip]:
        if wanted is None:
            return [strip_of([], plan.columns, blank)] * plan.rows
        strips = self._by_picture.get((wanted, blank))
        if strips is None:
            lines = self._drawn(wanted, hatch, blank)
            strips = [strip_of(line, plan.columns, blank) for line in lines]
            if wanted in self._kept:
                if len(self._by_picture) > KEPT_STRIPS:
                    self._by_picture.clear()
                self._by_picture[wanted, blank] = strips
        return strips

    def on_click(self, event: Click) -> None:
        """Go to the picture under the pointer."""
        offset = event.get_content_offset(self)
        if offset is None or self._nothing():
            return
        plan = self._plan
        place = offset.x // (plan.columns + 1)
        column = self._left + place - plan.trained
        line = self._top + (offset.y - 1) // (plan.rows + 1)
        if place < plan.trained and offset.y and line < len(self.lines):
            own = self._own_place(line - self._top, place)
            self.post_message(OwnChosen(own, self.shown.prompt if self.shown.by_strength else line))
            return
        drawn = self.shown.drawn
        if 0 <= column < len(drawn) and offset.y and 0 <= line < len(self.lines):
            self.post_message(EpochChosen(drawn[column], prompt=-1 if self.shown.by_strength else line))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """The wheel goes to the next epoch."""
        self.post_message(EpochChosen(0, by=1))

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """The wheel goes to the epoch before."""
        self.post_message(EpochChosen(0, by=-1))
