"""How much is measured, and when: the richest set whose cost stays within the budget, the same one all the run.

Cost is counted in samples that pass forward through the model: training one costs about three such passes (backward
is two), so the budget is a number and not a matter of how busy the machine is: a run that is resumed measures at the
same steps. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config_measuring import ValidationConfig

TRAINED = 3
"""Forward passes that one trained sample costs."""

FEW = 10
"""A curve of fewer measurements shows no bottom: a poorer set is taken rather than fewer, if the epochs allow."""

SIGMAS = {3: (0.15, 0.4, 0.75), 4: (0.1, 0.25, 0.45, 0.75), 5: (0.1, 0.25, 0.4, 0.6, 0.85)}
"""Noise levels, by how many: over-fitting shows first and strongest where noise is low."""

DRIFT_SIGMAS = (0.4, 0.8)


@dataclass(frozen=True)
class Level:
    """How rich a set is: most pictures on each side, noise levels, seeds, prompts of the drift."""

    held_out: int
    train: int
    sigmas: int
    seeds: int
    prompts: int


LEVELS = (
    Level(8, 8, 5, 2, 8),
    Level(8, 6, 4, 2, 6),
    Level(6, 4, 4, 2, 4),
    Level(4, 4, 3, 2, 4),
    Level(4, 3, 3, 1, 2),
    Level(2, 2, 3, 1, 2),
)
"""From the richest to the poorest."""


@dataclass(frozen=True)
class Plan:
    """What is measured each time, and at the end of every how many epochs (0: never)."""

    held_out: int
    train: int
    sigmas: tuple[float, ...]
    seeds: int
    prompts: int
    every_epochs: int
    every_steps: int = 0

    @property
    def passes(self) -> int:
        """Samples that pass through the model in one measurement; training pictures are seen with one seed."""
        probes = self.held_out * self.seeds + self.train
        return probes * len(self.sigmas) + self.prompts * len(DRIFT_SIGMAS)

    def due(self, step: int, epoch: int, epoch_over: bool) -> bool:
        """Whether something is measured after ``step``."""
        by_epoch = bool(self.every_epochs) and epoch_over and epoch % self.every_epochs == 0
        return by_epoch or (bool(self.every_steps) and step % self.every_steps == 0)


def plan_measuring(
    config: ValidationConfig, held_out: int, train: int, prompts: int, samples: int, epochs: int
) -> Plan:
    """Choose what is measured.

    Args:
        config: the [validation] table.
        held_out: held-out pictures there are.
        train: training pictures there are.
        prompts: ordinary prompts there are.
        samples: samples that the whole run trains on.
        epochs: epochs of the whole run.
    """
    allowed = config.budget * TRAINED * samples
    plans = [_plan(config, level, held_out, train, prompts, allowed, epochs) for level in LEVELS]
    enough = min(epochs, FEW)
    return next((plan for plan in plans if _count(plan, epochs) >= enough), plans[-1])


def _plan(
    config: ValidationConfig, level: Level, held_out: int, train: int, prompts: int, allowed: float, epochs: int
) -> Plan:
    sigmas = config.sigmas or SIGMAS[level.sigmas]
    plan = Plan(
        held_out=min(level.held_out, held_out),
        train=min(level.train, train),
        sigmas=tuple(sorted(sigmas)),
        seeds=level.seeds,
        prompts=min(level.prompts, prompts),
        every_epochs=0,
        every_steps=config.every_steps,
    )
    every = config.every_epochs
    if every == "auto":
        measurements = max(1.0, allowed // plan.passes - 1)  # one more before the first step
        every = max(1, -int(-epochs // measurements))
    return Plan(**(vars(plan) | {"every_epochs": every}))


def _count(plan: Plan, epochs: int) -> int:
    return epochs // plan.every_epochs if plan.every_epochs else epochs
