"""One micro-batch from cached tensors to a loss with a graph behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.batches import MicroBatch
from engine.blocks.transformer import LeanFlux
from engine.config import RunConfig
from engine.draws import draw_seed, torch_generator
from engine.models.family import Family, TextEmbeds
from engine.models.modulation import Modulation
from engine.models.transfer import to_device
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.flow import flow_loss, noisy, velocity_target
from engine.training.modulations import Modulations, micro_sigmas


@dataclass(frozen=True)
class Inputs:
    """A micro-batch on the device, every draw made.

    Attributes:
        latents, noise: (B, C, h, w) float32.
        sigmas: (B,) float32.
        weights: (B,) weights of the samples' losses.
        modulation: computed ahead; None lets the transformer compute it.
        dropout: seed of the adapters' dropout; None where there is none.
        loss_mask: (B, 1, h, w) weights of the errors; None where all count alike.
        rows: where a part begins in its micro-batch, and how many samples that has; None for a whole one.
    """

    latents: Tensor
    noise: Tensor
    sigmas: Tensor
    text: TextEmbeds
    weights: Tensor
    modulation: Modulation | None = None
    dropout: int | None = None
    loss_mask: Tensor | None = None
    rows: tuple[int, int] | None = None

    @property
    def share(self) -> float:
        """Part of the micro-batch's samples that is here."""
        return len(self.sigmas) / self.rows[1] if self.rows else 1.0

    def parts(self, size: int) -> Iterator[Inputs]:
        """The micro-batch in parts of at most ``size`` samples, every draw as it is; itself where it is no larger,
        and where ``size`` is 0."""
        count = len(self.sigmas)
        if not 0 < size < count:
            yield self
            return
        for first in range(0, count, size):
            yield self._part(slice(first, first + size), (first, count))

    def _part(self, part: slice, rows: tuple[int, int]) -> Inputs:
        text, mod = self.text, self.modulation
        return replace(
            self,
            latents=self.latents[part],
            noise=self.noise[part],
            sigmas=self.sigmas[part],
            text=TextEmbeds(text.pooled[part], text.states[part], text.mask[part]),
            weights=self.weights[part],
            modulation=None if mod is None else Modulation(mod.rows[part], mod.vec[part]),
            loss_mask=None if self.loss_mask is None else self.loss_mask[part],
            rows=rows,
        )

    def tokens(self, patch: int) -> int:
        """Tokens of all samples, text and image; ``patch`` is the side of a token in latents."""
        batch, _, height, width = self.latents.shape
        return batch * (height * width // patch**2 + self.text.states.shape[1])


@dataclass(frozen=True)
class Objective:
    """Everything that turns a micro-batch into a loss; holds no state of its own.

    Attributes:
        modulations: gives what was computed ahead; None without the modulation cache.
    """

    config: RunConfig
    family: Family
    transformer: nn.Module
    entries: Entries
    compute: Compute
    modulations: Modulations | None = None

    def inputs(self, micro: MicroBatch, step: int, number: int) -> Inputs:
        """Read and draw for micro-batch ``number`` of optimizer step ``step``.

        All draws (posterior, noise, sigma, adapter dropout) depend on the seed and this place alone.
        """
        seed, device = self.config.seed, self.compute.device
        latents = self.entries.batch_latents(micro, step, number)
        noise = torch.stack([_noise(latents[0], seed, step, number, item.slot) for item in micro.items])
        sigmas = micro_sigmas(self.config, self.family, micro, step, number)
        modulation = self.modulations.of(micro, step, number, sigmas) if self.modulations else None
        text = self.entries.batch_text([item.caption for item in micro.items])
        weights = torch.tensor([item.weight for item in micro.items])
        lora = self.config.lora
        drops = lora.dropout or lora.rank_dropout or lora.module_dropout
        dropout = draw_seed(seed, "dropout", step, number) if drops else None
        latents, noise, sigmas, weights = (to_device(part, device) for part in (latents, noise, sigmas, weights))
        mask = self.entries.batch_masks(micro)
        mask = None if mask is None else to_device(mask, device)
        return Inputs(latents, noise, sigmas, text.to(device), weights, modulation, dropout, mask)

    def loss(self, inputs: Inputs) -> Tensor:
        """Mean loss of a micro-batch, or of a part of one: scalar, float32, with its graph."""
        if inputs.dropout is not None:
            # Dropout draws from torch's global generator, on the GPU too; seeding it here makes that stateless.
            torch.manual_seed(inputs.dropout)
            if isinstance(self.transformer, LeanFlux):
                # A part draws for its whole micro-batch and takes its own: what is dropped depends on no splitting.
                self.transformer.rows = inputs.rows
        noised = noisy(inputs.latents, inputs.noise, inputs.sigmas)
        objective = self.config.objective
        with self.compute.autocast():
            predicted = self.family.velocity(
                self.transformer,
                noised,
                inputs.sigmas,
                inputs.text,
                objective.guidance,
                self.config.model.t5_mask,
                inputs.modulation,
            )
        target = velocity_target(inputs.latents, inputs.noise)
        return flow_loss(predicted, target, inputs.sigmas, objective, inputs.weights, inputs.loss_mask)


def _noise(like: Tensor, seed: int, step: int, number: int, slot: int) -> Tensor:
    return torch.randn(like.shape, generator=torch_generator(seed, "noise", step, number, slot))
