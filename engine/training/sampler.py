"""A run's own sample pictures: which are drawn at a step, where they lie, and what is said of them.

Prompts and strengths go in, PNG files and events come out. Epoch 0 is the base model: it is drawn with the LoRA off,
also where the run goes on from another LoRA. Strengths are factors while a picture is drawn; no weight is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.config import PromptConfig, RunConfig, SamplingConfig
from engine.events import EventLog, Log, SampleSaved
from engine.files import RunFolder
from engine.training.evidence import Evidence
from engine.training.kit import Kit
from engine.training.pictures import ask

BASE = (1.0,)
"""The one strength that the base model is drawn at: without a LoRA all are the same."""


def sample_path(folder: RunFolder, step: int, index: int, strength: float = 1.0) -> Path:
    """Where the picture of a prompt lies."""
    more = "" if strength == 1.0 else f"-s{strength:g}"
    return folder.samples / f"step{step:06d}-{index:02d}{more}.png"


class Sampler:
    """Draws one run's samples."""

    def __init__(self, config: RunConfig, folder: RunFolder, events: EventLog, kit: Kit) -> None:
        self.config = config
        self.folder = folder
        self.events = events
        self.kit = kit
        self.evidence = Evidence(config, kit.prepared.order.samples, kit.compute, events)

    def missing(self, step: int) -> bool:
        """Whether of what is to be drawn at ``step`` not all is there."""
        sampling = self.config.sampling
        paths = (sample_path(self.folder, step, one.index, one.strength) for one in ask(*_asked(sampling, step)))
        return not all(path.is_file() for path in paths)

    def draw(self, step: int, epoch: int, strengths: Sequence[float] = ()) -> list[SampleSaved]:
        """Draw the prompts, at ``strengths`` or the configured ones, and look at what came of them.

        Raises:
            DiskError: a picture cannot be written.
        """
        lora = self.kit.lora
        if not step and self.config.lora.resume_from is not None:
            text = "The samples of epoch 0 show the base model, without the LoRA that the run goes on from"
            self.events.append(Log("info", text))
        drawn = self.kit.painter.draw(
            self.kit.transformer,
            ask(*_asked(self.config.sampling, step, strengths)),
            lambda one, _: sample_path(self.folder, step, one.index, one.strength),
            {"step": step, "epoch": epoch},
            step,
            epoch,
            lora.strength if step else lambda _: lora.disabled(),
        )
        self.evidence.look(drawn, self.kit.painter.should_stop)
        return drawn


def _asked(
    sampling: SamplingConfig, step: int, strengths: Sequence[float] = ()
) -> tuple[Sequence[PromptConfig], Sequence[float]]:
    """Prompts and strengths of what is drawn at ``step``."""
    return sampling.prompts, (strengths or sampling.strengths) if step else BASE
