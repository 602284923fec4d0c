"""What every contender trains: one shape of transformer with random weights, one adapter, one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.config import LoraConfig
from engine.lora.layouts import PLACES
from engine.lora.targets import Target, select_targets
from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids

Matrices = dict[str, tuple[Tensor, Tensor]]
"""Down (r, in) and up (out, r) by the adapted linear's name in the released layout."""

FLUX_DEV = FluxParams()
SMALL = replace(FLUX_DEV, hidden_size=768, num_heads=6, depth=2, depth_single_blocks=4)
"""Small enough for two processor cores, of the same kind; adapters weigh four times as much in it as in FLUX.1."""


@dataclass(frozen=True)
class Case:
    """One configuration of the step.

    Attributes:
        side: picture's side in pixels; its tokens are ``(side / 16)^2``.
        checkpointing: whether blocks are recomputed in the backward pass.
        dtype: of base weights and products; adapters and optimizer states are float32.
    """

    params: FluxParams = SMALL
    side: int = 512
    text: int = 128
    batch: int = 1
    rank: int = 16
    checkpointing: bool = True
    dtype: torch.dtype = torch.bfloat16
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        """Tokens of the joint sequence."""
        return (self.side // 16) ** 2 + self.text

    def targets(self) -> list[Target]:
        """Attention and MLP linears of all blocks, on the fused projections."""
        dim, hidden, p = self.params.hidden_size, self.params.mlp_hidden, self.params
        sizes = {"qkv": (dim, 3 * dim), "proj": (dim, dim), "0": (dim, hidden), "2": (hidden, dim)}
        sizes |= {"linear1": (dim, 3 * dim + hidden), "linear2": (dim + hidden, dim)}
        depths = {"double_blocks": p.depth, "single_blocks": p.depth_single_blocks}
        shapes = {
            f"{blocks}.{index}.{rest}": (place.kind, *sizes[rest.rpartition(".")[2]])
            for blocks, places in PLACES.items()
            for index in range(depths[blocks])
            for rest, place in places.items()
            if rest.rpartition(".")[2] in sizes
        }
        return select_targets(shapes, LoraConfig(rank=self.rank))


@dataclass(frozen=True)
class Batch:
    """One batch on the device: packed latents and noise (B, S, C), sigmas (B,), text as encoded."""

    latents: Tensor
    noise: Tensor
    sigmas: Tensor
    states: Tensor
    pooled: Tensor
    img_ids: Tensor
    txt_ids: Tensor
    guidance: Tensor

    @property
    def noisy(self) -> Tensor:
        """``(1 - sigma) * latents + sigma * noise``."""
        level = self.sigmas[:, None, None]
        return (1 - level) * self.latents + level * self.noise

    @property
    def target(self) -> Tensor:
        """The velocity to be predicted."""
        return self.noise - self.latents


class Contender(Protocol):
    """A trainer's model, adapter, optimizer and statements of its step."""

    def loss(self, batch: Batch) -> Tensor:
        """The loss with its graph, as the trainer computes it."""
        ...

    def gradients(self) -> Matrices:
        """The adapter's gradients after a backward pass, on the fused projections."""
        ...

    def step(self, batch: Batch) -> float:
        """A whole optimizer step; returns the loss as the trainer reads it."""
        ...


Build = Callable[[Case, FluxTransformer, Matrices], Contender]


def random_model(case: Case) -> FluxTransformer:
    """The transformer with random weights: matrices and biases normal, std 0.02; norms one."""
    with torch.device("meta"):
        model = FluxTransformer(case.params)
    model = model.to(case.dtype).to_empty(device=case.device)
    generator = torch.Generator(case.device).manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("scale"):
                value.fill_(1.0)
            else:
                value.normal_(0.0, 0.02, generator=generator)
    return model.requires_grad_(False).train()


def random_adapter(case: Case) -> Matrices:
    """Both matrices random, so that every gradient is tried."""
    generator = torch.Generator(case.device).manual_seed(2)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device=case.device)
    return {
        target.name: (
            draw(target.rank, target.in_features) / target.in_features**0.5,
            draw(target.out_features, target.rank) * 0.02,
        )
        for target in case.targets()
    }


def random_batch(case: Case, seed: int = 3) -> Batch:
    """Latents, noise and text from a normal distribution, never zeros."""
    generator = torch.Generator(case.device).manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device=case.device)
    p, grid = case.params, case.side // 8
    image = (case.side // 16) ** 2
    return Batch(
        latents=draw(case.batch, image, p.in_channels),
        noise=draw(case.batch, image, p.in_channels),
        sigmas=torch.linspace(0.3, 0.8, case.batch, device=case.device),
        states=draw(case.batch, case.text, p.context_in_dim).to(case.dtype),
        pooled=draw(case.batch, p.vec_in_dim),
        img_ids=image_ids(case.batch, grid, grid, case.device),
        txt_ids=text_ids(case.batch, case.text, case.device),
        guidance=torch.full((case.batch,), 1.0, device=case.device),
    )


def autocast(case: Case) -> Any:
    """Mixed precision as trainers with float32 adapters use it; none in float32."""
    return torch.autocast(torch.device(case.device).type, torch.bfloat16, enabled=case.dtype != torch.float32)


def adamw(parameters: list[Any]) -> torch.optim.Optimizer:
    """The optimizer that all contenders get."""
    return torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
