"""Chooses one set of settings: of what fits the quickest, quality first where time is equal. No torch.

What "equal" means is :data:`CONCESSION`. Explaining the choice is :mod:`profiles.explain`'s, saying what would have
to change where nothing fits :mod:`profiles.remedies`'; both choose again with one thing changed, so forecasts once
made are kept for as long as job and machine stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from profiles.choices import Choices, Way, choices_for
from profiles.limits import Lack, Limits
from profiles.schema import Forecast, Job, Machine, Settings, Wishes
from profiles.search import Candidate, Found, search, smallest

Estimate = Callable[[Job, Settings, Machine], Forecast]

CONCESSION = {"fastest": 0.0, "balanced": 0.04, "quality": inf}
"""How much longer than the quickest a run may take for the sake of quality, by :attr:`profiles.schema.Wishes.aim`:
no forecast is surer than that. With what :data:`profiles.search.EQUAL` gives away it stays below 5 %."""


@dataclass(frozen=True)
class Task:
    """What is to be solved.

    Attributes:
        start: rank, targets, optimizer and the pictures of a step are taken from it.
        estimate: makes forecasts.
        known: the forecasts made so far for this job on this machine.
    """

    job: Job
    machine: Machine
    wishes: Wishes
    fixed: Mapping[str, Any]
    start: Settings
    estimate: Estimate
    known: dict[Settings, Forecast] = field(default_factory=dict, compare=False)

    def forecast(self, settings: Settings) -> Forecast:
        """The forecast of settings, made once."""
        if settings not in self.known:
            self.known[settings] = self.estimate(self.job, settings, self.machine)
        return self.known[settings]

    def with_fixed(self, changes: Mapping[str, Any]) -> Task:
        """The same with more of the settings fixed, or with others."""
        return replace(self, fixed={**self.fixed, **changes})

    def without_fixed(self, *keys: str) -> Task:
        """The same with these settings given back."""
        return replace(self, fixed={key: value for key, value in self.fixed.items() if key not in keys})

    def wishing(self, wishes: Wishes) -> Task:
        """The same with other wishes."""
        return replace(self, wishes=wishes)

    def elsewhere(self, job: Job | None = None, machine: Machine | None = None) -> Task:
        """Another job, or another machine; nothing is known of it yet."""
        return replace(self, job=job or self.job, machine=machine or self.machine, known={})


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
        chosen: where nothing fits, what comes nearest.
        ideal: what would have been chosen if memory were no limit.
        found: the best of each way that fits.
        lacks: empty where it fits.
    """

    chosen: Candidate
    ideal: Candidate
    found: Found
    choices: Choices
    limits: Limits
    lacks: tuple[Lack, ...]

    @property
    def fits(self) -> bool:
        """Whether the run fits."""
        return not self.lacks


def choose(task: Task) -> Choice:
    """Choose settings for ``task``.

    Raises:
        ConfigError: something fixed is no setting, or has a value that it cannot have here.
    """
    choices = choices_for(task.job, task.machine, task.wishes, task.fixed, task.start)
    limits = Limits.of(task.machine, task.wishes)
    found = search(choices, limits, task.forecast)
    ideal = pick(found.ideal, task.wishes)
    if not found.best:
        nearest = smallest(choices, limits, task.forecast)
        return Choice(nearest, ideal, found, choices, limits, limits.lacking(nearest.forecast))
    return Choice(pick(found.best, task.wishes), ideal, found, choices, limits, ())


def pick(best: Mapping[Way, Candidate], wishes: Wishes) -> Candidate:
    """The one to take among the best of each way: done in time, quick enough, of the best quality, in this order."""
    pool = list(best.items())
    if wishes.done_in_s:
        in_time = [(way, each) for way, each in pool if each.forecast.total_s <= wishes.done_in_s]
        pool = in_time or [min(pool, key=lambda pair: pair[1].order)]
    quickest = min(each.forecast.total_s for _, each in pool)
    enough = [(way, each) for way, each in pool if each.forecast.total_s <= quickest * (1 + CONCESSION[wishes.aim])]
    return min(enough, key=lambda pair: (pair[0].quality, pair[1].order))[1]
