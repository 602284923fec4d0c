"""The end of an MLP, backward: the last linear with its adapter and the gelu before it, in both kinds of block.

The last linear's product is never made again, and what gelu gave is wanted for the adapter's gradient alone: it is
formed in the same pass as gelu's own gradient, after the product that gives that.

Shape suffixes: B samples, L tokens, N = B*L, I input and O output features of the linear, M width of the MLP, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.blocks.joined import Lora, LoraGrad, narrow_up_backward
from engine.blocks.pieces import Pieces
from engine.memory.frozen import FrozenLinear


def mlp_end_backward(
    dy: Tensor,
    linear: FrozenLinear,
    lora: Lora | None,
    hidden: Tensor | None,
    before: Tensor | None,
    wide: Tensor,
    active: Tensor | None,
    dwide: Tensor,
    pieces: Pieces,
) -> tuple[Tensor, LoraGrad | None]:
    """Back from the last linear's result to its input and to the MLP before gelu.

    Args:
        dy: gradient of the result (N, O).
        linear, lora, hidden: the linear, its adapter and the adapter's h (N, r).
        before: what else the linear reads, left of the MLP (N, I - M), or None.
        wide: the MLP before gelu (B, L, M), row-strided.
        active: the MLP after gelu (B, L, M), row-strided; None forms it again where the adapter needs it.
        dwide: where the gradient of ``wide`` goes; may be ``wide``.
        pieces: the elementwise pieces.

    Returns:
        Gradient of the linear's input (N, I) and of the adapter.
    """
    dinput = linear.input_grad(dy)
    if lora is None or hidden is None:
        pieces.gelu_backward(_mlp_of(dinput, wide), wide, dwide)
        return dinput, None
    dnarrow, up = narrow_up_backward(dy, lora, hidden)
    dinput.addmm_(dnarrow, lora.down)
    dactive = _mlp_of(dinput, wide)
    if active is not None:
        pieces.gelu_backward(dactive, wide, dwide)
    else:
        active = torch.empty_like(wide, memory_format=torch.contiguous_format)
        if pieces.gelu_both is not None:
            pieces.gelu_both(dactive, wide, active, dwide)
        else:
            pieces.gelu(wide, active)
            pieces.gelu_backward(dactive, wide, dwide)
    down = dnarrow.mT @ active.flatten(0, 1)
    if before is not None:
        # The two parts of the input never lie side by side again.
        down = torch.cat([dnarrow.mT @ before, down], dim=1)
    return dinput, LoraGrad(down, up)


def _mlp_of(dinput: Tensor, wide: Tensor) -> Tensor:
    """The MLP's share (B, L, M) of the gradient of the linear's input (N, I)."""
    return dinput.view(*wide.shape[:2], -1)[..., -wide.shape[-1] :]
