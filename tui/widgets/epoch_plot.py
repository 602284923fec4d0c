"""The curves of the epochs screen: what was measured over the epochs, with the advised range and the cursor.

One signal at a time: the losses (held-out pictures with the spread of the noise seeds as bars, training pictures),
the loss by noise level, the drift, the size of the update by kind of layer. Below the curve the axis says what there
is of each epoch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.events import Click
from textual.strip import Strip

from engine.events import BANDS, Measured
from engine.text import safe_text
from tui.epochs_shown import Shown
from tui.widgets.cells import Run, strip_of, wrap
from tui.widgets.epoch_table import EpochChosen
from tui.widgets.plot import LABEL_WIDTH, Chart, Curve, Mark, Plot

SIGNALS = ("loss", "by noise level", "drift", "update by layer", "scores")
TITLES = (
    "Loss: lower is better",
    "Loss by noise level, % of the first measurement",
    "Drift on ordinary prompts, %",
    "Size of the update, by kind of layer",
    "What the pictures score: higher is more alike",
)
MOST_LINES = 4
"""Kinds of layer drawn: those with the largest updates."""

NOT_MEASURED = (
    "Nothing was measured in this run. In its configuration, [validation] every_epochs = "
    '"auto" measures at the end of epochs; pictures and stars work without.'
)
NOT_SCORED = (
    "No picture was scored. In a run's configuration, score_clip or score_dino of [sampling] names what does."
)
STYLES = ("plot--line", "plot--second", "plot--third", "plot--fourth")


@dataclass(frozen=True)
class Line:
    """One course over the epochs, and how it is called."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: str
    joined: bool = True


def lines_of(measured: Sequence[Measured], signal: int) -> list[Line]:
    """The courses of a signal, those drawn last on top; none where it was not measured."""
    if signal == 0:
        return _losses(measured)
    if signal == 1:
        return _bands(measured)
    if signal == 2:
        return _course(
            "drift", [(one.epoch, 100 * one.drift) for one in measured if one.drift is not None], STYLES[0]
        )
    return _updates(measured)


def _course(name: str, points: Sequence[tuple[float, float]], style: str, joined: bool = True) -> list[Line]:
    if not points:
        return []
    x, y = zip(*points, strict=True)
    return [Line(name, tuple(map(float, x)), tuple(map(float, y)), style, joined)]


def score_lines(scored: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> list[Line]:
    """The courses of what pictures were scored."""
    names = {
        "clip_image": "like the training pictures (CLIP)",
        "dino": "like them (DINO)",
        "clip_text": "like the prompt",
    }
    found = []
    for (name, points), style in zip(scored, STYLES, strict=False):
        found += _course(names.get(name, safe_text(name, 40)), points, style)
    return found


def _losses(measured: Sequence[Measured]) -> list[Line]:
    held = [one for one in measured if one.held_out]
    bars = [
        (one.epoch, end) for one in held if len(one.held_out) > 1 for end in (min(one.held_out), max(one.held_out))
    ]
    return [
        *_course("training", [(one.epoch, fmean(one.train)) for one in measured if one.train], STYLES[1]),
        *_course("spread of its noise", bars, "plot--raw", joined=False),
        *_course("held-out", [(one.epoch, fmean(one.held_out)) for one in held], STYLES[0]),
    ]


def _bands(measured: Sequence[Measured]) -> list[Line]:
    """Each band against its own first value: where noise is low all losses are larger, which says nothing."""
    tables = [(one.epoch, one.held_out_bands or one.train_bands) for one in measured]
    if any(one.held_out_bands for one in measured):
        tables = [(one.epoch, one.held_out_bands) for one in measured]
    tables = [(epoch, bands) for epoch, bands in tables if len(bands) == len(BANDS) and all(bands)]
    found = []
    for number, name in enumerate(BANDS):
        points = [(epoch, 100 * bands[number] / tables[0][1][number]) for epoch, bands in tables]
        found += _course(name, points, STYLES[number])
    return found


def _updates(measured: Sequence[Measured]) -> list[Line]:
    tables = [(one.epoch, dict(one.update)) for one in measured if one.update]
    last = tables[-1][1] if tables else {}
    kinds = sorted(last, key=lambda kind: -last[kind])[:MOST_LINES]
    found = []
    for number, kind in enumerate(kinds):
        found += _course(kind, [(epoch, sizes[kind]) for epoch, sizes in tables if kind in sizes], STYLES[number])
    return found


class EpochPlot(Plot, can_focus=True):
    """The curve pane; a click goes to the epoch under the pointer."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "plot--raw", "plot--line", "plot--second", "plot--third", "plot--fourth", "plot--axis", "plot--mark",
        "plot--range", "plot--here",
    }  # fmt: skip

    def __init__(self, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.add_class("pane")
        self.shown = Shown()
        self._lines: list[Line] = []
        self._chart = Chart((), (0, 1), (0, 1))
        self._made: Hashable = None

    def take(self, shown: Shown) -> None:
        """Show this."""
        self.shown = shown
        made = (shown.version, shown.signal)
        if made != self._made:
            self._made = made
            scores = shown.signal == len(SIGNALS) - 1
            self._lines = score_lines(shown.scored) if scores else lines_of(shown.measured, shown.signal)
            self._chart = self._charted()
        self.refresh()

    def content_key(self) -> Hashable:
        """What is shown, and where the cursor is."""
        return self.shown.version, self.shown.signal, self.shown.at

    def chart(self) -> Chart:
        """The signal's courses."""
        return self._chart

    def _charted(self) -> Chart:
        last = float(max(1, *(row.epoch for row in self.shown.rows), 1)) if self.shown.rows else 1.0
        x_range = (0.0, last)
        if not self._lines:
            missing = "This was not measured here." if self.shown.is_measured else NOT_MEASURED
            missing = NOT_SCORED if self.shown.signal == len(SIGNALS) - 1 else missing
            missing = missing if self.shown.version else ""
            return Chart((), x_range, (0, 1), empty=missing)
        import numpy as np

        curves = tuple(Curve(np.array(line.x), np.array(line.y), line.style, line.joined) for line in self._lines)
        values = [value for line in self._lines for value in line.y if value == value]
        low, high = min(values, default=0.0), max(values, default=1.0)
        pad = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
        return Chart(curves, x_range, (low - pad, high + pad), self._marks(), "0", str(int(last)))

    def _marks(self) -> tuple[Mark, ...]:
        shown, glyphs = self.shown, self.glyphs
        marks = []
        for row in shown.rows:
            saved = bool(shown.files_of(row))
            sign = glyphs.saved if saved else glyphs.tick
            marks.append(Mark(row.epoch, sign, str(row.epoch), "plot--mark" if saved else "plot--axis"))
        return tuple(marks)

    def paint(self, width: int, height: int) -> list[Strip]:
        """Legend, curves, axis; the advised range and the cursor's epoch on another ground."""
        legend = height >= 6 and bool(self._lines)
        strips = super().paint(width, height - legend)
        if self._lines and len(strips) > 1:
            strips = [*(self._grounded(strip, width) for strip in strips[:-1]), strips[-1]]
        return [self._legend(width), *strips] if legend else strips

    def _legend(self, width: int) -> Strip:
        signs = ".:*#"
        runs: list[Run] = []
        for number, line in enumerate(self._lines):
            sign = signs[min(number + 1, 4) - 1] if self.glyphs.ascii else "━" if line.joined else "┃"
            runs.append((f"{sign} {line.name}  ", self.style_of(line.style)))
        axis = self.style_of("plot--axis")
        runs.append(("[=] advised  B best  ^ here" + ("  T taken" if self.shown.judged.chosen else ""), axis))
        return strip_of(runs, width, self.rich_style)

    def _column(self, epoch: float, columns: int) -> int:
        return round(epoch / max(self._chart.x_range[1], 1e-9) * (columns - 1))

    def _grounded(self, strip: Strip, width: int) -> Strip:
        """The strip with the range's and the cursor's ground below its dots."""
        label = LABEL_WIDTH if width >= 24 else 0
        columns, advice = width - label, self.shown.advice
        spans: list[tuple[int, int, str]] = []
        if advice.best:
            first, last = (label + self._column(end, columns) for end in (advice.first, advice.last))
            spans.append((first, last + 1, "plot--range"))
        if self.shown.epoch >= 0:
            here = label + self._column(self.shown.epoch, columns)
            spans.append((here, here + 1, "plot--here"))
        for first, last, name in spans:
            ground = Style(bgcolor=self.style_of(name).bgcolor)
            before, inside, after = (strip.crop(*ends) for ends in ((0, first), (first, last), (last, width)))
            # Over the segments' own ground, which a style under them would not show through.
            painted = Strip(Segment.apply_style(list(inside), post_style=ground), inside.cell_length)
            strip = Strip.join([before, painted, after])
        return strip

    def _message(self, text: str, width: int, height: int) -> list[Strip]:
        axis = self.style_of("plot--axis")
        lines = wrap(text, max(8, width - 4))[:height]
        above = (height - len(lines)) // 2
        rows = [""] * above + lines
        return [strip_of([(line.center(width), axis)], width, self.rich_style) for line in rows]

    def _axis(self, chart: Chart, columns: int) -> list[Run]:
        """The usual axis; over it the range as a bracket, the best, taken and current epochs as letters."""
        cells = super()._axis(chart, columns)
        advice, mark = self.shown.advice, self.style_of("plot--mark")
        if advice.best:
            first, last = self._column(advice.first, columns), self._column(advice.last, columns)
            for column in range(first, last + 1):
                if cells[column][0] == " ":
                    cells[column] = ("=", mark)
            if last > first:
                cells[first], cells[last] = ("[", mark), ("]", mark)
            cells[self._column(advice.best, columns)] = ("B", mark)
        if self.shown.judged.chosen:
            cells[min(columns - 1, self._column(self.shown.judged.chosen, columns))] = ("T", mark)
        if self.shown.epoch >= 0:
            cells[self._column(self.shown.epoch, columns)] = ("^", self.style_of("plot--here"))
        return cells

    def on_click(self, event: Click) -> None:
        """Go to the epoch under the pointer."""
        offset = event.get_content_offset(self)
        label = LABEL_WIDTH if self.size.width >= 24 else 0
        if offset is not None and offset.x >= label:
            part = (offset.x - label) / max(1, self.size.width - label - 1)
            self.post_message(EpochChosen(round(part * self._chart.x_range[1])))
