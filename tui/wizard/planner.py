"""Whom the wizard asks: what machine this is, what a configuration amounts to, and which settings fit.

Everything here may take its time and reads files and drivers: it is called in a thread, never by the screen. The real
one is :class:`Profiles`; tests and pictures bring their own machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.config import RunConfig
from engine.dataset.scan import Scan
from profiles.schema import Fit, Job, Machine, Settings, Wishes


@dataclass(frozen=True)
class Place:
    """Where a run could be trained: ``device`` as the configuration calls it, and a sentence about it."""

    device: str
    name: str
    sentence: str
    machine: Machine


class Planner(Protocol):
    """What the wizard needs to know."""

    def places(self, cache_dir: Path, runs_dir: Path) -> tuple[Place, ...]:
        """Where this machine can train, the best first: its cards, or its processor alone."""

    def job(self, config: RunConfig, scan: Scan) -> Job:
        """The configuration and its dataset in sizes.

        Raises:
            EngineError: a model file or the dataset cannot be made sense of.
        """

    def solve(self, job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], start: Settings) -> Fit:
        """The settings that fit, with ``fixed`` ones (by dotted key) as they are.

        ``start`` has the user's goals: rank, targets, optimizer and the pictures of a step.

        Raises:
            EngineError: a fixed value cannot be had at all.
        """
