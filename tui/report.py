"""The text that a headless run ends with: what came out, where it lies, and the course of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from engine.text import safe_text
from tui.units import duration, short_time, size
from tui.view import RunView

PLOT_POINTS = 120
"""plotext's cost grows with the points; one mean for each column shows as much."""


def report(view: RunView, width: int = 78, unicode: bool = True) -> str:
    """The whole report, lines joined."""
    lines = [f"Run {safe_text(view.name)} {view.state} at step {view.step} of {view.steps}, epoch {view.epoch}."]
    if view.done is not None and view.step_s is not None:
        lines.append(f"{duration(view.done.elapsed_s)} of training, {short_time(view.step_s)} a step.")
    change = view.loss_change
    if change is not None:
        lines.append(f"Loss {change[0]:.4f} -> {change[1]:.4f} (first and last epoch).")
    losses = [loss for loss in view.courses.loss if math.isfinite(loss)]
    if len(losses) >= 4:
        lines += ["", loss_plot({safe_text(view.name, 40): losses}, width, unicode=unicode), ""]
    lines += [f"LoRA    {safe_text(saved.path)} ({size(saved.size_bytes)})" for saved in view.checkpoints[-3:]]
    if view.samples:
        lines.append(f"Samples {safe_text(view.samples[-1].path)} and {len(view.samples) - 1} more")
    if view.folder:
        lines.append(f"Folder  {safe_text(view.folder)}")
    if view.state == "stopped":
        lines.append(f"Go on with: kiln resume {safe_text(view.folder)}")
    return "\n".join(lines)


def loss_plot(courses: Mapping[str, Sequence[float]], width: int = 78, height: int = 14, unicode: bool = True) -> str:
    """A plot of one or more loss courses over their steps, without colours.

    Args:
        courses: losses by name, one for each step.
        width: of the text, in characters.
        height: in lines.
        unicode: braille dots; else plain characters.
    """
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, height)
    markers = ["braille", "dot", "o", "+", "x"] if unicode else ["*", "o", "+", "x"]
    for number, (name, losses) in enumerate(courses.items()):
        steps, means = decimated(losses)
        label = name if len(courses) > 1 else None
        plotext.plot(steps, means, marker=markers[number % len(markers)], label=label)
    plotext.xlabel("step")
    plotext.ylabel("loss")
    text: str = plotext.uncolorize(plotext.build())
    if not unicode:
        text = text.translate(_ASCII_FRAME)
    return "\n".join(line.rstrip() for line in text.splitlines())


_ASCII_FRAME = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")


def decimated(losses: Sequence[float], points: int = PLOT_POINTS) -> tuple[list[float], list[float]]:
    """Means of at most ``points`` equal stretches, and the step in the middle of each."""
    count = len(losses)
    edges = [round(index * count / min(points, count)) for index in range(min(points, count) + 1)]
    pairs = list(pairwise(edges))
    return [(first + last + 1) / 2 for first, last in pairs], [fmean(losses[first:last]) for first, last in pairs]
