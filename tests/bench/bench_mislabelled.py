"""Is a mislabelled picture found? ``python -m tests.bench.bench_mislabelled [FIRST [LAST]]`` prints the table.

Ten times one of 16 pictures of the concept gets the caption of another one, and the pocket model is trained on them
for :data:`EPOCHS` epochs. Then every picture is measured as ``L`` and ``kiln losses`` do, and the place of the wrong
one is noted: by that figure, by the plain loss with its own caption at the same noise, and by what the training steps
themselves show. Half a minute of one core each.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from engine.commands import MeasurePictures
from engine.config import RunConfig
from engine.events import PictureLosses, RunFailed
from engine.models.pocket.concept import TRIGGER, concept_set
from engine.run import Run
from engine.trainer import Trainer
from profiles.starters import pocket_model

PICTURES, EPOCHS, PLANTINGS = 16, 20, 10


@dataclass(frozen=True)
class Found:
    """One planting: the wrong caption, the right one, and the place of the picture by each figure, from 1."""

    wrong: str
    right: str
    misfit: int
    plain: int
    steps: int


def planted(seed: int) -> tuple[list[tuple[object, str]], int, str]:
    """Pictures with captions, which of them has another's, and what it should say."""
    pictures = concept_set(PICTURES, seed=5000 + seed)
    draw = random.Random(seed)
    at = draw.randrange(PICTURES)
    picture, right = pictures[at]
    wrong = draw.choice([text for _, text in pictures if text != right])
    return [*pictures[:at], (picture, wrong), *pictures[at + 1 :]], at, right


def plant(seed: int, folder: Path, epochs: int = EPOCHS) -> Found:
    """Train on a planted set and look for the picture."""
    pictures, at, right = planted(seed)
    data = folder / "data"
    data.mkdir()
    for number, (picture, text) in enumerate(pictures):
        picture.save(data / f"{number:02d}.png")  # type: ignore[attr-defined]
        (data / f"{number:02d}.txt").write_text(text)
    told = _train(_config(seed, folder, epochs))
    fixed = [event for event in told if event.kind == "fixed"][-1]
    steps = [event for event in told if event.kind == "steps"][-1]
    name = str(data / f"{at:02d}.png")
    plain = dict(zip(fixed.names, fixed.losses, strict=True))
    places = (_place(figures, name) for figures in (fixed.figures, plain, steps.figures))
    return Found(pictures[at][1], right, *places)


def _config(seed: int, folder: Path, epochs: int) -> RunConfig:
    return RunConfig.model_validate({
        "name": "planted",
        "seed": seed,
        "runs_dir": folder / "runs",
        "cache_dir": folder / "cache",
        "model": pocket_model() | {"t5_length": 20},
        "dataset": {
            "folders": [{"path": folder / "data"}],
            "resolution": 64,
            "buckets": {"min_side": 64, "max_side": 128, "step": 16},
            "captions": {"trigger_word": TRIGGER},
        },
        "lora": {"rank": 8},
        "optimizer": {"learning_rate": 2e-3},
        "schedule": {"name": "constant", "warmup_steps": 5},
        "training": {"epochs": epochs, "batch_size": 4, "device": "cpu", "threads": 1},
        "sampling": {"prompts": [], "width": 64, "height": 64, "steps": 8},
        "validation": {"every_epochs": 0, "held_out": 0},
    })  # fmt: skip


def _train(config: RunConfig) -> list[PictureLosses]:
    """What the run told of its pictures; they are measured before its last step."""
    step = Trainer._step

    def stepping(self: Trainer, turn: object) -> None:
        if turn.step == self.kit.prepared.order.total_steps - 1:  # type: ignore[attr-defined]
            self.control.commands.submit(MeasurePictures())
        step(self, turn)  # type: ignore[arg-type]

    with mock.patch.object(Trainer, "_step", stepping):
        run = Run(config)
        run.start()
        run.join()
    told = [entry.event for entry in run.events.since(0)]
    if failed := [event for event in told if isinstance(event, RunFailed)]:
        raise SystemExit(f"{failed[0].title}: {failed[0].detail}")
    return [event for event in told if isinstance(event, PictureLosses)]


def _place(figures: Mapping[str, float], name: str) -> int:
    return 1 + sum(figure > figures[name] for figure in figures.values())


def report(first: int = 0, last: int = PLANTINGS) -> str:
    """The table, and how often the picture is among the first three."""
    lines = [
        "| caption planted | should be | place by misfit | by plain loss | by training steps |",
        "|---|---|---|---|---|",
    ]
    found = []
    for seed in range(first, last):
        with tempfile.TemporaryDirectory(prefix="lorakiln-planted-") as folder:
            found.append(plant(seed, Path(folder)))
        one = found[-1]
        lines.append(f"| {one.wrong} | {one.right} | {one.misfit} | {one.plain} | {one.steps} |")
        print(lines[-1], file=sys.stderr, flush=True)
    counts = [sum(getattr(one, by) <= 3 for one in found) for by in ("misfit", "plain", "steps")]
    words = "Among the first three of {} pictures: {} of {} by misfit, {} by plain loss, {} by the training steps."
    return "\n".join([*lines, "", words.format(PICTURES, counts[0], len(found), *counts[1:])])


if __name__ == "__main__":
    print(report(*map(int, sys.argv[1:])))
