"""The recorded runs: what is trained on, how hard, and which of them the advisor's rules may be tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.models.pocket.concept import TRIGGER, concept_set
from profiles.starters import POCKET, pocket_model

SECOND_HALF = 41
"""The first seed of the second half of the short runs."""

SCORED = 2
"""Every second measurement is scored by the oracle, from the second on."""


@dataclass(frozen=True)
class Spec:
    """One run.

    Attributes:
        tune: whether rules may be tuned on it; the others are looked at once the rules stand.
        greedy: whether over-fitting is provoked: few pictures, a high rate, no regularization.
        held_out: held-out pictures given as a folder; 0 lets the run set some of its own aside.
        every: epochs from one measurement to the next.
    """

    name: str
    tune: bool
    greedy: bool
    pictures: int
    rate: float
    rank: int
    seed: int
    held_out: int = 0
    regularization: bool = True
    schedule: str = "constant"
    epochs: int = 40
    every: int = 1

    @property
    def long(self) -> bool:
        """Whether it goes on until what over-fits has done so to the end."""
        return self.every > 1

    @property
    def scored(self) -> int:
        """Epochs from one that the oracle scores to the next."""
        return SCORED * self.every

    @property
    def half(self) -> str:
        """Which table the run is in. The second untouched half was declared when "over" began to ask for drift."""
        if self.long:
            return "long, tuned on" if self.tune else "long, untouched"
        if self.tune:
            return "tuned on"
        return "untouched" if self.seed < SECOND_HALF else "untouched, second half"


RUNS = (
    Spec("calm-a", True, False, 16, 2e-3, 8, 1, schedule="cosine"),
    Spec("calm-b", True, False, 24, 1e-3, 8, 2),
    Spec("calm-c", True, False, 20, 3e-3, 4, 3, held_out=8, schedule="cosine"),
    Spec("greedy-a", True, True, 5, 4e-3, 8, 4, held_out=8, regularization=False),
    Spec("greedy-b", True, True, 12, 6e-3, 16, 5, regularization=False),
    Spec("greedy-c", True, True, 8, 4e-3, 16, 6, held_out=6, regularization=False),
    Spec("calm-d", True, False, 18, 2e-3, 16, 7),
    Spec("calm-e", True, False, 24, 2e-3, 4, 8, held_out=8, schedule="cosine"),
    Spec("calm-f", True, False, 14, 1.5e-3, 8, 9, held_out=6),
    Spec("greedy-d", True, True, 6, 5e-3, 8, 10, held_out=8, regularization=False),
    Spec("greedy-e", True, True, 16, 8e-3, 8, 11, regularization=False),
    Spec("greedy-f", True, True, 5, 6e-3, 16, 12, held_out=6, regularization=False),
    Spec("calm-p", True, False, 30, 2.5e-3, 8, 61),
    # Declared before the first of them was recorded; recorded in this order, and looked at once.
    Spec("greedy-g", False, True, 6, 6e-3, 8, 27, held_out=8, regularization=False),
    Spec("calm-g", False, False, 16, 1.5e-3, 16, 21, schedule="cosine"),
    Spec("greedy-h", False, True, 14, 5e-3, 16, 28, regularization=False),
    Spec("calm-h", False, False, 22, 2.5e-3, 8, 22),
    Spec("greedy-i", False, True, 8, 7e-3, 4, 29, held_out=6, regularization=False),
    Spec("calm-i", False, False, 12, 2e-3, 4, 23, held_out=8),
    Spec("greedy-j", False, True, 5, 5e-3, 8, 30, held_out=6, regularization=False),
    Spec("calm-j", False, False, 20, 1e-3, 16, 24, held_out=6),
    Spec("greedy-k", False, True, 12, 4e-3, 16, 31, held_out=4, regularization=False),
    Spec("calm-k", False, False, 24, 3e-3, 8, 25, schedule="cosine"),
    Spec("greedy-l", False, True, 10, 8e-3, 8, 32, held_out=8, regularization=False),
    Spec("calm-l", False, False, 18, 2e-3, 8, 26, held_out=4),
    # A second half, declared when the rule that asks for drift stood, before the first of them was recorded.
    Spec("greedy-m", False, True, 5, 4e-3, 16, 41, held_out=8, regularization=False),
    Spec("calm-m", False, False, 14, 2e-3, 8, 42),
    Spec("greedy-n", False, True, 9, 6e-3, 8, 43, held_out=6, regularization=False),
    Spec("calm-n", False, False, 26, 1.5e-3, 8, 44),
    Spec("greedy-o", False, True, 12, 5e-3, 8, 45, regularization=False),
    Spec("calm-o", False, False, 18, 3e-3, 4, 46, held_out=8, schedule="cosine"),
    Spec("greedy-q", False, True, 7, 5e-3, 16, 47, held_out=6, regularization=False),
    Spec("calm-q", False, False, 20, 2e-3, 16, 48, held_out=6),
    Spec("greedy-r", False, True, 6, 8e-3, 4, 49, held_out=8, regularization=False),
    Spec("calm-r", False, False, 16, 2.5e-3, 8, 50, schedule="cosine"),
    Spec("greedy-s", False, True, 16, 6e-3, 16, 51, held_out=4, regularization=False),
    Spec("calm-s", False, False, 22, 1e-3, 16, 52, held_out=8),
    # Long ones, in which what over-fits does so to the end: 300 to 400 steps, measured 20 to 30 times.
    Spec("long-greedy-a", True, True, 5, 4e-3, 8, 71, 8, False, epochs=150, every=5),
    Spec("long-greedy-b", True, True, 8, 4e-3, 16, 72, 6, False, epochs=150, every=5),
    Spec("long-greedy-c", True, True, 12, 6e-3, 16, 73, 0, False, epochs=120, every=4),
    Spec("long-greedy-d", True, True, 6, 5e-3, 8, 74, 8, False, epochs=150, every=5),
    Spec("long-greedy-e", True, True, 10, 3e-3, 8, 75, 6, False, epochs=100, every=4),
    Spec("long-greedy-f", True, True, 16, 8e-3, 8, 76, 0, False, epochs=100, every=4),
    Spec("long-calm-a", True, False, 16, 1e-3, 8, 77, schedule="cosine", epochs=60, every=3),
    Spec("long-calm-b", True, False, 24, 2e-3, 8, 78, epochs=60, every=3),
    Spec("long-calm-c", True, False, 20, 1.5e-3, 16, 79, 8, schedule="cosine", epochs=60, every=3),
    Spec("long-calm-d", True, False, 18, 1e-3, 4, 80, 6, epochs=60, every=3),
    # Declared when the rules stood, before the first of them was recorded; looked at once, all together.
    Spec("long-greedy-g", False, True, 6, 4e-3, 8, 81, 8, False, epochs=150, every=5),
    Spec("long-calm-g", False, False, 20, 1e-3, 8, 82, 6, epochs=60, every=3),
    Spec("long-greedy-h", False, True, 5, 5e-3, 16, 83, 6, False, epochs=150, every=5),
    Spec("long-calm-h", False, False, 16, 1.5e-3, 8, 84, epochs=60, every=3),
    Spec("long-greedy-i", False, True, 9, 4e-3, 8, 85, 8, False, epochs=100, every=4),
    Spec("long-calm-i", False, False, 22, 1e-3, 16, 86, 8, schedule="cosine", epochs=60, every=3),
    Spec("long-greedy-j", False, True, 12, 5e-3, 8, 87, 6, False, epochs=100, every=4),
    Spec("long-calm-j", False, False, 24, 1.5e-3, 4, 88, epochs=60, every=3),
    Spec("long-greedy-k", False, True, 8, 6e-3, 8, 89, 6, False, epochs=120, every=4),
    Spec("long-calm-k", False, False, 18, 2e-3, 8, 90, 8, schedule="cosine", epochs=60, every=3),
    Spec("long-greedy-l", False, True, 14, 4e-3, 16, 91, 0, False, epochs=100, every=4),
    Spec("long-calm-l", False, False, 16, 1e-3, 4, 92, 6, epochs=60, every=3),
)


def lay_out(spec: Spec, folder: Path) -> RunConfig:
    """Draw the run's pictures below ``folder`` and give its configuration."""
    pictures = concept_set(spec.pictures + spec.held_out, seed=1000 + spec.seed)
    _write(folder / "train", pictures[: spec.pictures])
    validation: dict[str, Any] = {"every_epochs": spec.every, "budget": 100.0}
    if spec.held_out:
        _write(folder / "held_out", pictures[spec.pictures :])
        validation["folder"] = folder / "held_out"
    folders: list[dict[str, Any]] = [{"path": folder / "train"}]
    if spec.regularization:
        folders.append({"path": POCKET / "demo" / "regularization", "regularization": True})
    else:
        validation["prompts"] = [
            "a red circle at the left on a white background",
            "a blue square on a sky background",
        ]
    return RunConfig.model_validate(
        {
            "name": spec.name,
            "seed": spec.seed,
            "runs_dir": folder / "runs",
            "cache_dir": folder / "cache",
            "model": pocket_model() | {"t5_length": 20},
            "dataset": {
                "folders": folders,
                "resolution": 64,
                "buckets": {"min_side": 64, "max_side": 128, "step": 16},
                "captions": {"trigger_word": TRIGGER},
            },
            "lora": {"rank": spec.rank},
            "optimizer": {"learning_rate": spec.rate},
            "schedule": {"name": spec.schedule, "warmup_steps": 5},
            "training": {"epochs": spec.epochs, "batch_size": 4, "device": "cpu", "threads": 1},
            "sampling": {"prompts": [], "width": 64, "height": 64, "steps": 8},
            "saving": {"dtype": "float32", "every_epochs": spec.every},
            "validation": validation,
        }
    )


def _write(folder: Path, pictures: list[tuple[Any, str]]) -> None:
    folder.mkdir(parents=True)
    for number, (picture, caption) in enumerate(pictures):
        picture.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(caption)
