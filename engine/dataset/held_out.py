"""Pictures set aside: measured, never trained on.

Which ones depends on the pictures' bytes alone, so a resumed run, another seed and another machine set aside the
same. Near-duplicates stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from engine.config_measuring import ValidationConfig
from engine.dataset.decoder import Decoder
from engine.dataset.likeness import alike, look_of
from engine.dataset.scan import Sample

FEWEST = 12
"""With fewer pictures each is worth more as a teacher than as a judge."""

SHARE, LEAST, MOST = 5, 3, 8
"""auto sets a fifth aside, at least 3 and at most 8. Two judged wrongly in recorded runs (docs/sweet-spot.md); more
than eight judge no better than they cost."""

_LOOK_SIDE = 64


def wanted(config: ValidationConfig, pictures: int) -> int:
    """How many of ``pictures`` are to be set aside."""
    if config.folder is not None or (config.every_epochs == 0 and not config.every_steps):
        return 0
    if config.held_out != "auto":
        return min(config.held_out, max(pictures - 1, 0))
    return 0 if pictures < FEWEST else max(LEAST, min(MOST, round(pictures / SHARE)))


def set_aside(
    samples: Sequence[Sample], config: ValidationConfig, decoder: Decoder
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split ``samples`` into those to train on and those held out; regularization pictures are all trained on.

    Raises:
        DatasetError: a picture cannot be decoded.
    """
    concept = [sample for sample in samples if not sample.regularization]
    count = wanted(config, len(concept))
    if not count:
        return tuple(samples), ()
    looks = [look_of(decoder.thumbnail(sample.path, _LOOK_SIDE)) for sample in concept]
    chosen = choose([sample.content_hash for sample in concept], alike(looks), count)
    held = {concept[number].index for number in chosen}
    training = tuple(sample for sample in samples if sample.index not in held)
    return training, tuple(sample for sample in concept if sample.index in held)


def choose(hashes: Sequence[str], groups: Sequence[Sequence[int]], count: int) -> set[int]:
    """At most ``count`` pictures, in whole groups, in an order that their contents give.

    Where one group is left after that, it is trained on: so fewer are chosen rather than none left.
    """

    def order(group: Sequence[int]) -> str:
        return hashlib.sha256(min(hashes[number] for number in group).encode()).hexdigest()

    chosen: set[int] = set()
    left = sorted(groups, key=order)
    for group in left[: max(len(left) - 1, 0)]:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    return chosen
