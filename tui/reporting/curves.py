"""The curves of one run: what was measured of the LoRA by epochs, and the training loss by steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, stdev

from engine.events import BANDS, Measured
from tui.report import decimated
from tui.reporting.chart import Line, Marks, Point, chart
from tui.reporting.facts import RunFacts
from tui.reporting.markup import Markup, element, section

LOSS_POINTS = 300
SMOOTHED = 1
"""Index of the smoothing shown: weak enough for short runs, as the runs screen has it."""

_HOW_LOSS = (
    "Mean squared error with the same pictures, noise and noise levels each time: lower is better. Bars are the "
    "standard error over the noise seeds."
)


def curves(facts: RunFacts) -> Markup:
    """The section with all charts that there is something for."""
    measured = [one for one in facts.view.measured if one.held_out or one.train]
    marks = marks_of(facts)
    charts = [
        chart("Loss on held-out and training pictures",
              [loss_line("held out", measured, "held_out"), loss_line("training pictures", measured, "train")],
              y_name="loss", marks=marks, words=_HOW_LOSS),
        chart("Held-out loss by noise level", _bands(measured), y_name="loss", marks=marks,
              words="Over-fitting shows first at low noise."),
        chart("Drift", [drift_line("drift", measured)], y_name="drift", marks=marks, from_zero=True,
              words="How far the LoRA moves the model on prompts without the trigger, as a share of its prediction."),
        chart("Size of the update", _updates(measured), y_name="norm", marks=marks, from_zero=True,
              words="What the LoRA adds to the weights, by kind of layer."),
        chart("Loss while training", [training_line("loss, smoothed", facts)], x_name="step", y_name="loss",
              words="Of the steps themselves: it depends on the noise that was drawn and says little about quality."),
    ]  # fmt: skip
    none = "" if measured else element(
        "p", 'Nothing was measured in this run: [validation] every_epochs = "auto" has the best epochs looked for.'
    )  # fmt: skip
    return section("Curves", none, element("div", *charts, class_="charts") if any(charts) else "", id_="curves")


def marks_of(facts: RunFacts) -> Marks:
    """The recommended range, the epochs that stand out, and those with a file."""
    advice, chosen = facts.advice, facts.judged.chosen
    places = []
    if advice.best:
        places.append((float(advice.best), f"epoch {advice.best}: the earliest good one"))
    if chosen and chosen != advice.best:
        places.append((float(chosen), f"epoch {chosen}: chosen"))
    elif chosen:
        places = [(float(chosen), f"epoch {chosen}: the earliest good one, and chosen")]
    saved = tuple((float(row.epoch), f"epoch {row.epoch}: {row.files[0].name}") for row in facts.rows if row.files)
    words = f"recommended: epochs {advice.first} to {advice.last}" if advice.best else ""
    return Marks(float(advice.first), float(advice.last), words, tuple(places), saved)


def loss_line(name: str, measured: Iterable[Measured], which: str) -> Line:
    """``held_out`` or ``train`` by epoch, with the standard error over the noise seeds."""
    return Line(name, tuple(_point(one.epoch, getattr(one, which)) for one in measured if getattr(one, which)))


def drift_line(name: str, measured: Iterable[Measured]) -> Line:
    """The drift by epoch."""
    return Line(name, tuple(Point(one.epoch, one.drift) for one in measured if one.drift is not None))


def training_line(name: str, facts: RunFacts) -> Line:
    """The smoothed loss by step, as few points."""
    courses = facts.view.courses
    pairs = [
        pair for pair in zip(courses.step, courses.smoothed[SMOOTHED].course, strict=True) if math.isfinite(pair[1])
    ]
    if not pairs:
        return Line(name, ())
    places, losses = decimated([loss for _, loss in pairs], LOSS_POINTS)
    steps = [pairs[min(len(pairs), max(1, round(place))) - 1][0] for place in places]
    return Line(name, tuple(Point(step, loss) for step, loss in zip(steps, losses, strict=True)))


def _point(epoch: int, values: tuple[float, ...]) -> Point:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Point(epoch, math.nan)
    return Point(epoch, fmean(finite), stdev(finite) / math.sqrt(len(finite)) if len(finite) > 1 else 0.0)


def _bands(measured: list[Measured]) -> list[Line]:
    """The held-out loss at low, middle and high noise levels."""
    return [
        Line(band, tuple(
            Point(one.epoch, one.held_out_bands[number]) for one in measured if len(one.held_out_bands) > number
        ))
        for number, band in enumerate(BANDS)
    ]  # fmt: skip


def _updates(measured: Iterable[Measured]) -> list[Line]:
    by_kind: dict[str, list[Point]] = {}
    last: dict[int, Measured] = {one.epoch: one for one in measured if one.update}
    for one in last.values():
        for kind, norm in one.update:
            by_kind.setdefault(kind, []).append(Point(one.epoch, norm))
    return [Line(kind, tuple(points)) for kind, points in by_kind.items()]
