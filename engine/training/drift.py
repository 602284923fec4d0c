"""Whether steps take longer than they did: a detector over their times, robust against everything that is normal.

A step is compared with earlier ones of about its size, as a ratio of their times; sizes within :data:`BAND` count as
one. The median of the last :data:`WINDOW` ratios decides, so that single slow steps (another program's moment) say
nothing. How much is too much depends on how widely this run's own steps scatter. Pure arithmetic, torch-free.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

BAND = 1.05
"""Sizes of steps, in tokens, within this factor are compared with each other: a step's time is almost linear."""

REFERENCE = 12
"""Steps of a size whose median is what later ones of that size are compared with."""

LEARNED = 24
"""Steps of any size before anything is said."""

WINDOW = 20
"""Ratios whose median is looked at: a jump shows after half as many steps."""

SETTLING = 3
"""Steps passed over after a start, a pause or sampling: clocks and memory come up again."""

RISE = 1.35
"""Least ratio that is told: heat alone makes a card 5 to 10 % slower over its first half hour."""

CALM = 0.4
"""Part of the rise below which things are as they were."""

SCATTER = 3.0
"""Standard deviations of one step that the ratio must exceed, beside :data:`RISE`. The median of the window has a
standard deviation of 0.28 of them, a reference's 0.36."""

MOST_SCATTER = 72
"""Ratios that the scatter is estimated from: the run's first, so that what comes later cannot hide itself."""

WORSE = 1.5
"""A rise by this factor since it was told is told again."""

QUICKER, BLOCK = 0.93, 50
"""A median over so many steps that is this low is the new reference: the run has become quicker."""


@dataclass(frozen=True)
class Change:
    """What has changed: steps now take ``factor`` times as long as the reference; 1 is as they did."""

    factor: float
    since: int
    """Steps ago that it began, about."""


class Drift:
    """Follows one run's steps."""

    def __init__(self) -> None:
        self._settling = SETTLING
        self._learning: dict[int, list[float]] = {}
        self._reference: dict[int, float] = {}
        self._scatter: list[float] = []
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._block: list[float] = []
        self._told = 0.0

    def interrupted(self) -> None:
        """Something lay between two steps (a pause, samples): those that follow settle first."""
        self._settling = SETTLING

    @property
    def ready(self) -> bool:
        """Whether enough is known of the run to judge."""
        return len(self._scatter) >= LEARNED

    def ratio(self, tokens: int, seconds: float) -> float | None:
        """A step's time against the reference of its size; None while there is none."""
        reference = self._reference.get(_band(tokens))
        return seconds / reference if reference else None

    def add(self, tokens: int, seconds: float) -> Change | None:
        """Take a step; what has changed, when it changes: a rise, a larger one, or its end."""
        if self._settling:
            self._settling -= 1
            return None
        ratio = self.ratio(tokens, seconds)
        if ratio is None:
            self._learn(_band(tokens), seconds)
            return None
        self._recent.append(ratio)
        if len(self._scatter) < MOST_SCATTER:
            self._scatter.append(ratio)
        self._follow(ratio)
        return self._judge() if self.ready and len(self._recent) == WINDOW else None

    def _learn(self, band: int, seconds: float) -> None:
        times = self._learning.setdefault(band, [])
        times.append(seconds)
        if len(times) == REFERENCE:
            reference = self._reference[band] = median(times)
            self._scatter += [time / reference for time in times]
            del self._learning[band]

    def _follow(self, ratio: float) -> None:
        """Lower the references where the run has become quicker for good."""
        self._block.append(ratio)
        if len(self._block) < BLOCK:
            return
        middle = median(self._block)
        self._block.clear()
        if middle < QUICKER:
            self._reference = {band: time * middle for band, time in self._reference.items()}
            self._recent = deque((each / middle for each in self._recent), maxlen=WINDOW)

    def _judge(self) -> Change | None:
        factor = median(self._recent)
        rise = max(RISE - 1, SCATTER * spread(self._scatter))
        if self._told and factor < 1 + CALM * rise:
            self._told = 0.0
            return Change(1.0, 0)
        if factor < max(1 + rise, self._told * WORSE):
            return None
        since = _split(list(self._recent))
        self._told = median(list(self._recent)[-since:])
        return Change(self._told, since)


def _split(ratios: Sequence[float]) -> int:
    """How many of the last ratios belong together: where two medians explain all of them best."""

    def unexplained(part: Sequence[float]) -> float:
        middle = median(part)
        return sum(abs(value - middle) for value in part)

    few = WINDOW // 4  # the last ones alone may be a few slow steps on top of the change
    begin = min(range(1, len(ratios) - few), key=lambda at: unexplained(ratios[:at]) + unexplained(ratios[at:]))
    rises = median(ratios[begin:]) > median(ratios[:begin])
    return len(ratios) - begin if rises else len(ratios)


def _band(tokens: int) -> int:
    return round(math.log(max(tokens, 1)) / math.log(BAND))


def spread(values: Sequence[float]) -> float:
    """Standard deviation of what is not an outlier, by the median of the deviations."""
    middle = median(values)
    return 1.4826 * median(abs(value - middle) for value in values)
