"""Whole runs of a smallest model on a scarce device, and what they did: what tests of the ladder compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import tiny_flux
from PIL import Image
from pocket import finish, merge, pictures, pocket_config, told
from safetensors.torch import load_file
from scarce import Scarce, engine_under

from engine.config import RunConfig
from engine.events import RunDone, RunFailed, SampleSaved, StepDone
from engine.models.flux import FluxParams
from engine.run import Run
from engine.training import step as step_module

SMALLEST = FluxParams(
    in_channels=64, vec_in_dim=64, context_in_dim=96, hidden_size=64, num_heads=2, depth=1, depth_single_blocks=2,
    axes_dim=(8, 12, 12),
)  # fmt: skip


def make_place(folder: Path) -> Path:
    """A folder with pictures, a smallest model and, once a run was here, caches."""
    pictures(folder / "data", 4)
    tiny_flux(folder / "flux.safetensors", SMALLEST)
    return folder


def small(place: Path, **changes: Any) -> RunConfig:
    """Two steps an epoch, micro-batches of two in one bucket."""
    base = {
        "model": {"transformer": place / "flux.safetensors"},
        "dataset": {"buckets": {"enabled": False}},
        "training": {"epochs": 1, "batch_size": 2, "accumulation": 1},
        "lora": {"dropout": 0.1},
        "saving": {"every_epochs": 0},
        "sampling": {"every_epochs": 0, "at_start": False},
    }
    return pocket_config(place, **merge(base, changes))


@dataclass(frozen=True)
class Course:
    """What a run did: its steps with the pictures in them, the adapter it ended with, its samples."""

    steps: list[tuple[int, float]]
    seen: list[tuple[int, str]]
    lora: dict[str, torch.Tensor]
    samples: list[bytes]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Course)
        if (self.steps, self.seen, self.samples) != (other.steps, other.seen, other.samples):
            return False
        same = (torch.equal(self.lora[name], other.lora[name]) for name in self.lora)
        return self.lora.keys() == other.lora.keys() and all(same)


class Watch:
    """Runs, on a scarce device where one is given, with what each of their steps saw.

    Attributes:
        mode: the newest run's device.
        seen: its steps with the names of the pictures in them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.mode = Scarce()
        self.seen: list[tuple[int, str]] = []
        self.run: Any = None
        step = step_module.Stepper.step

        def stepping(stepper: Any, turn: Any, look: Any = None) -> Any:
            told = step(stepper, turn, look)
            self.seen.append((turn.step, told.names))
            return told

        monkeypatch.setattr(step_module.Stepper, "step", stepping)

    def __call__(self, config: RunConfig, mode: Scarce | None = None) -> Course:
        self.seen.clear()
        self.run = Run(config)
        if mode is None:
            finish(self.run)
        else:
            self.mode = mode
            with engine_under(mode, self.monkeypatch):
                finish(self.run)
        failures = told(self.run, RunFailed)
        assert not failures, failures
        steps = [(event.step, event.loss) for event in told(self.run, StepDone)]
        samples = [Image.open(event.path).tobytes() for event in told(self.run, SampleSaved)]
        return Course(steps, list(self.seen), load_file(told(self.run, RunDone)[0].lora), samples)

    def scarce(self, config: RunConfig) -> Course:
        """As when called, on a device that refuses nothing yet."""
        return self(config, Scarce(where=lambda: self.run.state))

    def faults(self, owner: Any, name: str, places: list[int]) -> None:
        """Refuse, in each of the first attempts of ``owner.name``, the allocation whose number is next in ``places``.

        The attempt made after a refusal is left alone.
        """
        work, coming, refused = getattr(owner, name), list(places), [False]

        def works(*args: Any, **options: Any) -> Any:
            if not refused[0] and coming:
                self.mode.arm(coming.pop(0))
            before = len(self.mode.refused)
            refused[0] = False
            try:
                return work(*args, **options)
            finally:
                refused[0] = len(self.mode.refused) > before

        self.monkeypatch.setattr(owner, name, works)
