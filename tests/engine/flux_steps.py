"""A small FLUX step for tests of the fast path: a random model, adapters that are not zero, one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.config import LoraConfig
from engine.lora.adapter import LoraSet, describe_linears, inject
from engine.lora.targets import select_targets
from engine.models.family import FLUX1
from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids

SMALL = FluxParams(
    in_channels=16,
    vec_in_dim=24,
    context_in_dim=32,
    hidden_size=64,
    num_heads=4,
    depth=2,
    depth_single_blocks=3,
    axes_dim=(4, 6, 6),
    out_channels=16,
)


@dataclass
class Step:
    """A plain model with its adapters, the arguments of one forward, and the gradient of its result."""

    model: FluxTransformer
    lora: LoraSet
    arguments: dict[str, Any]
    grad: Tensor

    def run(self, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
        """Velocity and the adapters' gradients, in the order of ``lora.parameters()``."""
        self.lora.zero_grad()
        out = model(**self.arguments)
        out.backward(self.grad)
        return out.detach(), [matrix.grad.clone() for matrix in self.lora.parameters()]


def make_step(
    params: FluxParams = SMALL,
    batch: int = 1,
    text: int = 7,
    size: tuple[int, int] = (8, 6),
    masked: bool = False,
    dtype: torch.dtype = torch.float32,
    std: float = 0.1,
    **lora: Any,
) -> Step:
    """A step with random weights, LoRA settings as in a config (rank 4 unless said)."""
    torch.manual_seed(7)
    model = FluxTransformer(params)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=std)
    config = LoraConfig(**{"rank": 4, "alpha": 2.0} | lora)
    targets = select_targets(describe_linears(model, FLUX1.lora_modules(model)), config)
    adapters = inject(model.to(dtype), targets, config, seed=3)
    with torch.no_grad():
        for up in adapters.up_parameters():
            up.normal_(std=std)
    adapters.refresh()
    height, width = size
    tokens = height * width // 4
    lengths = torch.tensor([(text * (n + 2)) // (batch + 2) for n in range(batch)])
    arguments = {
        "img": torch.randn(batch, tokens, params.in_channels),
        "img_ids": image_ids(batch, height, width),
        "txt": torch.randn(batch, text, params.context_in_dim),
        "txt_ids": text_ids(batch, text),
        "timesteps": torch.rand(batch),
        "y": torch.randn(batch, params.vec_in_dim),
        "guidance": torch.full((batch,), 3.5) if params.guidance_embed else None,
        "txt_mask": torch.arange(text)[None] < lengths[:, None] if masked else None,
    }
    model.train()
    return Step(model, adapters, arguments, torch.randn(batch, tokens, params.out_channels, dtype=dtype))


def error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the wanted norm."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm().clamp_min(1e-30))


def worst(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest :func:`error` of a sequence."""
    return max(error(one, other) for one, other in zip(found, wanted, strict=True))
