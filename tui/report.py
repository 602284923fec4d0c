"""The text that a headless run ends with: what came out, where it lies, and the course of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from engine.text import safe_text
from tui.places import lora_in, sample_in
from tui.units import duration, short_time, size
from tui.view import RESUMABLE_STATES, RunView
from tui.view_pictures import worst

Color = tuple[int, int, int]
Points = tuple[Sequence[float], Sequence[float]]
"""Positions and values of a curve."""

PLOT_POINTS = 120
"""plotext's cost grows with the points; one mean for each column shows as much."""


def report(view: RunView, folder: Path | None = None, width: int = 78, unicode: bool = True) -> str:
    """The whole report, lines joined; ``folder`` is where the run lies, None for a run that made none."""
    lines = [f"Run {safe_text(view.name)} {view.state} at step {view.step} of {view.steps}, epoch {view.epoch}."]
    if view.done is not None and view.step_s is not None:
        lines.append(f"{duration(view.done.elapsed_s)} of training, {short_time(view.step_s)} a step.")
    change = view.loss_change
    if change is not None:
        lines.append(f"Loss {change[0]:.4f} -> {change[1]:.4f} (first and last epoch).")
    losses = [loss for loss in view.courses.loss if math.isfinite(loss)]
    if len(losses) >= 4:
        lines += ["", loss_plot({safe_text(view.name, 40): losses}, width, unicode=unicode), ""]
    if view.pictures.fixed:
        found = ", ".join(f"{safe_text(name, 60)} {figure:.2f}" for name, figure in worst(view.pictures.fixed))
        lines.append(f"Captions that fit least: {found} (loss against that with other captions).")
    return "\n".join(lines + _files(view, folder) if folder is not None else lines)


def _files(view: RunView, folder: Path) -> list[str]:
    lines = [
        f"LoRA    {safe_text(lora_in(folder, saved.path))} ({size(saved.size_bytes)})"
        for saved in view.checkpoints[-3:]
    ]
    if view.samples:
        more = f" and {len(view.samples) - 1} more" if len(view.samples) > 1 else ""
        lines.append(f"Samples {safe_text(sample_in(folder, view.samples[-1].path))}{more}")
    lines.append(f"Folder  {safe_text(folder)}")
    if view.state in RESUMABLE_STATES:
        lines.append(f"Go on with: kiln resume {safe_text(folder)}")
    return lines


def loss_plot(courses: Mapping[str, Sequence[float]], width: int = 78, height: int = 14, unicode: bool = True) -> str:
    """A plot of one or more loss courses, one value for each step, without colours; see :func:`curves_plot`."""
    return curves_plot({name: decimated(losses) for name, losses in courses.items()}, width, height, unicode)


def curves_plot(
    curves: Mapping[str, Points],
    width: int,
    height: int,
    unicode: bool = True,
    colors: Sequence[Color] = (),
    axis: str = "step",
) -> str:
    """A plot of losses over steps or epochs, the curves told apart by their signs.

    Args:
        curves: positions and losses by name; plotext's cost grows with their number.
        width: of the text, in characters.
        height: in lines.
        unicode: braille dots; else plain characters.
        colors: of the curves, red, green and blue; the text then has escape sequences of plotext's making.
        axis: what the positions count.
    """
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limit_size(False, False)
    plotext.plot_size(width, height)
    markers = ["braille", "dot", "o", "+", "x"] if unicode else ["*", "o", "+", "x"]
    for number, (name, (steps, losses)) in enumerate(curves.items()):
        label = name if len(curves) > 1 else None
        color = colors[number % len(colors)] if colors else None
        plotext.plot(list(steps), list(losses), marker=markers[number % len(markers)], label=label, color=color)
    ticks = whole_ticks(max((steps[-1] for steps, _ in curves.values() if len(steps)), default=0), width // 12)
    plotext.xticks(ticks, [str(tick) for tick in ticks])
    plotext.xlabel(axis)
    plotext.ylabel("loss")
    text: str = plotext.build()
    if not colors:
        text = plotext.uncolorize(text)
    if not unicode:
        text = text.translate(_ASCII_FRAME)
    return "\n".join(line.rstrip() for line in text.splitlines())


def whole_ticks(last: float, most: int) -> list[int]:
    """At most ``most`` round whole steps up to ``last``, evenly apart."""
    apart = 1
    while last / apart > max(1, most):
        # 1, 2, 5, 10, 20, 50 and so on: after a two comes a five.
        apart = apart * 5 // 2 if str(apart).startswith("2") else apart * 2
    return list(range(apart, int(last) + 1, apart))


_ASCII_FRAME = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")


def decimated(losses: Sequence[float], points: int = PLOT_POINTS) -> tuple[list[float], list[float]]:
    """Means of at most ``points`` equal stretches, and the step in the middle of each."""
    count = len(losses)
    edges = [round(index * count / min(points, count)) for index in range(min(points, count) + 1)]
    pairs = list(pairwise(edges))
    return [(first + last + 1) / 2 for first, last in pairs], [fmean(losses[first:last]) for first, last in pairs]
