"""A run's values step by step, as growing columns: what plots draw, losses with their moving averages."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from engine.events import StepDone

SMOOTHINGS = (0.98, 0.9, 0.995)
"""Betas of the smoothed losses kept; the first is shown unless asked otherwise."""


@dataclass
class Smoothed:
    """A bias-corrected exponential moving average and its course, advanced by one multiply per step."""

    beta: float
    course: array[float] = field(default_factory=lambda: array("d"))
    _sum: float = 0.0
    _weight: float = 0.0

    def add(self, value: float) -> None:
        """Append the average after ``value``; a value that is not finite leaves it where it was."""
        if math.isfinite(value):
            self._sum = self.beta * self._sum + (1 - self.beta) * value
            self._weight = self.beta * self._weight + (1 - self.beta)
        self.course.append(self._sum / self._weight if self._weight else math.nan)


@dataclass
class Courses:
    """Per-step values as growing columns, index-aligned; plots copy them to numpy in one go."""

    step: array[int] = field(default_factory=lambda: array("q"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    lr: array[float] = field(default_factory=lambda: array("d"))
    grad_norm: array[float] = field(default_factory=lambda: array("d"))
    step_s: array[float] = field(default_factory=lambda: array("d"))
    smoothed: tuple[Smoothed, ...] = field(default_factory=lambda: tuple(Smoothed(beta) for beta in SMOOTHINGS))

    def add(self, event: StepDone) -> None:
        """Append one step."""
        self.step.append(event.step)
        self.loss.append(event.loss)
        self.lr.append(event.lr)
        self.grad_norm.append(event.grad_norm)
        self.step_s.append(event.step_s)
        for smoothed in self.smoothed:
            smoothed.add(event.loss)

    def cut_after(self, step: int) -> None:
        """Forget steps later than ``step``: a resumed run does them again."""
        keep = len(self.step)
        while keep and self.step[keep - 1] > step:
            keep -= 1
        if keep == len(self.step):
            return
        for column in (self.step, self.loss, self.lr, self.grad_norm, self.step_s):
            del column[keep:]
        self.smoothed = tuple(Smoothed(beta) for beta in SMOOTHINGS)
        for loss in self.loss:
            for smoothed in self.smoothed:
                smoothed.add(loss)
