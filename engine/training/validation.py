"""Losses with fixed noise on fixed pictures, and how far the LoRA moves the model where it should not.

A training loss is mostly the noise of its timesteps. Here pictures, noise and noise levels are the same each time
(functions of the run's seed and of each picture), so two measurements differ by the LoRA alone: 18 times quieter
than an epoch's mean on the pocket model. Nothing of it reaches the training: no global random state is touched, the
adapter's bits, modes and gradients are as found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.config import RunConfig
from engine.draws import torch_generator
from engine.events_measured import BAND_ENDS, BANDS
from engine.lora.adapter import LoraSet
from engine.memory.conditioning import Conditioning
from engine.models.family import TextEmbeds
from engine.models.modulation import Modulation
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.flow import noisy, velocity_target
from engine.training.measuring_plan import DRIFT_SIGMAS
from engine.training.prepare import Base
from engine.training.sampling import AHEAD, eval_mode

ON_CPU = 8
"""Probes that go through the model together on a processor; on a GPU as many as a micro-batch trains."""


@dataclass(frozen=True)
class Subject:
    """A model that is measured.

    Attributes:
        config: how it is trained; guidance and padding are as there.
        transformer: carries ``lora``.
        entries: what the cache holds of pictures and texts.
        conditioning: computes modulation ahead; None where the transformer does.
    """

    config: RunConfig
    base: Base
    compute: Compute
    transformer: nn.Module
    lora: LoraSet
    entries: Entries
    conditioning: Conditioning | None


@dataclass(frozen=True)
class Probe:
    """One question to the model: noisy latents (C, h, w) float32 on the host, their noise level, the text, and what
    the answer is compared with (C, h, w); ``mask`` (1, h, w) weighs the errors."""

    noised: Tensor
    sigma: float
    text: TextEmbeds
    target: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """Mean squared errors: by noise seed; by band and by picture over all seeds."""

    by_seed: tuple[float, ...] = ()
    by_band: tuple[float, ...] = ()
    by_picture: tuple[float, ...] = ()


@dataclass(frozen=True)
class Known:
    """A picture as it is measured: a name of its own for the draws, latents (C, h, w), the embedded caption, and the
    weights (1, h, w) of the errors where it has a mask."""

    name: str
    latents: Tensor
    text: TextEmbeds
    mask: Tensor | None = None


def picture_probes(picture: Known, sigmas: Sequence[float], seeds: int, seed: int) -> list[list[Probe]]:
    """For each noise seed the probes of a picture, one for each noise level."""
    probes = []
    for number in range(seeds):
        generator = torch_generator(seed, "validation", picture.name, number)
        noise = torch.randn(picture.latents.shape, generator=generator)
        levels = torch.tensor(sigmas)
        noised = noisy(picture.latents.expand(len(sigmas), -1, -1, -1), noise.expand(len(sigmas), -1, -1, -1), levels)
        target = velocity_target(picture.latents, noise)
        own = [
            Probe(one, sigma, picture.text, target, picture.mask) for one, sigma in zip(noised, sigmas, strict=True)
        ]
        probes.append(own)
    return probes


def measure_loss(subject: Subject, pictures: Sequence[Known], sigmas: Sequence[float], seeds: int, seed: int) -> Loss:
    """The model's loss on ``pictures`` as it stands; empty without pictures."""
    if not pictures:
        return Loss()
    asked = [
        (place, number, probe)
        for place, picture in enumerate(pictures)
        for number, probes in enumerate(picture_probes(picture, sigmas, seeds, seed))
        for probe in probes
    ]
    answers = predict(subject, [probe for *_, probe in asked])
    groups: list[list[list[float]]] = [[[] for _ in range(n)] for n in (seeds, len(BANDS), len(pictures))]
    by_seed, by_band, by_picture = groups
    for (place, number, probe), answer in zip(asked, answers, strict=True):
        errors = (answer - probe.target).square()
        loss = float((errors if probe.mask is None else errors * probe.mask).mean())
        by_seed[number].append(loss)
        by_band[sum(probe.sigma >= end for end in BAND_ENDS)].append(loss)
        by_picture[place].append(loss)
    return Loss(_means(by_seed), _means(by_band), _means(by_picture))


class Drift:
    """How far the LoRA moves the model on prompts without the trigger.

    The noisy latents come from the base itself: pure noise, denoised in one go without the LoRA and noised again, so
    that they are what the model meets when it draws such a prompt.

    Args:
        shape: of the latents (C, h, w).
    """

    def __init__(self, texts: Sequence[TextEmbeds], shape: tuple[int, ...], seed: int) -> None:
        self._texts = texts
        self._shape = shape
        self._seed = seed
        self._probes: list[Probe] | None = None

    def measure(self, subject: Subject) -> float | None:
        """Mean squared distance from the base's prediction, as a share of its mean square; None without prompts."""
        if not self._texts:
            return None
        if self._probes is None:
            with silenced(subject.lora):
                self._probes = self._ask_base(subject)
        answers = predict(subject, self._probes)
        moved = _mean([float((a - p.target).square().mean()) for a, p in zip(answers, self._probes, strict=True)])
        return moved / max(_mean([float(p.target.square().mean()) for p in self._probes]), 1e-12)

    def _ask_base(self, subject: Subject) -> list[Probe]:
        starts = []
        for number, text in enumerate(self._texts):
            noise = torch.randn(self._shape, generator=torch_generator(self._seed, "drift", number))
            starts.append(Probe(noise, 1.0, text, noise))
        drawn = [start.noised - answer for start, answer in zip(starts, predict(subject, starts), strict=True)]
        asked = []
        for number, (start, latents) in enumerate(zip(starts, drawn, strict=True)):
            for sigma in DRIFT_SIGMAS:
                generator = torch_generator(self._seed, "drift-noise", number, str(sigma))
                noised = (1 - sigma) * latents + sigma * torch.randn(self._shape, generator=generator)
                asked.append(Probe(noised, sigma, start.text, noised))
        return [
            Probe(probe.noised, probe.sigma, probe.text, answer)
            for probe, answer in zip(asked, predict(subject, asked), strict=True)
        ]


def update_sizes(lora: LoraSet) -> tuple[tuple[str, float], ...]:
    """Frobenius norm of what the adapters add to the weights (scale * up @ down), by kind of layer, sorted.

    ``||U D||_F^2 = sum((U^T U) * (D D^T))``: only rank by rank products are made.
    """
    squares: dict[str, float] = {}
    with torch.no_grad():
        for adapter in lora.adapters.values():
            up, down = adapter.up.double(), adapter.down.double()
            square = float(((up.T @ up) * (down @ down.T)).sum()) * adapter.scale**2
            kind = adapter.target.kind
            squares[kind] = squares.get(kind, 0.0) + square
    return tuple((kind, math.sqrt(max(square, 0.0))) for kind, square in sorted(squares.items()))


@contextmanager
def silenced(lora: LoraSet) -> Iterator[None]:
    """The model without its LoRA inside; the same bits as before afterwards."""
    kept = lora.weights.clone()
    with torch.no_grad():
        lora.weights.zero_()
    lora.refresh()
    try:
        yield
    finally:
        with torch.no_grad():
            lora.weights.copy_(kept)
        lora.refresh()


def predict(subject: Subject, probes: Sequence[Probe]) -> list[Tensor]:
    """The model's velocity for each probe, (C, h, w) float32 on the host, in the order asked."""
    device, config = subject.compute.device, subject.config
    together = ON_CPU if device.type == "cpu" else config.training.batch_size
    answers: dict[int, Tensor] = {}
    with eval_mode(subject.transformer), torch.no_grad(), subject.compute.autocast():
        for numbers, modulation in _with_modulation(subject, probes, list(_chunks(probes, together))):
            own = [probes[number] for number in numbers]
            velocity = subject.base.family.velocity(
                subject.transformer,
                torch.stack([probe.noised for probe in own]).to(device),
                torch.tensor([probe.sigma for probe in own], device=device),
                _stacked([probe.text for probe in own]).to(device),
                config.objective.guidance,
                config.model.t5_mask,
                modulation,
            )
            answers.update(zip(numbers, velocity.float().cpu(), strict=True))
    return [answers[number] for number in range(len(probes))]


def _with_modulation(
    subject: Subject, probes: Sequence[Probe], chunks: Sequence[list[int]]
) -> Iterator[tuple[list[int], Modulation | None]]:
    """Each chunk with its modulation; where that is computed ahead, the layers' weights pass once for many chunks."""
    ahead = subject.conditioning
    if ahead is None:
        yield from ((numbers, None) for numbers in chunks)
        return
    guidance = float(subject.config.objective.guidance)
    for first in range(0, len(chunks), most := max(1, AHEAD // max(map(len, chunks)))):
        group = chunks[first : first + most]
        own = [probes[number] for numbers in group for number in numbers]
        sigmas, text = torch.tensor([probe.sigma for probe in own]), _stacked([probe.text for probe in own])
        table, at = ahead.table(sigmas, text.pooled, torch.full((len(own),), guidance)), 0
        for numbers in group:
            yield numbers, table.take(at, len(numbers), ahead.device)
            at += len(numbers)


def _chunks(probes: Sequence[Probe], together: int) -> Iterator[list[int]]:
    """Numbers of probes of one size, at most ``together`` at a time."""
    sizes: dict[torch.Size, list[int]] = {}
    for number, probe in enumerate(probes):
        sizes.setdefault(probe.noised.shape, []).append(number)
    for numbers in sizes.values():
        for first in range(0, len(numbers), together):
            yield numbers[first : first + together]


def _stacked(texts: Sequence[TextEmbeds]) -> TextEmbeds:
    return TextEmbeds(*(torch.cat([getattr(text, name) for text in texts]) for name in ("pooled", "states", "mask")))


def _means(groups: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(_mean(group) if group else 0.0 for group in groups)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
