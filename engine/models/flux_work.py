"""What a LoRA step on FLUX must compute, in formulas; torch-free. The floor that a measured step is held against.

    double block, per stream : qkv 3 D^2, proj D^2, mlp 4 D^2 + 4 D^2 = 12 D^2 per token of that stream
    single block             : linear1 7 D^2 (qkv and mlp in), linear2 5 D^2 = 12 D^2 per token
    attention                : 4 L^2 D forward, 2.5 times that backward (flash attention forms the scores again)
    backward of a frozen base: the input's gradient alone, the forward products once more
    lean recompute           : all but the last linear of each block, whose output backward never reads:
                               4/12 of a double block, 5/12 of a single one
    lean, attention kept     : no attention in the recompute

One multiply and add is 2 FLOP. Adapters and modulation layers are no part of it: what they cost shows as distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LAST_OF_DOUBLE, LAST_OF_SINGLE = 4 / 12, 5 / 12

RECOMPUTE = {"none": (0.0, 0.0), "attention": (1.0, 0.0), "full": (1.0, 1.0), "offload": (1.0, 1.0)}
"""Share of a block's linears (but the last) and of its attention that is done again, by what is kept."""


@dataclass(frozen=True)
class FluxWork:
    """FLOPs of a FLUX transformer, its MLPs four times as wide as its blocks; the defaults are FLUX.1's.

    Attributes:
        width: D.
        outer: inputs and outputs of the image's first and last linear together.
        context: width of the text states.
    """

    width: int = 3072
    depth: int = 19
    depth_single: int = 38
    outer: int = 128
    context: int = 4096

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> FluxWork:
        """From the sizes that a model file states (:attr:`engine.models.detect.ModelInfo.params`)."""
        return cls(
            width=int(params["hidden_size"]),
            depth=int(params["depth"]),
            depth_single=int(params["depth_single_blocks"]),
            outer=int(params["in_channels"]) + int(params["out_channels"]),
            context=int(params["context_in_dim"]),
        )

    def forward(self, image_tokens: int, text_tokens: int, batch: int = 1) -> tuple[float, float]:
        """Linears, the first and last with them, and attention of one forward pass."""
        length, blocks = image_tokens + text_tokens, self.depth + self.depth_single
        linear = 2.0 * length * 12 * self.width**2 * blocks
        ends = 2.0 * self.width * (image_tokens * self.outer + text_tokens * self.context)
        attention = 4.0 * length**2 * self.width * blocks
        return (linear + ends) * batch, attention * batch

    def step(self, image_tokens: int, text_tokens: int, batch: int = 1, kept: str = "full") -> tuple[float, float]:
        """Linears and attention of forward, recompute and input gradients.

        Args:
            kept: for the backward pass, as ``training.gradient_checkpointing`` has it.
        """
        linear, attention = self.forward(image_tokens, text_tokens, batch)
        block = 2.0 * (image_tokens + text_tokens) * batch * 12 * self.width**2
        lean = block * (self.depth * (1 - LAST_OF_DOUBLE) + self.depth_single * (1 - LAST_OF_SINGLE))
        again, attention_again = RECOMPUTE[kept]
        return 2 * linear + again * lean, (1 + attention_again + 2.5) * attention
