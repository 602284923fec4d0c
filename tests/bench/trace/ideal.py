"""What a step must compute and hold, in formulas: FLOPs by :mod:`engine.models.flux_work`, and bytes.

Adapters are no part of the ideal: counted over ideal says what they cost too.
"""

from __future__ import annotations

from engine.models.flux_work import FluxWork
from tests.bench.trace.contenders import Case


def forward_flops(case: Case) -> tuple[float, float]:
    """Linears and attention of one forward pass, the first and last linears with them; modulation is looked up."""
    return FluxWork.of(vars(case.params)).forward(case.image_tokens, case.text, case.batch)


def step_flops(case: Case) -> float:
    """Forward, recompute and input gradients, without adapters."""
    return sum(FluxWork.of(vars(case.params)).step(case.image_tokens, case.text, case.batch, case.checkpointing))


def adapter_parameters(case: Case) -> int:
    """Trained values with adapters on the attention and MLP linears of all blocks, q, k and v fused."""
    p = case.params
    width, hidden = p.hidden_size, p.mlp_hidden
    stream = (width + 3 * width) + (width + width) + 2 * (width + hidden)
    single = (width + 3 * width + hidden) + (width + hidden + width)
    return case.rank * (p.depth * 2 * stream + p.depth_single_blocks * single)


def input_bytes(case: Case) -> int:
    """A block's input in bf16, one X of the tables."""
    return case.tokens * case.params.hidden_size * 2


def block_parameters(case: Case) -> tuple[int, int]:
    """Token-wise parameters of a double and of a single block, biases and norms with them, modulation without."""
    p = case.params
    width, hidden = p.hidden_size, p.mlp_hidden
    head = width // p.num_heads
    stream = 4 * width**2 + 2 * width * hidden + (3 + 1) * width + hidden + width + 2 * head
    single = width * (3 * width + hidden) + (width + hidden) * width + 3 * width + hidden + width + 2 * head
    return 2 * stream, single


def outer_parameters(case: Case) -> int:
    """Embedders and the output layer with its modulation: what stays on the card in bf16, always."""
    p = case.params
    width = p.hidden_size
    embedders = [p.in_channels, p.context_in_dim]
    total = sum(size * width + width for size in embedders)
    lifted = [256, p.vec_in_dim] + ([256] if p.guidance_embed else [])
    total += sum(size * width + width + width**2 + width for size in lifted)
    return total + width * p.out_channels + p.out_channels


def modulation_parameters(case: Case) -> int:
    """The layers that only ever see one vector a sample."""
    p = case.params
    vectors = 12 * p.depth + 3 * p.depth_single_blocks + 2
    return vectors * (p.hidden_size**2 + p.hidden_size)
