"""How to read a loss curve, in one sentence: what a user new to training asks of the plot beside it.

The loss of one step depends mostly on the noise level drawn for it, so single steps say nothing; what counts is
whether the mean of many steps moves by more than their scatter explains. That is what is looked at here.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance

from tui.view import RunView

FEWEST_STEPS = 40
"""Below this no trend can be told from scatter."""

MOST_POINTS = 400
"""Points looked at: more would not change the sentence."""

SURE = 2.5
"""Standard errors that a slope must have to be called a trend."""

WORTH_TELLING = 0.01
"""Smaller relative changes over the later half are flat, however sure they are."""

SPIKE = 4.0
"""Standard deviations over the mean from which one step is called a spike."""

NEWEST = 8
"""Steps for which a spike is told of."""

READABLE_S = 0.25
"""Of a spike nothing is said where steps are quicker: the sentence would be gone before it is read."""

JUDGEMENTS = 40
"""How often in a run the trend is judged: a sentence that changed with every step could not be believed."""

EARLY = 4
"""Before this part of the run (a fourth) a curve without a trend is not called flat."""

RISE = 0.05
"""A rise of less than this part of the loss is no reason to worry anybody."""


@dataclass(frozen=True)
class Reading:
    """One sentence about the curve; ``sign`` is "", "good", "flat" or "bad", for a mark beside it."""

    text: str
    sign: str = ""


def reading(view: RunView) -> Reading:
    """What the curve of ``view`` means now; an empty text before the first step."""
    losses = view.courses.loss
    if not len(losses):
        return Reading("")
    if any(not math.isfinite(loss) for loss in losses[-3:]):
        return Reading(
            "Not a number: the weights are broken. Stop; halve the learning rate.",
            "bad",
        )
    if view.failure is not None:
        return Reading("It failed, not for its loss: the log says why. What was saved can be gone on with.", "bad")
    if view.done is not None and view.done.reason == "finished":
        return Reading("Done: the last epoch is not always best. Compare their samples.", "good")
    if view.live and view.slowed is not None:
        factor = f"{view.slowed.factor:.1f} times"
        return Reading(f"Slower: steps take {factor} as long. The log says why, help what to change.", "bad")
    if len(losses) < FEWEST_STEPS:
        return Reading(f"Too early to read (before step {FEWEST_STEPS}). Jumps are normal.")
    slow = view.step_s is None or view.step_s >= READABLE_S
    return (_spike(losses) if slow else None) or _settled(losses, view.steps)


def _settled(losses: array[float], planned: int) -> Reading:
    """The newest judgement that the one before it agrees with; of a run of ``planned`` steps, 0 where not known."""
    apart = max(NEWEST, (planned or len(losses)) // JUDGEMENTS)
    ends = range(len(losses) // apart * apart, FEWEST_STEPS - 1, -apart)
    newest = later = None
    for end in ends:
        told = _trend(losses[:end], end * EARLY < planned)
        if later is not None and told == later:
            return told
        later, newest = told, newest or told
    return newest or _trend(losses, len(losses) * EARLY < planned)


def _trend(losses: array[float], early: bool) -> Reading:
    """The slope of a straight line through the later half of the steps, against its standard error."""
    half = _thinned(losses[-max(FEWEST_STEPS, len(losses) // 2) :])
    count, mean = len(half), fmean(half)
    middle = (count - 1) / 2
    spread = count * (count * count - 1) / 12
    slope = sum((at - middle) * loss for at, loss in enumerate(half)) / spread
    left = sum((loss - mean - slope * (at - middle)) ** 2 for at, loss in enumerate(half))
    error = math.sqrt(left / max(1, count - 2) / spread)
    change = slope * count / (abs(mean) or 1.0)
    sure = abs(slope) > SURE * error and abs(change) > WORTH_TELLING
    if sure and change < 0:
        return Reading("Falling: it is still learning. Single jumps mean nothing.", "good")
    if sure and change > RISE:
        return Reading(
            "Rising: the learning rate is too high. Take an earlier epoch, or start again with half of it.", "bad"
        )
    if early:
        return Reading("No trend yet: normal so early. Single jumps mean nothing.")
    return Reading("Flat: no fault, the loss has said what it can. Judge by the samples when to stop.", "flat")


def _spike(losses: array[float]) -> Reading | None:
    """Tell of a spike among the newest steps, for as long as it can be seen to be only one."""
    recent = _thinned(losses[-100 - NEWEST : -NEWEST])
    limit = fmean(recent) + SPIKE * math.sqrt(pvariance(recent))
    if sum(loss > limit for loss in losses[-NEWEST:]) == 1:
        return Reading("A spike: normal, that step drew a hard noise level. Only a lasting rise matters.")
    return None


def _thinned(losses: Sequence[float]) -> Sequence[float]:
    kept = [loss for loss in losses[:: max(1, len(losses) // MOST_POINTS)] if math.isfinite(loss)]
    return kept or [0.0]
