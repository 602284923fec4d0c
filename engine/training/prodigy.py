"""Prodigy (arXiv 2306.06101) whose estimate of the rate stays on the device.

Ours because the authors' reads two numbers of each parameter back to the host in every step, and because its state
has to stand still where a step is held back. Their options for diffusion models are built in: bias correction, and
the safeguard that leaves warm-up out of the estimate.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.training.adafactor import settle

FIRST_ESTIMATE = 1e-6
"""The estimate to begin with; the authors' default. It only grows."""


class Prodigy(Optimizer):
    """AdamW with the rate ``lr * d``, where d is estimated from how far the weights have gone along the gradients.

    Args:
        params: one group; the estimate is one for all.
        d_coef: factor on the estimate.

    Attributes:
        found_inf: a flag on the device; where it is set (not 0), a step changes nothing but a counter.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        d_coef: float,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "d_coef": d_coef, "k": 0}
        )
        for group in self.param_groups:
            device = group["params"][0].device
            group["d"] = torch.tensor(FIRST_ESTIMATE, dtype=torch.float64, device=device)
            group["d_numerator"] = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter; closures are not taken. A gradient of zero everywhere changes no weight."""
        held = None if self.found_inf is None else self.found_inf.bool()
        (group,) = self.param_groups
        device, (beta1, beta2) = group["params"][0].device, group["betas"]
        step = group["k"] + 1
        d = group["d"].to(device)
        rate = d * (group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step))
        along, size = torch.zeros_like(d), torch.zeros_like(d)
        beta3 = math.sqrt(beta2)
        kept = {"exp_avg": beta1, "exp_avg_sq": beta2, "s": beta3}
        taken = {"exp_avg": d * (1 - beta1), "exp_avg_sq": d * d * (1 - beta2), "s": d * d / FIRST_ESTIMATE}
        taken = {key: weight.float() for key, weight in taken.items()}
        for parameter in group["params"]:
            moved, summed = self._average(parameter, kept, taken, held)
            along, size = along + moved, size + summed
        numerator = group["d_numerator"].to(device) * beta3 + along * rate * (d / FIRST_ESTIMATE)
        grown = torch.maximum(d, group["d_coef"] * numerator / size)
        nothing = size == 0
        rests = nothing if held is None else nothing | held
        larger = torch.where(rests, d, grown)
        self._move(group, rate, larger, rests)
        group["d_numerator"] = torch.where(rests, group["d_numerator"].to(device), numerator)
        group["d"] = larger
        group["k"] = step

    def _average(
        self, parameter: Tensor, kept: dict[str, float], taken: dict[str, Tensor], held: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Bring the averages up to date; returns how far the weights went along the gradient, and the sum's size."""
        grad, state = parameter.grad, self.state[parameter]
        assert grad is not None
        if not state:
            state["s"] = torch.zeros_like(parameter)
            # Up matrices begin at zero, which needs no copy; a look from the host, in the first step alone.
            state["p0"] = parameter.clone() if parameter.any() else parameter.new_zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        moved = torch.dot(grad, state["p0"] - parameter).double()
        for key, weight in taken.items():
            value = grad.square() if key == "exp_avg_sq" else grad
            settle(state[key], (state[key] * kept[key]).addcmul_(value, weight), held)
        return moved, state["s"].abs().sum(dtype=torch.float64)

    def _move(self, group: dict[str, Any], rate: Tensor, d: Tensor, rests: Tensor) -> None:
        tiny, shrink, back = (
            scalar.float() for scalar in (d * group["eps"], 1 - rate * group["weight_decay"], -rate)
        )
        for parameter in group["params"]:
            state = self.state[parameter]
            update = state["exp_avg"] / state["exp_avg_sq"].sqrt().add_(tiny)
            settle(parameter, (parameter * shrink).addcmul_(update, back), rests)
