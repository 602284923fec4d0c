"""Plots over the course of a run: loss, learning rate, memory. One raster, three small subclasses.

A subclass turns the view into a :class:`Chart`; this module knows how to draw one: labels at the left, dots in the
middle, epochs and saved files on the axis below.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual.strip import Strip

from tui.units import duration, number
from tui.view import RunView
from tui.widgets.cells import CellWidget, Run, strip_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LABEL_WIDTH = 7
WINDOWS = 8
"""Most halvings of the visible range."""

_STRIDES = [first * 10**power for power in range(9) for first in (1, 2, 5)]


@dataclass(frozen=True)
class Curve:
    """One course: positions, values, the component class that styles it, and whether its points are joined."""

    x: Floats
    y: Floats
    style: str
    connect: bool = True


@dataclass(frozen=True)
class Mark:
    """A sign on the axis at position ``x``, with a short label that is dropped where there is no room."""

    x: float
    sign: str
    label: str
    style: str


@dataclass(frozen=True)
class Chart:
    """All a plot shows; without curves, ``empty`` says why."""

    curves: tuple[Curve, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    marks: tuple[Mark, ...] = ()
    left: str = ""
    right: str = ""
    empty: str = ""


class Plot(CellWidget):
    """A chart drawn with braille dots; ``window`` halvings of the visible range are left of the newest value."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plot--raw", "plot--line", "plot--second", "plot--axis", "plot--mark"}

    window = 0

    def chart(self) -> Chart:
        """What to draw now."""
        raise NotImplementedError

    def set_window(self, window: int) -> None:
        """Show the last 1/2**window of the course."""
        self.window = window
        self.refresh()

    def paint(self, width: int, height: int) -> list[Strip]:
        """Labels, curves and axis as strips."""
        blank = self.rich_style
        chart = self.chart()
        label = LABEL_WIDTH if width >= 24 else 0
        rows, columns = height - 1, width - label
        if rows < 1 or columns < 2:
            return []
        if not chart.curves:
            return self._message(chart.empty, width, height)
        # numpy is not loaded before there is something to draw: the first frame comes sooner.
        from tui.widgets.braille import BrailleCanvas, column_spans

        canvas = BrailleCanvas(columns, rows)
        for layer, curve in enumerate(chart.curves, start=1):
            spans = column_spans(curve.x, curve.y, chart.x_range, columns * 2, curve.connect)
            canvas.draw(spans, chart.y_range, layer)
        styles = [blank, *(self.style_of(curve.style) for curve in chart.curves)]
        axis = self.style_of("plot--axis")
        strips = []
        for row in range(rows):
            runs: list[Run] = [(self._label(chart, row, rows, label), axis)]
            runs += [(text, styles[layer]) for text, layer in canvas.runs(row, self.glyphs.ascii)]
            strips.append(strip_of(runs, width, blank))
        strips.append(strip_of([(" " * label, blank), *self._axis(chart, columns)], width, blank))
        return strips

    def _label(self, chart: Chart, row: int, rows: int, width: int) -> str:
        step = 4 if rows >= 9 else max(2, rows - 1)
        if not width or (row % step and row != rows - 1) or (row != rows - 1 and rows - 1 - row < 2):
            return " " * width
        bottom, top = chart.y_range
        # Counted from the bottom: there the axis says exactly what its range does.
        value = bottom + (top - bottom) * (rows - 1 - row) / max(1, rows - 1)
        return f"{number(value, width - 1):>{width - 1}} "

    def _message(self, text: str, width: int, height: int) -> list[Strip]:
        blank, axis = self.rich_style, self.style_of("plot--axis")
        rows = [strip_of([], width, blank) for _ in range(height)]
        rows[height // 2] = strip_of([(text.center(width), axis)], width, blank)
        return rows

    def _axis(self, chart: Chart, columns: int) -> list[Run]:
        """The axis: signs first, so that none is hidden, then as many labels as find room."""
        axis = self.style_of("plot--axis")
        cells: list[tuple[str, Style]] = [(" ", axis)] * columns
        width = max(chart.x_range[1] - chart.x_range[0], 1e-12)
        placed = []
        inside = [mark for mark in chart.marks if chart.x_range[0] <= mark.x <= chart.x_range[1]]
        for mark in thinned(inside, columns):
            column = round((mark.x - chart.x_range[0]) / width * (columns - 1))
            if 0 <= column < columns:
                cells[column] = (mark.sign, self.style_of(mark.style))
                placed.append((column, mark.label))
        for column, text in placed:
            _write(cells, column + 1, text, axis)
        _write(cells, 0, chart.left, axis)
        _write(cells, columns - len(chart.right), chart.right, axis)
        return cells


def thinned(marks: list[Mark], columns: int) -> list[Mark]:
    """Of many numbered marks those at a round distance that leaves each room for its label; others all stay.

    Where files are saved at a regular distance, marks with a file are kept rather than marks between them.
    """
    numbers = [int(mark.label) for mark in marks if mark.label]
    room = len(str(max(numbers, default=0))) + 3
    if len(numbers) * room <= columns:
        return marks
    saved = [int(mark.label) for mark in marks if mark.label and mark.style == "plot--mark"]
    base = math.gcd(*saved) if saved else 1
    base = base if base * 4 <= len(numbers) else 1
    stride = next(base * step for step in _STRIDES if len(numbers) * room <= columns * base * step)
    return [mark for mark in marks if not mark.label or int(mark.label) % stride == 0]


def _write(cells: list[tuple[str, Style]], start: int, text: str, style: Style) -> None:
    """Write ``text`` if its cells, and one on each side that is not a sign, are free."""
    end = start + len(text)
    if not text or start < 0 or end > len(cells):
        return
    around = cells[start : min(len(cells), end + 1)]
    if all(cell[0] == " " for cell in around) and (start == 0 or not cells[start - 1][0].isalnum()):
        cells[start:end] = [(char, style) for char in text]


def step_range(view: RunView, window: int) -> tuple[float, float]:
    """First and last step to show: all so far, or the last 1/2**window of them; never fewer than 8 steps."""
    last = float(max(view.step, 8))
    return max(0.0, min(last - 8, last - last / 2**window)) if window else 0.0, last


def visible(view: RunView, x_range: tuple[float, float]) -> slice:
    """The part of the courses that lies in ``x_range``."""
    import numpy as np

    steps = np.frombuffer(view.courses.step.tobytes(), dtype=np.int64)
    return slice(int(np.searchsorted(steps, x_range[0])), len(steps))


def column(values: object, part: slice) -> Floats:
    """A copy of a growing column's part as floats; the copy leaves the column free to grow."""
    import numpy as np

    return np.array(memoryview(values)[part], dtype=np.float64)  # type: ignore[arg-type]


class LossPlot(Plot):
    """The loss: raw values dim, their moving average bright; epochs and saved files on the axis."""

    TOPICS = frozenset({"step", "epoch", "saved", "state"})

    smoothing: int | None = 0
    """Index of the average shown in the view's ``SMOOTHINGS``; None shows the raw values alone."""

    def content_key(self) -> Hashable:
        """Steps, marks, smoothing and range."""
        view = self.view
        return (
            len(view.courses.step), view.step, len(view.epoch_marks), len(view.checkpoints), self.smoothing,
            self.window, view.stage,
        )  # fmt: skip

    def chart(self) -> Chart:
        """Raw loss under its smoothed course, limits by the 1st to 99th percentile of what is visible."""
        view = self.view
        if not len(view.courses.step):
            return Chart((), (0, 1), (0, 1), empty="no steps yet")
        from tui.widgets.braille import robust_limits

        x_range = step_range(view, self.window)
        part = visible(view, x_range)
        x, raw = column(view.courses.step, part), column(view.courses.loss, part)
        curves = [Curve(x, raw, "plot--raw")]
        if self.smoothing is not None:
            smooth = column(view.courses.smoothed[self.smoothing].course, part)
            curves.append(Curve(x, smooth, "plot--line"))
        limits = robust_limits(*(curve.y for curve in curves))
        right = str(view.step)
        return Chart(tuple(curves), x_range, limits, self._marks(), str(int(x_range[0])), right)

    def _marks(self) -> tuple[Mark, ...]:
        glyphs, view = self.glyphs, self.view
        saved = {saved.step for saved in view.checkpoints}
        ends = {mark.step for mark in view.epoch_marks}
        marks = [
            Mark(
                mark.step, glyphs.saved if mark.step in saved else glyphs.tick, str(mark.epoch),
                "plot--mark" if mark.step in saved else "plot--axis",
            )
            for mark in view.epoch_marks
        ]  # fmt: skip
        marks += [Mark(step, glyphs.saved_step, "", "plot--mark") for step in sorted(saved - ends)]
        return tuple(marks)


def round_top(value: float) -> float:
    """The least round number from ``value`` on: 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten; 1 for zero."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20) if step * power >= value * (1 - 1e-9))


class RatePlot(Plot):
    """The learning rate over the steps."""

    TOPICS = frozenset({"step"})

    def content_key(self) -> Hashable:
        """Steps and range."""
        return len(self.view.courses.step), self.view.step, self.window

    def chart(self) -> Chart:
        """From zero to a round number that is no less than the highest rate seen."""
        view = self.view
        if not len(view.courses.step):
            return Chart((), (0, 1), (0, 1), empty="no steps yet")
        import numpy as np

        x_range = step_range(view, self.window)
        part = visible(view, x_range)
        rate = column(view.courses.lr, part)
        finite = rate[np.isfinite(rate)]
        top = float(finite.max()) if len(finite) else 1.0
        curve = Curve(column(view.courses.step, part), rate, "plot--line")
        return Chart((curve,), x_range, (0.0, round_top(top)), left=str(int(x_range[0])), right=str(view.step))


class MemoryPlot(Plot):
    """Memory over time: the GPU's where there is one, else the host's with the process's own part under it."""

    TOPICS = frozenset({"memory"})

    def content_key(self) -> Hashable:
        """Points, newest time and range."""
        course = self.view.memory_course
        return len(course), course[-1].time if course else 0.0, self.window

    def chart(self) -> Chart:
        """GiB from zero to what the GPU has, or to a little over what the host uses."""
        view = self.view
        if view.memory is None:
            return Chart((), (0, 1), (0, 1), empty="not measured yet")
        import numpy as np

        points = list(view.memory_course)
        last = points[-1].time
        first = last - max(1.0, (last - points[0].time) / 2**self.window)
        time = np.array([point.time for point in points])
        if view.memory.vram_total_gb > 0:
            top = view.memory.vram_total_gb
            curves: tuple[Curve, ...] = (Curve(time, np.array([point.vram for point in points]), "plot--line"),)
        else:
            # The host has far more than training uses: what is used fills the plot, the bar shows the share.
            top = round_top(1.1 * max(max(point.host, point.process) for point in points))
            curves = (
                Curve(time, np.array([point.host for point in points]), "plot--second"),
                Curve(time, np.array([point.process for point in points]), "plot--line"),
            )
        return Chart(curves, (first, last), (0.0, max(top, 0.1)), left=f"-{duration(last - first)}", right="now")


class MemoryCaption(CellWidget):
    """What the memory plot shows, with its curves named in the style that they are drawn in."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plot--line", "plot--second"}
    TOPICS = frozenset({"memory"})

    def content_key(self) -> Hashable:
        """Whether a GPU's memory is plotted."""
        return self.view.memory is not None and self.view.memory.vram_total_gb > 0

    def paint(self, width: int, height: int) -> list[Strip]:
        """One line."""
        first, second = self.style_of("plot--line"), self.style_of("plot--second")
        runs: list[Run] = [("memory, GiB", second)]
        if self.content_key():
            runs.append(("  GPU", first))
        else:
            runs += [("  upper: machine", second), ("  lower: this process", first)]
        return [strip_of(runs, width, self.rich_style)]
