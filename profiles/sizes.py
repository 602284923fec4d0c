"""FLUX's parts in numbers: how many values each holds, from the sizes that a model file states. Torch-free.

D is the transformer's width, M its MLP's, H its heads, V its vectors of modulation, r an adapter's rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from engine.models.text_layout import ClipSizes, T5Sizes, clip_layout, t5_layout

LORA_ALIGNMENT = 256
"""Values; where a matrix of flat adapters may begin (:data:`engine.lora.flat.ALIGNMENT`)."""


@dataclass(frozen=True)
class FluxSize:
    """A FLUX transformer; the defaults are FLUX.1-dev's."""

    hidden_size: int = 3072
    num_heads: int = 24
    mlp_hidden: int = 12288
    depth: int = 19
    depth_single_blocks: int = 38
    in_channels: int = 64
    out_channels: int = 64
    context_in_dim: int = 4096
    vec_in_dim: int = 768
    guidance_embed: bool = True
    qkv_bias: bool = True

    @property
    def blocks(self) -> int:
        """Of both kinds."""
        return self.depth + self.depth_single_blocks

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def vectors(self) -> int:
        """V: shift, scale and gate of every block, and the last layer's two."""
        return 12 * self.depth + 3 * self.depth_single_blocks + 2

    @property
    def outer(self) -> int:
        """Values of the layers before and after the blocks: on the card, wide, always."""
        dim = self.hidden_size
        inputs = sum(size * dim + dim for size in (self.in_channels, self.context_in_dim))
        lifted = [256, self.vec_in_dim] + ([256] if self.guidance_embed else [])
        return inputs + sum(size * dim + dim + dim**2 + dim for size in lifted) + (dim + 1) * self.out_channels

    @property
    def modulation(self) -> int:
        """Values of the modulation layers: 27 % of FLUX.1."""
        return self.vectors * (self.hidden_size**2 + self.hidden_size)

    @property
    def largest_modulation(self) -> int:
        """Values of the largest of them, a double block's six vectors."""
        return 6 * (self.hidden_size**2 + self.hidden_size)

    @cached_property
    def linears(self) -> tuple[tuple[int, int, int, bool], ...]:
        """Linears that an adapter may sit on: inputs, outputs, how many alike, and whether of modulation."""
        dim, mlp, doubles, singles = self.hidden_size, self.mlp_hidden, 2 * self.depth, self.depth_single_blocks
        found = (
            (dim, 3 * dim, doubles, False),
            (dim, dim, doubles, False),
            (dim, mlp, doubles, False),
            (mlp, dim, doubles, False),
            (dim, 3 * dim + mlp, singles, False),
            (dim + mlp, dim, singles, False),
            (dim, 6 * dim, doubles, True),
            (dim, 3 * dim, singles, True),
        )
        return tuple(each for each in found if each[2])

    def adapted(self, targets: str) -> tuple[tuple[int, int, int], ...]:
        """Inputs, outputs and number of the linears that ``lora.targets`` takes."""
        return tuple(each[:3] for each in self.linears if targets == "all" or not each[3])


@lru_cache(maxsize=64)
def _size(*values: Any) -> FluxSize:
    return FluxSize(*values)


def size_of(params: Mapping[str, Any]) -> FluxSize:
    """From :attr:`engine.models.detect.ModelInfo.params`; the same object for the same sizes."""
    width = int(params["hidden_size"])
    return _size(
        width,
        int(params["num_heads"]),
        int(width * params["mlp_ratio"]),
        int(params["depth"]),
        int(params["depth_single_blocks"]),
        int(params["in_channels"]),
        int(params["out_channels"]),
        int(params["context_in_dim"]),
        int(params["vec_in_dim"]),
        bool(params["guidance_embed"]),
        bool(params["qkv_bias"]),
    )


@lru_cache(maxsize=256)
def lora_values(size: FluxSize, rank: int, targets: str) -> int:
    """Trained values, padding between flat matrices with them."""
    total = 0
    for inputs, outputs, count in size.adapted(targets):
        total += count * sum(-(-rank * side // LORA_ALIGNMENT) * LORA_ALIGNMENT for side in (inputs, outputs))
    return total


def _count(layout: Mapping[str, tuple[int, ...]], prefix: str = "") -> int:
    total = 0
    for name, shape in layout.items():
        if name.startswith(prefix):
            values = 1
            for side in shape:
                values *= side
            total += values
    return total


T5 = T5Sizes()
"""T5-XXL's encoder, which every FLUX.1 comes with."""

T5_VALUES = _count(t5_layout(T5))
T5_LAYER = _count(t5_layout(T5), "encoder.block.1.")
T5_TABLE = T5.vocab_size * T5.d_model
CLIP_VALUES = _count(clip_layout(ClipSizes()))
