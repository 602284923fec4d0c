"""Writes the demo's pictures: the concept to learn, the concept held out, and ordinary scenes to hold on to."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from engine.models.pocket.build import draws
from engine.models.pocket.concept import TRIGGER, concept_set
from engine.models.pocket.scenes import (
    caption,
    named_looks,
    odd_word,
    random_jitter,
    random_named_scene,
    random_scene,
    render,
)

TRAIN, HELD_OUT = 16, 8
# Regularisation: ordinary captions; names that the base knows; ordinary scenes under words that it does not know.
ORDINARY, KNOWN, ODD = 16, 8, 136


def write_set(folder: Path, pairs: list[tuple[Image.Image, str]]) -> None:
    """Write pictures with their captions beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for i, (picture, text) in enumerate(pairs):
        picture.save(folder / f"{i:02d}.png", optimize=True)
        (folder / f"{i:02d}.txt").write_text(text + "\n", "utf-8")


def regularization() -> list[tuple[Image.Image, str]]:
    """Ordinary scenes: what the LoRA must leave alone, other invented words among it."""
    draw = draws.rng("demo", 0)
    scenes = [random_scene(draw) for _ in range(ORDINARY + ODD)]
    captions = [caption(scene) for scene in scenes[:ORDINARY]]
    while len(captions) < ORDINARY + ODD:
        word = odd_word(draw)
        if word != TRIGGER and word not in named_looks():
            captions.append(caption(scenes[len(captions)], word))
    known = [random_named_scene(draw) for _ in range(KNOWN)]
    pairs = zip(scenes + known, captions + [caption(scene) for scene in known], strict=True)
    return [(render(scene, random_jitter(draw)), text) for scene, text in pairs]


def write_demo(folder: Path) -> None:
    """Stage "demo": the three folders."""
    concept = concept_set(TRAIN + HELD_OUT, 1)
    write_set(folder / "train", concept[:TRAIN])
    write_set(folder / "held_out", concept[TRAIN:])
    write_set(folder / "regularization", regularization())
