"""How many steps a run will have: counted from the pictures exactly as the trainer orders them.

Each bucket fills its own batches, so a few odd pictures make batches of their own; class pictures are drawn up to the
number of the others. Only which class pictures an epoch draws is left open here: with several buckets among them the
count is an estimate, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from engine.config import RunConfig
from engine.dataset.buckets import place

if TYPE_CHECKING:
    from engine.dataset.scan import Sample

Bucket = tuple[int, int]


@dataclass(frozen=True)
class Steps:
    """A run in numbers; ``shown`` are the pictures an epoch shows, repeats counted."""

    pictures: int
    class_pictures: int
    shown: int
    class_shown: int
    batch: int
    accumulation: int
    buckets: int
    per_epoch: int
    epochs: int
    total: int
    exact: bool

    def text(self) -> str:
        """The calculation in words."""
        repeats, rest = divmod(self.shown, self.pictures) if self.pictures else (1, 0)
        words = f"{self.pictures} pictures"
        if rest:
            words += f", shown {self.shown} times"
        elif repeats != 1:
            words += f" x {repeats} repeats"
        if self.class_shown:
            words = f"({words} + {self.class_shown} of the class)"
        words += f" x {self.epochs} epochs"
        if self.batch > 1:
            words += f" / batch {self.batch}"
        if self.accumulation > 1:
            words += f" / {self.accumulation}"
        about = "" if self.exact else "about "
        return f"{words} = {about}{self.total} steps, {about}{self.per_epoch} an epoch"


def count_steps(samples: Sequence[Sample], config: RunConfig) -> Steps:
    """The steps that ``config`` makes of ``samples``.

    Raises:
        ConfigError: the bucket settings allow no bucket.
        DatasetError: a picture is too small for any bucket.
    """
    concept = [sample for sample in samples if not sample.regularization]
    others = [sample for sample in samples if sample.regularization]
    return steps_of(_by_bucket(concept, config), _by_bucket(others, config), len(concept), len(others), config)


def steps_of(
    concept: Counter[Bucket], others: Counter[Bucket], pictures: int, class_pictures: int, config: RunConfig
) -> Steps:
    """The steps for so many pictures of each bucket, repeats counted."""
    shown, available = concept.total(), others.total()
    exact = True
    if shown and available:
        rounds, left = divmod(shown, available)
        drawn = Counter({bucket: count * rounds for bucket, count in others.items()})
        for bucket, count in others.items():
            drawn[bucket] += round(left * count / available)
        exact = not left or len(others) == 1
        others = drawn
    training = config.training
    micros = sum(ceil(count / training.batch_size) for count in (concept + others).values())
    per_epoch = ceil(micros / training.accumulation)
    epochs = training.epochs or (ceil(training.steps / per_epoch) if per_epoch else 0)
    total = per_epoch * epochs
    if training.steps:
        total = min(total, training.steps)
    return Steps(
        pictures, class_pictures, shown, others.total(), training.batch_size, training.accumulation,
        len(concept + others), per_epoch, epochs, total, exact,
    )  # fmt: skip


def _by_bucket(samples: Sequence[Sample], config: RunConfig) -> Counter[Bucket]:
    """How often an epoch shows a picture of each bucket."""
    counts: Counter[Bucket] = Counter()
    for sample in samples:
        placed = place(sample.width, sample.height, config.dataset.resolution, config.dataset.buckets)
        counts[placed.bucket_w, placed.bucket_h] += sample.repeats
    return counts
