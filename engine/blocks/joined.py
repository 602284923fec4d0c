"""A frozen linear with its adapter, forward and backward in one place.

``y = W x + b + s * up(mask * down(x))``. The adapter's narrow product h is made first and scaled while it is r wide;
its wide product is added to the base's in place, so the adapter never moves a full-width tensor of its own. The
backward gives the gradient of x and of both matrices; the scaled h is what it needs of the forward.

Shape suffixes: N tokens of all samples, I input and O output features, r rank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.lora.adapter import Adapter
from engine.memory.frozen import FrozenLinear


class Lora(NamedTuple):
    """An adapter as one pass uses it.

    Attributes:
        down: (r, I), in the dtype of the activations.
        up: (O, r).
        scale: alpha / r times the strength.
        drop: (N, r), what dropout multiplies h with; None without dropout.
    """

    down: Tensor
    up: Tensor
    scale: float
    drop: Tensor | None = None


class LoraGrad(NamedTuple):
    """Gradients of an adapter's matrices, in the dtype of the activations."""

    down: Tensor
    up: Tensor


def joined(x: Tensor, linear: FrozenLinear, lora: Lora | None) -> tuple[Tensor, Tensor | None]:
    """The linear of ``x`` (N, I) and the adapter's scaled h (N, r); no adapter, no h."""
    if lora is None:
        return linear.forward(x), None
    hidden = narrow(x, lora)
    return joined_again(x, linear, lora, hidden), hidden


def narrow(x: Tensor, lora: Lora) -> Tensor:
    """An adapter's h (N, r) of ``x`` (N, I): scaled, with dropout."""
    return _scaled(x @ lora.down.mT, lora)


def narrow_backward(grad: Tensor, x: Tensor, lora: Lora, hidden: Tensor) -> tuple[Tensor, LoraGrad]:
    """Gradients of ``down(x)`` (N, r) and of both matrices, from that of the result (N, O)."""
    dnarrow, up = narrow_up_backward(grad, lora, hidden)
    return dnarrow, LoraGrad(dnarrow.mT @ x, up)


def narrow_up_backward(grad: Tensor, lora: Lora, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``down(x)`` (N, r) and of ``up`` (O, r): all that needs no x."""
    return _scaled(grad @ lora.up, lora), grad.mT @ hidden


def joined_again(x: Tensor, linear: FrozenLinear, lora: Lora | None, hidden: Tensor | None) -> Tensor:
    """The same result from a kept h."""
    out = linear.forward(x)
    if lora is None or hidden is None:
        return out
    return out.addmm_(hidden, lora.up.mT)


def joined_backward(
    grad: Tensor, x: Tensor, linear: FrozenLinear, lora: Lora | None, hidden: Tensor | None
) -> tuple[Tensor, LoraGrad | None]:
    """Gradients of ``x`` and of the adapter, from that of the result (N, O)."""
    if lora is None or hidden is None:
        return linear.input_grad(grad), None
    dnarrow, grads = narrow_backward(grad, x, lora, hidden)
    return linear.input_grad(grad).addmm_(dnarrow, lora.down), grads


def adapter_backward(grad: Tensor, x: Tensor, lora: Lora | None, hidden: Tensor | None) -> LoraGrad | None:
    """The gradient of the adapter alone, where nothing before it wants one."""
    return None if lora is None or hidden is None else narrow_backward(grad, x, lora, hidden)[1]


def _scaled(hidden: Tensor, lora: Lora) -> Tensor:
    if lora.scale != 1.0:
        hidden = hidden.mul_(lora.scale)
    return hidden if lora.drop is None else hidden.mul_(lora.drop)


def drop_factors(
    adapter: Adapter, batch: int, length: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """What dropout of single values and of whole ranks per sample multiplies h with: (B*L, r), or None.

    Both keep the expectation, as in kohya sd-scripts (``networks/lora.py``).
    """
    rank, factors = adapter.target.rank, None
    if adapter.dropout:
        kept = torch.rand(batch, length, rank, device=device) >= adapter.dropout
        factors = kept.to(dtype) / (1.0 - adapter.dropout)
    if adapter.rank_dropout:
        kept = torch.rand(batch, 1, rank, device=device) >= adapter.rank_dropout
        ranks = kept.to(dtype) / (1.0 - adapter.rank_dropout)
        factors = ranks.expand(batch, length, rank) if factors is None else factors * ranks
    return None if factors is None else factors.reshape(batch * length, rank)


def lora_of(
    adapter: Adapter | None,
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
    training: bool,
    rows: tuple[int, int] | None = None,
) -> Lora | None:
    """The adapter for one pass over (B, L, I); None when there is none, it is off or module dropout skips it.

    ``rows``: where these samples begin among those that dropout is drawn for, and how many those are.
    """
    if adapter is None or adapter.strength.value == 0.0:
        return None
    drop = None
    if training:
        if adapter.skipped():
            return None
        first, whole = rows or (0, batch)
        drop = drop_factors(adapter, whole, length, dtype, device)
        if drop is not None and batch < whole:
            drop = drop[first * length : (first + batch) * length].clone()
    return Lora(*adapter.compute(dtype), adapter.scale * adapter.strength.value, drop)
