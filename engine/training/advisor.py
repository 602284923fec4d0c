"""The advisor: from what was measured to a verdict, a range of epochs, and why. Pure and torch-free.

Its rules (docs/sweet-spot.md has the recorded runs, and how often the range held the best epoch):

1. Three curves are put on one scale and added up to a *cost*: the loss on held-out pictures, which says when
   generalising ends; three quarters of the loss on training pictures, since samples go on growing stronger after the
   held-out loss has stopped falling; and the drift, which says what that costs elsewhere.
2. The bottom of the cost is flat. Every epoch that lies above it by no more than what the held-out pictures disagree
   on is as good. A quarter of the measurements is advised, round a point a third of the way through these: among
   equals the earlier, which moved the model less.
3. The best epochs are over once there is evidence enough that the held-out loss and the drift, added up, have left
   their bottom (twice as much where few pictures say so), and ordinary prompts have moved: a LoRA that harms moves
   the model, one whose held-out loss only jumps does not.
4. What cannot be known is said: no held-out pictures, too few of them, too few measurements, no gain beyond noise.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from engine.config_measuring import StopConfig
from engine.events_measured import Measured

TRAIN, DRIFT = 0.75, 0.3
"""Weights in the cost: of the training loss, as a share of the base's; of the drift, as a share of the most there
was, in units of what the training loss fell by."""

FLAT = 0.03
"""Epochs within this part of the gain of the bottom are as good as the bottom."""

EARLIER = 1 / 3
"""Where among the epochs that are as good the range has its middle."""

NOISES = 2.0
"""Standard deviations of the curve's noise that a gain must exceed to count."""

WORSE, EVIDENCE = 0.25, 2 / 3
"""A value speaks for the end of the best epochs as far as it lies above the bottom by more than this part of the gain
and one standard deviation of the noise; so many standard deviations for each measurement of patience are enough."""

MOVED_LEAST = 0.03
"""Drift below which no run is called over, where drift is measured."""

WIDTH = 0.25
"""The range's part of all measurements."""

SMOOTHED = 16
"""A curve is smoothed over this part of its measurements to both sides, and over one at least."""

FEWEST = 4
"""Measurements, the base included, below which no bottom is looked for."""

FEW_PICTURES, SURE_PICTURES = 3, 6

JUMPY, MOVED, PARTED = 0.05, 0.1, 1.5
"""From where on something else is advised for next time: noise as a share of the gain; drift (following of ordinary
prompts fell there in recorded runs); how much further behind the training pictures the held-out ones are.
"""


@dataclass(frozen=True)
class Curve:
    """One signal over the measurements: values as measured and smoothed, and the sd of a value's noise."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    smooth: tuple[float, ...]
    noise: float

    @property
    def bottom(self) -> int:
        """The number of the lowest smoothed value, the base's apart."""
        return min(range(1, len(self.smooth)), key=lambda number: self.smooth[number])

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
        best: the one to look at first; 0 while there is none.
        over: the best epochs are over; training on only harms.
        sure: "fairly sure" or "unsure".
        reasons: why, in words.
        changes: what to change next time.
        measured: epochs that were measured, in order.
        as_good: those of them that are as good as the best as far as can be told.
    """

    verdict: str
    first: int = 0
    last: int = 0
    best: int = 0
    over: bool = False
    sure: str = "unsure"
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    measured: tuple[int, ...] = ()
    as_good: frozenset[int] = frozenset()

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
        range_ = f": epochs {span} are advised, {self.best} first" if self.best else ""
        return f"{words} ({self.sure}){range_}. {' '.join(self.reasons)}".strip()

    def of_epoch(self, epoch: int) -> str:
        """The verdict of one epoch, as far as is known now: an epoch that was not measured shares that of the one
        measured before it."""
        if not self.best:
            return self.verdict if self.verdict in ("under", "unclear") else "unclear"
        if epoch < self.first:
            return "under"
        if epoch <= self.last:
            return "in range"
        if self.over:
            return "over"
        before = bisect_right(self.measured, epoch)
        return "in range" if before and self.measured[before - 1] in self.as_good else "unclear"


def advise(measured: Sequence[Measured], stop: StopConfig | None = None) -> Advice:
    """The advice after ``measured``, oldest first; sizes told early count for nothing here."""
    stop = stop or StopConfig()
    measured = [one for one in measured if one.held_out or one.train]
    if measured and measured[-1].held_out:
        return _by_held_out([one for one in measured if one.held_out], stop)
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
    """Smooth by a moving mean and estimate the noise from second differences, robustly."""
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    # A second difference of independent noise has a standard deviation of sqrt(6) of it.
    noise = 1.4826 * statistics.median(bends) / math.sqrt(6) if bends else 0.0
    return Curve(tuple(epochs), tuple(values), tuple(_moving_mean(values)), noise)


def _moving_mean(values: Sequence[float]) -> list[float]:
    """Over :data:`SMOOTHED`'s part of the values on both sides; near the ends over what there is."""
    reach, count = max(1, len(values) // SMOOTHED), len(values)
    sums = list(accumulate(values, initial=0.0))
    spans = [(max(0, number - reach), min(count, number + reach + 1)) for number in range(count)]
    return [(sums[end] - sums[first]) / (end - first) for first, end in spans]


def _by_held_out(held: Sequence[Measured], stop: StopConfig) -> Advice:
    epochs = tuple(one.epoch for one in held)
    pictures = min(len(one.held_out_pictures) for one in held)
    # More than that is never claimed: docs/sweet-spot.md says how often it is right on untouched runs.
    sure = "fairly sure" if pictures >= SURE_PICTURES else "unsure"
    doubts = [] if pictures >= FEW_PICTURES else [f"{_count(pictures, 'held-out picture')} cannot tell much."]
    if len(held) < FEWEST:
        return Advice("unclear", reasons=("Too few measurements yet.", *doubts))
    loss = curve(epochs, [statistics.fmean(one.held_out) for one in held])
    cost = curve(epochs, _cost(held))
    if cost.gain <= NOISES * cost.noise:
        return _nothing_learned(loss, doubts)
    if contradicted := loss.gain <= NOISES * loss.noise:
        doubts.append("On held-out pictures nothing was gained beyond noise: only the training pictures speak.")
        sure = "unsure"
    good = _as_good(cost, held)
    first, best, last = _range(good, len(held) - 1)
    # What only rises has no bottom to have left behind.
    judged = cost if contradicted else curve(epochs, _harm(held))
    patience, newest = stop.patience * (1 if pictures >= SURE_PICTURES else 2), len(held) - 1
    moved = held[-1].drift is None or held[-1].drift >= MOVED_LEAST
    over = last < newest and moved and _over(judged, patience, stop)
    falling = cost.bottom >= newest - 1 and cost.smooth[-2] - cost.smooth[-1] > cost.noise / 2
    fine = newest in good or newest <= last
    verdict = "over" if over else "under" if falling else "in range" if fine else "unclear"
    if verdict == "under":
        sure = "unsure"
    reasons = (_course(loss, verdict), *_bands(held, loss.bottom), *_gap(held), *doubts)
    changes = _next_time(verdict, held, loss, epochs[best])
    return Advice(
        verdict, epochs[first], epochs[last], epochs[best], over, sure, reasons, changes,
        epochs, frozenset(epochs[number] for number in good),
    )  # fmt: skip


def _cost(held: Sequence[Measured]) -> list[float]:
    """What a LoRA costs at each measurement: see the module's first rule."""
    cost = _held_out_shares(held)
    if all(one.train for one in held):
        train = _shares([statistics.fmean(one.train) for one in held])
        drift = [one.drift or 0.0 for one in held]
        unit = max(0.0, 1.0 - min(train)) / max(*drift, 1e-12)
        cost = [a + TRAIN * b + DRIFT * unit * c for a, b, c in zip(cost, train, drift, strict=True)]
    return cost


def _harm(held: Sequence[Measured]) -> list[float]:
    """What tells that the best epochs are over: the held-out loss, as a share of the base's, and the drift."""
    return [share + (one.drift or 0.0) for share, one in zip(_held_out_shares(held), held, strict=True)]


def _held_out_shares(held: Sequence[Measured]) -> list[float]:
    return _shares([statistics.fmean(one.held_out) for one in held])


def _shares(values: Sequence[float]) -> list[float]:
    return [value / max(values[0], 1e-12) for value in values]


def _as_good(cost: Curve, held: Sequence[Measured]) -> list[int]:
    """Numbers of the measurements that are as good as the bottom: above it by no more than the standard error of the
    difference between the two, picture by picture, and a little of the gain."""
    base = max(statistics.fmean(held[0].held_out), 1e-12)
    columns = [_moving_mean(column) for column in zip(*(one.held_out_pictures for one in held), strict=False)]
    at = cost.bottom

    def allowed(number: int) -> float:
        differences = [(column[number] - column[at]) / base for column in columns]
        many = len(differences) > 1
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if many else NOISES * cost.noise
        return error + FLAT * cost.gain

    return [n for n in range(1, len(held)) if cost.smooth[n] - cost.smooth[at] <= allowed(n)]


def _range(good: Sequence[int], newest: int) -> tuple[int, int, int]:
    """Numbers of the first, the best and the last measurement of the range."""
    best = good[max(0, math.ceil(EARLIER * len(good)) - 1)]
    width = max(2, round(WIDTH * newest))
    first = max(1, min(best - width // 2, newest - width + 1))
    return first, best, min(newest, first + width - 1)


def _over(judged: Curve, patience: int, stop: StopConfig) -> bool:
    """Whether the values since the bottom have brought enough evidence together that it has been left for good.

    A one-sided CUSUM (Page, "Continuous inspection schemes", Biometrika 1954): what lies above the limit counts for,
    what lies below it against, and never less than nothing is kept. So a steep rise is told soon, a slow one later.
    """
    limit = judged.smooth[judged.bottom] + (stop.worse_by or WORSE) * max(0.0, judged.gain)
    evidence = 0.0
    for value in judged.values[judged.bottom + 1 :]:
        evidence = max(0.0, evidence + value - limit - judged.noise)
    behind = len(judged.values) - 1 - judged.bottom
    enough = evidence > EVIDENCE * patience * judged.noise and judged.values[-1] > limit
    return behind >= patience and enough and judged.epochs[-1] >= stop.min_epochs


def _nothing_learned(loss: Curve, doubts: Sequence[str]) -> Advice:
    if loss.values[-1] > loss.values[0] + NOISES * loss.noise:
        reason = "The loss on held-out pictures only rises: it learns these pictures and nothing that carries over."
        return Advice("unclear", reasons=(reason, *doubts), changes=_GENTLER)
    return Advice(
        "unclear", reasons=("Nothing was gained on held-out pictures beyond noise.", *doubts), changes=_STRONGER
    )


def _course(loss: Curve, verdict: str) -> str:
    if loss.gain <= 0:
        return "Held-out loss has never been lower than without the LoRA."
    gained = 100 * loss.gain / max(loss.values[0], 1e-12)
    at = loss.epochs[loss.bottom]
    if verdict == "over":
        back = 100 * (loss.values[-1] - loss.smooth[loss.bottom]) / loss.gain
        return f"Held-out loss fell by {gained:.1f} % to epoch {at} and has given {back:.0f} % of that back."
    if verdict == "under":
        return f"Held-out loss is {gained:.1f} % down, and the whole still falling."
    return f"Held-out loss is {gained:.1f} % down; its bottom, at epoch {at}, is flat."


def _bands(held: Sequence[Measured], bottom: int) -> list[str]:
    """Where noise is low over-fitting shows first."""
    low = [one.held_out_bands[0] for one in held if one.held_out_bands]
    if len(low) != len(held) or bottom == len(held) - 1:
        return []
    risen = low[-1] - min(low[: bottom + 1])
    gained = low[0] - min(low)
    return ["At low noise the loss rises already."] if gained > 0 and risen > 0.15 * gained else []


def _gap(held: Sequence[Measured]) -> list[str]:
    if not all(one.train for one in held):
        return []
    gaps = [statistics.fmean(one.held_out) - statistics.fmean(one.train) for one in (held[0], held[-1])]
    grown, drift = gaps[1] - gaps[0], held[-1].drift
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


def _next_time(verdict: str, held: Sequence[Measured], loss: Curve, best: int) -> tuple[str, ...]:
    """What to change: steps, rate, rank, variety and captions, each only where something measured points there."""
    changes = []
    if verdict == "under":
        changes.append("Train longer, or raise optimizer.learning_rate a little.")
    early = len(held) > 2 * FEWEST and best <= loss.epochs[-1] // 6
    if verdict == "over":
        changes.append(f"About {best} epochs are enough at this rate.")
    if verdict == "over" and early:
        changes.append("The best came early: half the learning rate leaves more time and is often better.")
    if len(held) > 2 * FEWEST and loss.noise > JUMPY * loss.gain:
        changes.append("The loss jumps: half the learning rate, or schedule.name cosine, makes it calmer.")
    if (held[-1].drift or 0.0) > MOVED:
        changes.append(
            "Ordinary prompts have moved far: a lower lora.rank or rate, or regularization pictures, help."
        )
    if _parted(held):
        changes.append("More pictures, or more different ones, would help more than any setting.")
    if strangers := _strangers(held, loss.bottom):
        changes.append(
            f"{_count(strangers, 'held-out picture')} of {len(held[0].held_out_pictures)} gained nothing: do the "
            "captions name what is theirs alone, and do others like them train?"
        )
    return tuple(changes)


def _parted(held: Sequence[Measured]) -> bool:
    """Whether the held-out pictures have fallen far behind the training ones since the base."""
    if not (held[0].train and held[-1].train):
        return False
    start, end = (
        statistics.fmean(one.held_out) / max(statistics.fmean(one.train), 1e-12) for one in (held[0], held[-1])
    )
    return end > PARTED * start


def _strangers(held: Sequence[Measured], bottom: int) -> int:
    """How many held-out pictures are no better at the bottom than without the LoRA, while others are."""
    pairs = zip(held[0].held_out_pictures, held[bottom].held_out_pictures, strict=False)
    worse = [after >= before for before, after in pairs]
    return sum(worse) if not all(worse) else 0


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
