"""What the screen's drawing costs: one redraw of a plot and of a picture. ``python -m tests.bench.bench_ui``.

CPU time of this thread, medians. The budget that the design sets is 5 ms for a redraw of a plot of 100,000 points;
tests count the work instead, so that a busy machine fails none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from engine.events import Entry, StepDone
from tui.view import RunView, fold
from tui.widgets.braille import BrailleCanvas, column_spans, robust_limits
from tui.widgets.picture import load_picture
from tui.widgets.plot import column

COLUMNS, ROWS = 105, 17


def cpu_ms(work: Callable[[], object], repeats: int = 15) -> float:
    """Median CPU time of ``work`` in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        times.append((time.thread_time() - start) * 1000)
    return median(times)


def view_with(steps: int) -> RunView:
    """A view after ``steps`` steps."""
    view = RunView(steps=steps)
    losses = np.random.default_rng(1).normal(0.5, 0.1, steps).tolist()
    for number, loss in enumerate(losses, start=1):
        fold(view, Entry(number, float(number), StepDone(number, 1, loss, 1e-4, 0.5, 1.0, 0.1, 0.8, 0.1)))
    return view


def redraw(view: RunView) -> None:
    """The work of one redraw of the loss: columns to numpy, limits, two courses, all rows."""
    part = slice(0, len(view.courses.step))
    x = column(view.courses.step, part)
    courses = (column(view.courses.loss, part), column(view.courses.smoothed[0].course, part))
    limits = robust_limits(*courses)
    canvas = BrailleCanvas(COLUMNS, ROWS)
    for layer, course in enumerate(courses, start=1):
        canvas.draw(column_spans(x, course, (0.0, float(len(x))), COLUMNS * 2, True), limits, layer)
    for row in range(ROWS):
        canvas.runs(row)


def report() -> str:
    """A Markdown table of the figures."""
    from PIL import Image

    lines = ["| Redraw | CPU ms |", "|---|---|"]
    for steps in (1_000, 10_000, 100_000):
        view = view_with(steps)
        lines.append(
            f"| loss plot, {COLUMNS} x {ROWS} cells, {steps:,} steps | {cpu_ms(lambda v=view: redraw(v)):.2f} |"
        )
    start = time.thread_time()
    view_with(10_000)
    lines.append(f"| fold of one step event | {(time.thread_time() - start) * 1000 / 10_000:.4f} |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.png"
        noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        for columns, rows in ((13, 6), (60, 24), (150, 40)):
            spent = cpu_ms(lambda c=columns, r=rows: load_picture(path, c, r), 5)
            lines.append(f"| picture of 1024 px into {columns} x {rows} cells, in the pool | {spent:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
