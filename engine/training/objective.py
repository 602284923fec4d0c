"""One micro-batch from cached tensors to a loss with a graph behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.batches import MicroBatch
from engine.config import RunConfig
from engine.draws import draw_seed, torch_generator
from engine.models.family import Family, TextEmbeds
from engine.training.device import Compute
from engine.training.entries import Entries
from engine.training.flow import draw_sigmas, flow_loss, noisy, velocity_target


@dataclass(frozen=True)
class Inputs:
    """A micro-batch on the device, every draw made.

    Attributes:
        latents, noise: (B, C, h, w) float32.
        sigmas: (B,) float32.
        weights: (B,) weights of the samples' losses.
    """

    latents: Tensor
    noise: Tensor
    sigmas: Tensor
    text: TextEmbeds
    weights: Tensor


@dataclass(frozen=True)
class Objective:
    """Everything that turns a micro-batch into a loss; holds no state of its own."""

    config: RunConfig
    family: Family
    transformer: nn.Module
    entries: Entries
    compute: Compute

    def inputs(self, micro: MicroBatch, step: int, number: int) -> Inputs:
        """Read and draw for micro-batch ``number`` of optimizer step ``step``.

        All draws (posterior, noise, sigma, adapter dropout) depend on the seed and this place alone.
        """
        seed, device = self.config.seed, self.compute.device
        latents = self.entries.batch_latents(micro, step, number)
        noise = torch.stack([_noise(latents[0], seed, step, number, item.slot) for item in micro.items])
        tokens = latents.shape[2] * latents.shape[3] // self.family.patch**2
        generator = torch_generator(seed, "sigma", step, number)
        sigmas = draw_sigmas(self.config.objective, len(micro.items), tokens, generator)
        text = self.entries.batch_text([item.caption for item in micro.items])
        weights = torch.tensor([item.weight for item in micro.items])
        lora = self.config.lora
        if lora.dropout or lora.rank_dropout or lora.module_dropout:
            # Dropout draws from torch's global generator, on the GPU too; seeding it here makes that stateless.
            torch.manual_seed(draw_seed(seed, "dropout", step, number))
        return Inputs(latents.to(device), noise.to(device), sigmas.to(device), text.to(device), weights.to(device))

    def loss(self, inputs: Inputs) -> Tensor:
        """Mean loss of a micro-batch: scalar, float32, with its graph."""
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
            )
        target = velocity_target(inputs.latents, inputs.noise)
        return flow_loss(predicted, target, inputs.sigmas, objective, inputs.weights)


def _noise(like: Tensor, seed: int, step: int, number: int, slot: int) -> Tensor:
    return torch.randn(like.shape, generator=torch_generator(seed, "noise", step, number, slot))
