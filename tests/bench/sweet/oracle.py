"""What an epoch is really worth, by measures that the run itself does not have.

Fixed before any rule of the advisor was tuned:

- *gain*: loss on 24 fresh pictures of the concept, 6 noise levels, 4 noise draws each, as a share of the most that
  any epoch of the run gained over the base (0: as the base; may fall below);
- *concept*: share of 50 fresh prompts with the trigger where the detector sees the concept **and** it stands where
  and on which ground it was asked for;
- *obeys*: share of 48 ordinary prompts, seen and unseen by the base, of which all four properties are right and no
  concept shows, as a share of what the base reaches.

The score is their mean. The best epoch is the one with the highest score after smoothing over three scored epochs;
epochs within one standard error of that (of the 98 prompts) are as good, and the earliest of them is *the* best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.models.family import FLUX1
from engine.models.pocket.check import read, shows_concept
from engine.models.pocket.concept import concept_caption, concept_set
from engine.models.pocket.evaluate import Pocket, draw, prompt_scenes
from engine.models.pocket.scenes import BACKGROUNDS, POSITIONS, caption
from engine.training.flow import noisy, velocity_target

SIGMAS = (0.08, 0.25, 0.42, 0.58, 0.75, 0.92)
NOISES, PICTURES, STEPS, GUIDANCE = 4, 24, 8, 2.0


@dataclass(frozen=True)
class Worth:
    """One epoch: loss on fresh pictures, shares of prompts."""

    loss: float
    concept: float
    obeys: float


class Oracle:
    """Scores LoRAs of one run; the pictures are its own."""

    def __init__(self, pocket: Pocket, seed: int) -> None:
        self.pocket = pocket
        pictures = concept_set(PICTURES, seed=90_000 + seed)
        with torch.no_grad():
            pixels = torch.stack([_pixels(picture) for picture, _ in pictures])
            self._latents = pocket.autoencoder.encode(pixels)[0]
            self._text = pocket.text.encode([text for _, text in pictures])
        self._seed = seed
        self._places = [(p, b) for p in POSITIONS for b in BACKGROUNDS]
        self._scenes = [scene for half in prompt_scenes(48, seed=500 + seed) for scene in half]

    def worth(self) -> Worth:
        """What the pocket model with its present LoRA is worth."""
        return Worth(self._loss(self.pocket.transformer), self._concept(), self._obeys())

    @torch.no_grad()
    def _loss(self, transformer: nn.Module) -> float:
        generator = torch.Generator().manual_seed(self._seed)
        losses = []
        for sigma in SIGMAS:
            levels = torch.full((PICTURES,), sigma)
            for _ in range(NOISES):
                noise = torch.randn(self._latents.shape, generator=generator)
                noised = noisy(self._latents, noise, levels)
                answer = FLUX1.velocity(transformer, noised, levels, self._text, 1.0, masked=False)
                losses.append(float((answer - velocity_target(self._latents, noise)).square().mean()))
        return math.fsum(losses) / len(losses)

    def _concept(self) -> float:
        right = 0
        for seed in (self._seed, self._seed + 1):
            drawn = draw(self.pocket, [concept_caption(*place) for place in self._places], seed, STEPS, GUIDANCE)
            for picture, (position, background) in zip(drawn, self._places, strict=True):
                reading = read(picture)
                right += shows_concept(picture) and (reading.position, reading.background) == (position, background)
        return right / (2 * len(self._places))

    def _obeys(self) -> float:
        drawn = draw(self.pocket, [caption(scene) for scene in self._scenes], self._seed + 2, STEPS, GUIDANCE)
        right = 0
        for picture, scene in zip(drawn, self._scenes, strict=True):
            reading = read(picture)
            wanted = (scene.background, scene.colour, scene.position, scene.shape)
            same = (reading.background, reading.colour, reading.position, reading.shape) == wanted
            right += same and not shows_concept(picture)
        return right / len(self._scenes)


def scores(base: Worth, worths: Sequence[Worth]) -> list[float]:
    """The score of each epoch, smoothed over three."""
    most = max(base.loss - worth.loss for worth in worths)
    raw = [
        ((base.loss - w.loss) / most if most > 0 else 0.0) / 3
        + w.concept / 3
        + min(1.0, w.obeys / max(base.obeys, 1e-9)) / 3
        for w in worths
    ]
    return [math.fsum(raw[max(0, i - 1) : i + 2]) / len(raw[max(0, i - 1) : i + 2]) for i in range(len(raw))]


def best_of(base: Worth, worths: Sequence[Worth]) -> int:
    """Which of ``worths`` (from 0) is the earliest that is as good as the best."""
    found = scores(base, worths)
    at = max(range(len(found)), key=lambda number: found[number])
    best = worths[at]
    variance = best.concept * (1 - best.concept) / 50 + best.obeys * (1 - best.obeys) / 48
    error = math.sqrt(max(variance, 1e-4)) / 3 / math.sqrt(3)  # a third of the score, mean of three epochs
    return next(number for number, score in enumerate(found) if score >= found[at] - error)


def _pixels(picture: object) -> Tensor:
    import numpy as np

    values = torch.from_numpy(np.asarray(picture, dtype=np.float32).copy())
    return values.permute(2, 0, 1) / 127.5 - 1
