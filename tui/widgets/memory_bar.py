"""Memory as bars split by part: each part has its letter and its colour, so a bar reads without colours too.

A run's stages stand under each other on one scale; the one that holds most is marked. What goes beyond the limit is
drawn as ``!``. Where there are few lines, the peak's bar alone is shown.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from rich.cells import cell_len
from textual.geometry import Size
from textual.strip import Strip

from tui.widgets.cells import CellWidget, Run, strip_of
from tui.wizard.memory import LETTERS, WORDS, Bar

LABEL, FIGURE = 18, 16
"""Cells at the left and at the right of a bar."""


class MemoryBar(CellWidget):
    """The bars, and under them what the letters mean in the peak's."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "memory--weights", "memory--lora", "memory--activations", "memory--buffers", "memory--context",
        "memory--others", "memory--free", "memory--over", "memory--warn", "memory--label", "memory--peak",
    }  # fmt: skip

    def __init__(self, id: str | None = None, brief: bool = False) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.bars: tuple[Bar, ...] = ()
        self.empty = ""
        self._brief = brief

    def tell(self, bars: tuple[Bar, ...], empty: str = "") -> None:
        """Show other bars; ``empty`` says why there are none. It is safe to show."""
        if (bars, empty) != (self.bars, self.empty):
            grown = len(bars) != len(self.bars)
            self.bars, self.empty = bars, empty
            self.refresh(layout=grown)

    def content_key(self) -> Hashable:
        """The bars."""
        return self.bars, self.empty, self._brief

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line a bar, and the legend."""
        return 1 if self._brief else max(1, len(self.bars) + len(self._legend(width)))

    @property
    def peak(self) -> Bar | None:
        """The bar that decides; the first where none is marked."""
        marked = [bar for bar in self.bars if bar.peak]
        return next(iter(marked or self.bars), None)

    def paint(self, width: int, height: int) -> list[Strip]:
        """All bars, or the peak's."""
        peak = self.peak
        if peak is None:
            return [strip_of([(self.empty, self.style_of("memory--label"))], width, self.rich_style)]
        if self._brief:
            return [strip_of(self._line(peak, width, 0), width, self.rich_style)]
        lines = [self._line(bar, width, LABEL) for bar in self.bars] + self._legend(width)
        return [strip_of(line, width, self.rich_style) for line in lines[:height]]

    def _line(self, bar: Bar, width: int, label: int) -> list[Run]:
        sign = "! " if bar.over else f"{self.glyphs.running} " if bar.peak else "  "
        style = self.style_of("memory--warn" if bar.over else "memory--peak" if bar.peak else "memory--label")
        figure = f" {bar.used_gb:5.1f} of {bar.total_gb:.0f} GB"
        room = max(4, width - label - FIGURE)
        head = [(f"{sign}{bar.label}"[:label].ljust(label), style)] if label else []
        return [*head, *self._segments(bar, room), (f"{figure:<{FIGURE}}", style)]

    def _segments(self, bar: Bar, room: int) -> list[Run]:
        """The parts, each with its name where there is room for it; the smallest still has a cell."""
        scale = max(bar.total_gb, bar.used_gb) or 1.0
        runs: list[Run] = []
        done, at = 0.0, 0
        limit = round(bar.limit_gb / scale * room) if bar.over else room
        for kind, gb in bar.parts:
            done += gb
            end = min(room, max(round(done / scale * room), at + (kind != "free")))
            if end <= at:
                continue
            inside = max(0, min(end, limit) - at)
            runs += [(_named(kind, inside), self.style_of(_class(kind)))] if inside else []
            over = end - at - inside
            runs += [("!" * over, self.style_of("memory--over"))] if over else []
            at = end
        return [*runs, (LETTERS["free"] * (room - at), self.style_of("memory--free"))]

    def _legend(self, width: int) -> list[list[Run]]:
        """Letters, names and figures of the peak's parts, as many a line as fit."""
        peak = self.peak
        if peak is None:
            return []
        lines: list[list[Run]] = [[]]
        room = width
        for kind, gb in peak.parts:
            words = f" {WORDS.get(kind, kind)} {gb:.1f}"
            cells = 1 + cell_len(words) + 2
            if cells > room and lines[-1]:
                lines.append([])
                room = width
            lines[-1] += [
                (LETTERS[kind], self.style_of(_class(kind))),
                (f"{words}  ", self.style_of("memory--label")),
            ]
            room -= cells
        return lines


def _class(kind: str) -> str:
    return f"memory--{kind.lower()}"


def _named(kind: str, cells: int) -> str:
    """A part of a bar: its letter all along, its name in the middle where there is room for it."""
    letter, name = LETTERS[kind], f" {kind} "
    if cells < len(name) + 2 or kind == "free":
        return letter * cells
    left = (cells - len(name)) // 2
    return letter * left + name + letter * (cells - len(name) - left)
