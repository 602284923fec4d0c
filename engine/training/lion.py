"""Lion (arXiv 2302.06675): ten lines that have to run where bitsandbytes does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.training.adafactor import settle


class Lion(Optimizer):
    """``p -= lr * (sign(b1 m + (1 - b1) g) + wd p)``, then ``m = b2 m + (1 - b2) g``.

    Attributes:
        found_inf: a flag on the device; where it is set (not 0), a step changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, params: list[dict[str, Any]], lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter; closures are not taken."""
        held = None if self.found_inf is None else self.found_inf.bool()
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum, grad = state["exp_avg"], parameter.grad
                update = torch.lerp(grad, momentum, beta1).sign_()
                changed = torch.add(parameter * (1 - lr * group["weight_decay"]), update, alpha=-lr)
                settle(parameter, changed, held)
                settle(momentum, torch.lerp(grad, momentum, beta2, out=update), held)
