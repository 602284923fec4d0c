"""Chooses the settings of a run: the quickest that fit its machine, each with its reason. No torch.

In: a job, a machine, what the user wishes and what they have fixed. Out: a :class:`profiles.schema.Fit`. The parts:
:mod:`profiles.choices` says what may be chosen, :mod:`profiles.limits` what may be taken, :mod:`profiles.search`
finds what is quickest, :mod:`profiles.chooser` picks, :mod:`profiles.explain` gives reasons and alternatives,
:mod:`profiles.warn` warns, :mod:`profiles.remedies` says what would have to change where nothing fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from profiles.chooser import Estimate, Task, choose
from profiles.estimate import forecast
from profiles.explain import explain
from profiles.remedies import remedies
from profiles.schema import Correction, Fit, Forecast, Job, Machine, Settings, Wishes
from profiles.warn import verdict, warnings


def solve(
    job: Job,
    machine: Machine,
    wishes: Wishes | None = None,
    fixed: Mapping[str, Any] | None = None,
    start: Settings | None = None,
    alternatives: bool = True,
    estimate: Estimate = forecast,
) -> Fit:
    """Choose the settings of a run.

    Args:
        fixed: what the user decides, by dotted key as in the configuration (:data:`profiles.choices.KEYS`); the rest
            is solved around it.
        start: the settings to set out from: rank, targets, optimizer and the pictures of a step (batch times
            accumulation, which is kept) are the user's.
        alternatives: whether each setting comes with its other values and their cost, which takes most of the time.
        estimate: makes the forecasts; :func:`learned` makes one that knows what was measured on this machine.

    Raises:
        ConfigError: something fixed is no setting, or has a value that it cannot have here.
    """
    task = Task(job, machine, wishes or Wishes(), dict(fixed or {}), start or Settings(), estimate)
    choice = choose(task)
    return Fit(
        settings=choice.chosen.settings,
        forecast=choice.chosen.forecast,
        verdict=verdict(choice),
        limit_gb=choice.limits.card_gb,
        margin_gb=choice.limits.vram_margin_gb,
        reasons=explain(task, choice, alternatives),
        warnings=warnings(task, choice),
        remedies=() if choice.fits else remedies(task, choice),
    )


def learned(correction_for: Callable[[Machine, Settings], Correction]) -> Estimate:
    """Forecasts corrected by what was measured on the machine.

    Args:
        correction_for: what was learned there for such settings; asked once for each precision, way of multiplying,
            way of keeping activations, and whether blocks stream: it may read a file.
    """

    @cache
    def correction(machine: Machine, kind: Settings) -> Correction:
        return correction_for(machine, kind)

    def estimate(job: Job, settings: Settings, machine: Machine) -> Forecast:
        kind = Settings(
            precision=settings.precision,
            compute=settings.compute,
            checkpointing=settings.checkpointing,
            blocks_to_swap=min(settings.blocks_to_swap, 1),
        )
        return forecast(job, settings, machine, correction(machine, kind))

    return estimate
