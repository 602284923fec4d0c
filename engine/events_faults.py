"""What a run tells of faults: steps that were not finite, losses that jumped, host memory that runs out.

A part of :mod:`engine.events`, which every reader imports them from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepBroken:
    """Step ``step`` was not finite and changed nothing; ``text`` says what was found, and what is done about it.

    ``action`` is "again" (the same step once more), "passed" (that went well: a fault that came once), "skipped" (it
    is left out, its pictures count as seen), "restored" (weights or optimizer had broken: the run goes on after the
    saved step ``back_to``) or "stopped" (the state of ``back_to`` is the last good one). ``names`` are its pictures.
    """

    step: int
    epoch: int
    action: str
    text: str
    loss: float = 0.0
    grad_norm: float = 0.0
    names: str = ""
    back_to: int = 0


@dataclass(frozen=True)
class LossSpiked:
    """The losses of the steps ending with ``step`` lie far above what was usual; nothing is done about it.

    ``score`` is the robust z-score of the last one: its distance from ``usual``, the median before, in units of the
    spread before. ``names`` are the steps' pictures, one text a step. ``kept_step`` is the step of the saved state
    from before them that is kept; 0 where there is none.
    """

    step: int
    loss: float
    usual: float
    score: float
    names: tuple[str, ...]
    kept_step: int
    text: str


@dataclass(frozen=True)
class HostMemoryLow:
    """The host has ``free_gb`` GiB of ``total_gb`` left; ``text`` says who holds it and what to lower.

    ``process_gb`` is this process's share. Told again only after there was room in between.
    """

    free_gb: float
    total_gb: float
    process_gb: float
    text: str
