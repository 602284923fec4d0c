"""The learning rate as a function of the step; nothing is remembered, so a resumed run needs no scheduler state.

The curves equal those of ``transformers.get_scheduler``; ``min_ratio`` lifts a curve's foot as its
``cosine_with_min_lr`` does.
"""

from __future__ import annotations

import math

import torch

from engine.config import RunConfig, ScheduleConfig


def lr_factor(step: int, total_steps: int, config: ScheduleConfig) -> float:
    """The part of the highest learning rate at ``step`` (the steps done so far, so the first one has 0).

    During warm-up ``step / warmup_steps``; then the curve from 1 down to ``min_ratio`` at ``total_steps``.
    """
    if step < config.warmup_steps:
        return step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.min_ratio + (1.0 - config.min_ratio) * _curve(min(progress, 1.0), config)


def _curve(progress: float, config: ScheduleConfig) -> float:
    """Height between 1 and 0 for progress between 0 and 1."""
    match config.name:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "cosine_with_restarts":
            if progress >= 1.0:
                return 0.0
            return 0.5 * (1.0 + math.cos(math.pi * ((config.cycles * progress) % 1.0)))
        case "polynomial":
            return (1.0 - progress) ** config.power


def learning_rate(step: int, total_steps: int, config: ScheduleConfig, base: float) -> float:
    """The learning rate at ``step``, where ``base`` is the highest."""
    return base * lr_factor(step, total_steps, config)


def apply_factor(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times the one it was built with (``initial_lr``)."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def set_learning_rate(optimizer: torch.optim.Optimizer, config: RunConfig, step: int, total_steps: int) -> float:
    """Set what ``step`` is to be trained with; returns the learning rate of the down matrices."""
    factor = lr_factor(step, total_steps, config.schedule)
    apply_factor(optimizer, factor)
    return config.optimizer.learning_rate * factor
