"""A run's epochs side by side, for the epochs screen, the report and the comparison: plain data, from its view.

Epoch 0 is the base model: it has pictures and measurements, and no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.config import StopConfig
from engine.events import CheckpointSaved, Measured, SampleSaved
from engine.training.advisor import Advice, advise
from tui.judged import Judged, Opinion
from tui.places import lora_in
from tui.view import RunView

Cell = tuple[int, int, float]
"""Where a picture stands in the grid: epoch, number of the prompt, strength."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch that has a file, a picture or a measurement.

    Attributes:
        files: the epoch's LoRA files as they are named, the last save first; they may be gone.
        verdict: the advisor's: "under", "in range", "over" or "unclear".
        measured: the last measurement of the epoch.
    """

    epoch: int
    step: int
    files: tuple[Path, ...]
    verdict: str
    measured: Measured | None
    opinion: Opinion

    @property
    def lora(self) -> Path | None:
        """The file that stands for the epoch: in kohya's layout where there are several, as every program reads that
        one; None where none is left. Looks at the disk."""
        return min(
            (path for path in self.files if path.is_file()), key=lambda path: ".diffusers." in path.name, default=None
        )


@dataclass(frozen=True)
class Prompt:
    """One line of the grid: a sample prompt by its number, with what it is to show."""

    index: int
    text: str
    kind: str
    seed: int


def advice_of(view: RunView, stop: StopConfig | None = None) -> Advice:
    """The advisor's word on what was measured up to now."""
    return advise(view.measured, stop)


def epoch_rows(view: RunView, folder: Path, judged: Judged, advice: Advice) -> list[EpochRow]:
    """Every epoch there is something of, from the base (0) on."""
    saved: dict[int, list[CheckpointSaved]] = {}
    for file in view.checkpoints:
        saved.setdefault(file.epoch, []).insert(0, file)
    measured = {one.epoch: one for one in view.measured if one.held_out or one.train}
    drawn = {sample.epoch: sample.step for sample in view.samples}
    steps = drawn | {one.epoch: one.step for one in measured.values()} | {e: f[0].step for e, f in saved.items()}
    return [
        EpochRow(
            epoch,
            steps[epoch],
            tuple(lora_in(folder, file.path) for file in saved.get(epoch, ())),
            advice.of_epoch(epoch) if epoch and measured else "",
            measured.get(epoch),
            judged.of(epoch),
        )
        for epoch in sorted(steps)
    ]


def standing_loras(view: RunView, folder: Path) -> dict[int, tuple[int, Path]]:
    """Step and LoRA file of each epoch that a file stands for, by epoch."""
    rows = epoch_rows(view, folder, Judged(), Advice("unclear"))
    return {row.epoch: (row.step, path) for row in rows if (path := row.lora) is not None}


def prompts_of(samples: Iterable[SampleSaved]) -> list[Prompt]:
    """The prompts that pictures were drawn of, each as it was last, by number."""
    found = {one.index: Prompt(one.index, one.prompt, one.kind, one.seed) for one in samples}
    return [found[index] for index in sorted(found)]


def grid_of(samples: Iterable[SampleSaved]) -> dict[Cell, SampleSaved]:
    """The last picture of each epoch, prompt and strength; pictures drawn in between epochs count for theirs."""
    return {(one.epoch, one.index, one.strength): one for one in samples}
