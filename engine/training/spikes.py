"""Losses that jump: several steps in a row far above what was usual, told and never acted on.

One step's loss says little: most of it is the noise level drawn for it. So a step is judged against the median of the
last 200 and their median distance from it, which a few wild ones do not move, and three in a row have to stand out.
Torch-free.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WINDOW = 200
FEWEST = 50
"""Losses that must be known before one is judged."""

SCORE, IN_A_ROW = 8.0, 3

NORMAL = 1.4826
"""Times the median distance from the median: the standard deviation, were the values normal."""

LEAST = 1e-3
"""Least spread, as a part of the median: where losses hardly differ, nothing stands out by that alone."""


@dataclass(frozen=True)
class Spike:
    """Three steps in a row that stand out.

    Attributes:
        steps, names: the steps with their pictures, oldest first.
        loss, score: of the last of them.
        usual: the median before them.
    """

    steps: tuple[int, ...]
    names: tuple[str, ...]
    loss: float
    usual: float
    score: float


def robust_z(value: float, before: Sequence[float]) -> float:
    """How far ``value`` lies above the median of ``before`` (at least one), in robust standard deviations."""
    usual = median(before)
    spread = NORMAL * median(abs(each - usual) for each in before)
    return (value - usual) / max(spread, LEAST * abs(usual), 1e-12)


class Spikes:
    """Follows one run's losses; a jump is told once, until a step lies within the usual again."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=WINDOW)
        self._row: list[tuple[int, str, float]] = []

    def add(self, step: int, loss: float, names: str) -> Spike | None:
        """Take a step's loss; what there is to tell with it."""
        if not math.isfinite(loss):
            return None
        score = robust_z(loss, self._before) if len(self._before) >= FEWEST else 0.0
        if score <= SCORE:
            # What stood out so far is a part of what is usual from here on.
            self._before.extend([each for _, _, each in self._row])
            self._row.clear()
            self._before.append(loss)
            return None
        self._row.append((step, names, loss))
        if len(self._row) > WINDOW:
            self._before.append(self._row.pop(0)[2])
        if len(self._row) != IN_A_ROW:
            return None
        steps, pictures, _ = zip(*self._row, strict=True)
        return Spike(steps, pictures, loss, median(self._before), score)
