"""How many tokens a caption costs in the two text encoders, and what of it is not read.

Over a limit the gauge says so by a sign and in words: how many tokens too many, and after which word the text is
cut. CLIP gives FLUX.1 one vector for the whole text, so its limit is the milder one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from textual.strip import Strip

from engine.dataset.tokens import Measured
from engine.text import safe_text
from tui.widgets.cells import CellWidget, Run, strip_of

BAR = 24
"""Most cells of a bar."""


@dataclass(frozen=True)
class Counted:
    """What was counted of one text; ``clip`` and ``t5`` are None where there is no tokenizer."""

    clip: int | None = None
    t5: int | None = None
    clip_cut: int | None = None
    """Character from which on CLIP reads no more; None where it reads everything."""
    t5_cut: int | None = None
    text: str = ""

    @classmethod
    def of(cls, text: str, measured: Measured | None) -> Counted:
        """What was measured of ``text``; nothing without tokenizers."""
        return cls(text=text) if measured is None else cls(**vars(measured), text=text)


class Gauges(CellWidget):
    """Two lines: CLIP and T5."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "gauges--label", "gauges--bar", "gauges--rail", "gauges--over", "gauges--number",
    }  # fmt: skip

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.counted = Counted()
        self.limits = (77, 512)
        self.problem = ""

    def tell(self, counted: Counted, limits: tuple[int, int], problem: str = "") -> None:
        """Show other counts; ``problem`` says why there are none."""
        if (counted, limits, problem) != (self.counted, self.limits, self.problem):
            self.counted, self.limits, self.problem = counted, limits, problem
            self.refresh()

    def content_key(self) -> Hashable:
        """The counts."""
        return self.counted, self.limits, self.problem

    def paint(self, width: int, height: int) -> list[Strip]:
        """One line an encoder, or why there are none."""
        if self.counted.clip is None and self.problem:
            line: list[Run] = [
                (f"{self.glyphs.warning} ", self.style_of("gauges--over")),
                (f"no token counts: {safe_text(self.problem, 400)}", self.style_of("gauges--label")),
            ]
            return [strip_of(line, width, self.rich_style)]
        counted, (clip, t5) = self.counted, self.limits
        lines = [
            self._line("CLIP", counted.clip, clip, counted.clip_cut, width),
            self._line("T5", counted.t5, t5, counted.t5_cut, width),
        ]
        return [strip_of(line, width, self.rich_style) for line in lines[:height]]

    def _line(self, name: str, count: int | None, limit: int, cut: int | None, width: int) -> list[Run]:
        label = self.style_of("gauges--label")
        if count is None:
            return [(f"{name:<4}    -/{limit}", label)]
        over = count > limit
        sign = self.glyphs.warning if over else " "
        row: list[Run] = [(f"{name:<4}", label), (f"{sign}{count:>4}/{limit:<3} ", self.style_of(_number(over)))]
        if over:
            told = f"{count - limit} over" + (f", cut after {_word_before(self.counted.text, cut)}" if cut else "")
            return [*row, (told, self.style_of("gauges--over"))]
        cells = max(4, min(BAR, width - sum(len(text) for text, _ in row)))
        full = min(cells, round(cells * count / limit))
        return [
            *row,
            (self.glyphs.bar * full, self.style_of("gauges--bar")),
            (self.glyphs.rail * (cells - full), self.style_of("gauges--rail")),
        ]


def _number(over: bool) -> str:
    return "gauges--over" if over else "gauges--number"


def _word_before(text: str, cut: int) -> str:
    """The last word that is read as a whole."""
    while 0 < cut < len(text) and not text[cut].isspace() and not text[cut - 1].isspace():
        cut -= 1
    words = text[:cut].split()
    return f'"{safe_text(words[-1], 24)}"' if words else "the start"
