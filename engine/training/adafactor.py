"""Adafactor (arXiv 1804.04235) over stacks of equal matrices: some hundred matrices in a few operations.

Ours because a library's goes from matrix to matrix, a thousand launches and more a step, and because its state has to
stand still where a step is held back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

DECAY = -0.8
"""Exponent of the second moment's decay, ``1 - step ** DECAY``; the paper's."""

TINY = 1e-30
"""Added to squared gradients."""


class Adafactor(Optimizer):
    """Adafactor with a given rate, neither relative steps nor scaling by a matrix's size; updates clipped to RMS 1.

    Args:
        params: groups of stacks (matrices, rows, columns); each matrix of a stack is its own.

    Attributes:
        found_inf: a flag on the device; where it is set (not 0), a step changes nothing but counters.
    """

    found_inf: Tensor | None = None

    def __init__(self, params: list[dict[str, Any]], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every stack; closures are not taken."""
        held = None if self.found_inf is None else self.found_inf.bool()
        for group in self.param_groups:
            lr = group["lr"]
            for stack in group["params"]:
                grad, state = stack.grad, self.state[stack]
                if not state:
                    state["step"] = 0
                    state["row"] = grad.new_zeros(grad.shape[:-1])
                    state["column"] = grad.new_zeros((grad.shape[0], grad.shape[2]))
                state["step"] += 1
                weight = state["step"] ** DECAY
                square = grad.square().add_(TINY)
                row = torch.lerp(state["row"], square.mean(-1), weight)
                column = torch.lerp(state["column"], square.mean(-2), weight)
                across = (row / row.mean(-1, keepdim=True)).rsqrt()
                update = torch.mul(across[..., None], column.rsqrt()[:, None, :], out=square).mul_(grad)
                rms = torch.linalg.vector_norm(update, dim=(-2, -1), keepdim=True) / (grad[0].numel() ** 0.5)
                update.div_(rms.clamp_min_(1.0))
                changed = torch.add(stack * (1 - lr * group["weight_decay"]), update, alpha=-lr)
                for old, new in ((state["row"], row), (state["column"], column), (stack, changed)):
                    settle(old, new, held)


def settle(old: Tensor, new: Tensor, held: Tensor | None) -> None:
    """Write ``new`` over ``old`` unless the flag ``held`` is set; decided on the device."""
    if held is None:
        old.copy_(new)
    else:
        torch.where(held, old, new, out=old)
