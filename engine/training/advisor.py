"""The advisor: from what was measured to a verdict, a range of epochs, and why. Pure and torch-free.

Its rules (docs/sweet-spot.md has the recorded runs, and how often the range held the best epoch):

1. The loss on held-out pictures with fixed noise decides. Its bottom is where generalising ends; the training loss,
   the gap between the two and the drift only ever move one way and find nothing by themselves.
2. A bottom is flat: every epoch within the curve's own noise is as good. So a range is advised that begins with the
   earliest of those, whose drift is the least, and spans a quarter of the measurements, since samples go on growing
   stronger after the loss has stopped falling.
3. The best epochs are over once the loss has stayed above the bottom by more than noise, ``patience`` times in a row.
4. What cannot be known is said: no held-out pictures, too few of them, too few measurements, no gain beyond noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from engine.config_measuring import StopConfig
from engine.events_measured import Measured

FLAT = 0.03
"""Epochs within this part of the gain of the bottom are as good as the bottom."""

NOISES = 2.0
"""Standard deviations of the curve's noise that a difference must exceed to count."""

DISAGREEING = 0.25
"""Part of the pictures' disagreement that counts as noise too."""

WIDTH = 0.25
"""The range's part of all measurements."""

FEWEST = 4
"""Measurements, the base included, below which no bottom is looked for."""

FEW_PICTURES, SURE_PICTURES = 3, 6


@dataclass(frozen=True)
class Curve:
    """One signal over the measurements: values as measured and smoothed, and the sd of a value's noise."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    smooth: tuple[float, ...]
    noise: float

    @property
    def bottom(self) -> int:
        """The number of the lowest smoothed value."""
        return min(range(len(self.smooth)), key=lambda number: self.smooth[number])

    @property
    def gain(self) -> float:
        """From the first value down to the bottom."""
        return self.values[0] - self.smooth[self.bottom]


@dataclass(frozen=True)
class Advice:
    """What the advisor says.

    Attributes:
        verdict: of the newest measurement: "under", "in range", "over" or "unclear".
        first, last: the recommended range of epochs; 0 while there is none.
        best: the earliest good epoch in it; 0 while there is none.
        over: the best epochs are over; training on only harms.
        sure: "sure", "fairly sure" or "unsure".
        reasons: why, in words.
        changes: what to change next time.
    """

    verdict: str
    first: int = 0
    last: int = 0
    best: int = 0
    over: bool = False
    sure: str = "unsure"
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def gist(self) -> tuple[str, int, int, int, bool]:
        """What makes it another advice: percentages are news for a curve, not for a log."""
        return self.verdict, self.first, self.last, self.best, self.over

    @property
    def text(self) -> str:
        """The verdict in one sentence or two."""
        words = {
            "under": "Still learning",
            "in range": "No worse than the best so far",
            "over": "Past the good range",
            "unclear": "Unclear",
        }[self.verdict]
        span = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        range_ = f": epochs {span} are advised, {self.best} the earliest good one" if self.best else ""
        return f"{words} ({self.sure}){range_}. {' '.join(self.reasons)}".strip()

    def of_epoch(self, epoch: int) -> str:
        """The verdict of one epoch, as far as is known now."""
        if not self.best:
            return self.verdict if self.verdict in ("under", "unclear") else "unclear"
        if epoch < self.first:
            return "under"
        return "in range" if epoch <= self.last else "over" if self.verdict == "over" else self.verdict


def advise(measured: Sequence[Measured], stop: StopConfig | None = None) -> Advice:
    """The advice after ``measured``, oldest first; sizes told early count for nothing here."""
    stop = stop or StopConfig()
    measured = [one for one in measured if one.held_out or one.train]
    if measured and measured[-1].held_out:
        return _by_held_out([one for one in measured if one.held_out], measured, stop)
    return _without_held_out([one for one in measured if one.train])


def on_disk(advice: Advice, epochs: Collection[int]) -> Advice:
    """``advice`` with a best epoch that is among ``epochs``, those of which a file stands: the nearest in the range,
    else the nearest of all, which the range is stretched to."""
    if not advice.best or advice.best in epochs or not epochs:
        return advice
    inside = [epoch for epoch in epochs if advice.first <= epoch <= advice.last]
    best = min(inside or epochs, key=lambda epoch: (abs(epoch - advice.best), epoch))
    if not best:
        return advice
    reason = f"Epoch {advice.best} was better by a little, but no file of it stands."
    first, last = min(best, advice.first), max(best, advice.last)
    return replace(advice, first=first, last=last, best=best, reasons=(*advice.reasons, reason))


def curve(epochs: Sequence[int], values: Sequence[float]) -> Curve:
    """Smooth by (1, 2, 1) / 4 and estimate the noise from second differences, robustly."""
    smooth = list(values)
    for number in range(1, len(values) - 1):
        smooth[number] = (values[number - 1] + 2 * values[number] + values[number + 1]) / 4
    if len(values) > 2:  # the newest counts half: what comes next may take it back
        smooth[-1] = (values[-2] + values[-1]) / 2
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # A second difference of independent noise has a standard deviation of sqrt(6) of it.
    noise = 1.4826 * statistics.median(bends) / math.sqrt(6) if bends else 0.0
    return Curve(tuple(epochs), tuple(values), tuple(smooth), noise)


def _by_held_out(held: Sequence[Measured], measured: Sequence[Measured], stop: StopConfig) -> Advice:
    loss = curve([one.epoch for one in held], [statistics.fmean(one.held_out) for one in held])
    pictures = len(held[-1].held_out_pictures)
    sure = "sure" if pictures >= SURE_PICTURES else "fairly sure" if pictures >= FEW_PICTURES else "unsure"
    doubts = [] if pictures >= FEW_PICTURES else [f"{_count(pictures, 'held-out picture')} cannot tell much."]
    if len(loss.values) < FEWEST:
        return Advice("unclear", reasons=("Too few measurements yet.", *doubts))
    if loss.gain <= NOISES * loss.noise:
        return _nothing_learned(loss, doubts)
    first, best, last = _range(loss, held)
    tolerance = _tolerance(loss, stop)
    bottom, newest = loss.bottom, len(loss.values) - 1
    worse = [loss.values[number] > loss.smooth[bottom] + tolerance for number in range(bottom + 1, newest + 1)]
    over = len(worse) >= stop.patience and all(worse[-stop.patience :]) and loss.epochs[newest] >= stop.min_epochs
    falling = bottom >= newest - 1 and loss.smooth[-2] - loss.smooth[-1] > loss.noise / 2
    as_good = loss.smooth[newest] <= loss.smooth[bottom] + tolerance
    verdict = "over" if over else "under" if falling else "in range" if as_good else "unclear"
    reasons = [_course(loss, bottom, verdict), *_bands(held, bottom), *_gap(measured, bottom), *doubts]
    if len(loss.values) - bottom <= stop.patience and not over:
        sure = "unsure" if verdict == "under" else sure
    return Advice(
        verdict, loss.epochs[first], loss.epochs[last], loss.epochs[best], over, sure, tuple(reasons),
        _next_time(loss, best, verdict, measured),
    )  # fmt: skip


def _nothing_learned(loss: Curve, doubts: Sequence[str]) -> Advice:
    rising = loss.values[-1] > loss.values[0] + NOISES * loss.noise
    if rising:
        reason = "The loss on held-out pictures only rises: it learns these pictures and nothing that carries over."
        return Advice(
            "over" if len(loss.values) > FEWEST + 2 else "unclear", reasons=(reason, *doubts), changes=_GENTLER
        )
    return Advice(
        "unclear", reasons=("Nothing was gained on held-out pictures beyond noise.", *doubts), changes=_STRONGER
    )


def _tolerance(loss: Curve, stop: StopConfig) -> float:
    """What a value may lie above the bottom and still count as it."""
    return max(NOISES * loss.noise, (stop.worse_by or FLAT) * loss.gain)


def _range(loss: Curve, held: Sequence[Measured]) -> tuple[int, int, int]:
    """Numbers of the first, the best and the last measurement of the range: a quarter of the curve, from just before
    the earliest that is as good as the bottom, which is the best.

    As good: above it by no more than the noise from one measurement to the next, and a little of what the pictures
    disagree on (the standard error of the difference between the two, picture by picture).
    """
    bottom, end = loss.bottom, len(loss.smooth) - 1
    best = next(
        number
        for number in range(1, end + 1)
        if loss.smooth[number] - loss.smooth[bottom]
        <= NOISES * loss.noise + DISAGREEING * _disagreement(held[number], held[bottom])
    )
    width = max(2, round(WIDTH * end))
    last = min(end, max(1, best - 1) + width - 1)
    return max(1, last - width + 1), best, last


def _disagreement(one: Measured, two: Measured) -> float:
    """Standard error of the mean difference between two measurements, over the pictures."""
    pairs = zip(one.held_out_pictures, two.held_out_pictures, strict=False)
    differences = [a - b for a, b in pairs]
    return statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0


def _course(loss: Curve, bottom: int, verdict: str) -> str:
    gained = 100 * loss.gain / loss.values[0]
    at = loss.epochs[bottom]
    if verdict == "over":
        back = 100 * (loss.values[-1] - loss.smooth[bottom]) / loss.gain
        return f"Held-out loss fell by {gained:.1f} % to epoch {at} and has given {back:.0f} % of that back."
    if verdict == "under":
        return f"Held-out loss is {gained:.1f} % down and still falling."
    return f"Held-out loss is {gained:.1f} % down; its bottom at epoch {at} is flat."


def _bands(held: Sequence[Measured], bottom: int) -> list[str]:
    """Where noise is low over-fitting shows first."""
    low = [one.held_out_bands[0] for one in held if one.held_out_bands]
    if len(low) != len(held) or bottom == len(held) - 1:
        return []
    risen = low[-1] - min(low[: bottom + 1])
    gained = low[0] - min(low)
    return ["At low noise the loss rises already."] if gained > 0 and risen > 0.15 * gained else []


def _gap(measured: Sequence[Measured], bottom: int) -> list[str]:
    both = [one for one in measured if one.held_out and one.train]
    if len(both) < FEWEST:
        return []
    gaps = [statistics.fmean(one.held_out) - statistics.fmean(one.train) for one in both]
    grown, drift = gaps[-1] - gaps[0], both[-1].drift
    words = [f"Training pictures are ahead by {grown:.3f}"] if grown > 0 else []
    words += [f"ordinary prompts moved by {100 * drift:.1f} %"] if drift else []
    return ["; ".join(words)[:1].upper() + "; ".join(words)[1:] + "."] if words else []


_GENTLER = (
    "Lower optimizer.learning_rate (half of it), or lora.rank.",
    "Add pictures: other angles, light and backgrounds.",
)
_STRONGER = (
    "Raise optimizer.learning_rate (twice), or train longer.",
    "Look whether captions name what the pictures have in common.",
)


def _next_time(loss: Curve, best: int, verdict: str, measured: Sequence[Measured]) -> tuple[str, ...]:
    if verdict == "under":
        return ("Train longer, or raise optimizer.learning_rate a little.",)
    if verdict != "over":
        return ()
    at = loss.epochs[best]
    changes = [f"About {at} epochs are enough at this rate."]
    if len(loss.epochs) > 8 and loss.bottom <= len(loss.epochs) // 6:
        changes.append("The bottom came early: half the learning rate leaves more time and is often better.")
    gaps = [one for one in measured if one.held_out and one.train]
    if gaps and statistics.fmean(gaps[-1].held_out) > 1.5 * statistics.fmean(gaps[-1].train):
        changes.append("More pictures, or more different ones, would help more than any setting.")
    return tuple(changes)


def _without_held_out(measured: Sequence[Measured]) -> Advice:
    """The training side alone: tells a LoRA that learns nothing; not when it begins to learn by heart."""
    if len(measured) < FEWEST:
        return Advice("unclear", reasons=("Too few measurements yet.",))
    loss = curve([one.epoch for one in measured], [statistics.fmean(one.train) for one in measured])
    if loss.gain <= NOISES * loss.noise:
        return Advice(
            "under", reasons=("Even the training pictures' loss has not fallen beyond noise.",), changes=_STRONGER
        )
    drift = measured[-1].drift
    moved = f" Ordinary prompts moved by {100 * drift:.1f} %." if drift else ""
    reason = (
        f"Training pictures' loss is {100 * loss.gain / loss.values[0]:.1f} % down.{moved} Without held-out pictures "
        "nobody can say when it begins to learn them by heart: look at the samples."
    )
    change = "Hold two pictures or more out (validation.held_out), or give a folder of others (validation.folder)."
    return Advice("unclear", reasons=(reason,), changes=(change,))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
