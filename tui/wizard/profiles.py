"""The planner that knows this machine: reads its cards, and asks the forecast and the solver of :mod:`profiles`.

For threads only: drivers, model files' headers and disks are read, and the solver takes its time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.dataset.scan import Scan
from engine.models.detect import ModelInfo, expect
from engine.text import safe_text
from profiles.job import MODELS, job_of
from profiles.machine import gpu_choices, read_machine
from profiles.measured import Measured
from profiles.schema import Fit, Job, Machine, Settings, Wishes
from profiles.solve import learned, solve
from tui.setup.fields import SLOTS
from tui.wizard.planner import Place


class Profiles:
    """The planner of the real machine."""

    def places(self, cache_dir: Path, runs_dir: Path) -> tuple[Place, ...]:
        """Its cards that can train, the best first; the processor where there is none."""
        choices = sorted(gpu_choices(), key=lambda choice: not choice.best)
        against = tuple(
            f"{safe_text(choice.card.label, 60)} is left out. {choice.why}" for choice in choices if not choice.usable
        )
        found = []
        for choice in choices:
            if choice.usable and choice.device:
                machine = _said(read_machine(cache_dir, runs_dir, choice.gpu.uuid), against)
                machine = _said(machine, _measured(machine))
                found.append(Place(choice.device, safe_text(choice.card.label, 60), choice.why, machine))
        if found:
            return tuple(found)
        machine = _said(read_machine(cache_dir, runs_dir), against)
        machine = _said(machine, _measured(machine))
        cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
        sentence = f"No card to train on: {cores} of the processor, which suits the pocket model alone."
        return (Place("cpu", "the processor", sentence, replace(machine, card=None)),)

    def job(self, config: RunConfig, scan: Scan) -> Job:
        """The configuration in sizes; model files by their headers, those that are missing as published.

        Raises:
            EngineError: a file is not what it should be, or a picture fits no bucket.
        """
        infos = {slot: _info(getattr(config.model, slot), slot) for slot in SLOTS}
        return job_of(config, scan.samples, infos)

    def solve(self, job: Job, machine: Machine, wishes: Wishes, fixed: Mapping[str, Any], start: Settings) -> Fit:
        """The settings that fit, by forecasts that know what earlier runs needed on this machine.

        Raises:
            ConfigError: something fixed cannot be had on this machine.
        """
        measured = Measured()
        return solve(job, machine, wishes, fixed, start, estimate=learned(measured.correction_for))


def _said(machine: Machine, more: tuple[str, ...]) -> Machine:
    """The machine with more remarks, each once."""
    return replace(machine, remarks=tuple(dict.fromkeys((*machine.remarks, *more))))


def _measured(machine: Machine) -> tuple[str, ...]:
    """What is known of the machine from earlier runs, and what was wrong with the file that keeps it."""
    measured = Measured()
    return tuple(filter(None, (measured.words(machine), *measured.remarks)))


def _info(path: Path, slot: str) -> ModelInfo:
    """What a slot's file is; where there is none, FLUX.1-dev's published one, to be planned with beforehand.

    Raises:
        ModelFileError: another file stands there.
    """
    if os.path.exists(path):
        return expect(path, slot)
    size = MODELS["flux1-dev"]
    count = {
        "transformer": size.transformer_bytes,
        "t5": size.t5_bytes,
        "clip_l": size.clip_bytes,
        "autoencoder": size.autoencoder_bytes,
    }[slot]
    return ModelInfo(path, slot, size.family, size.variant, size.stored, 0, count, True, params=dict(size.params))
