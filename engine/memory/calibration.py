"""Decides, linear by linear, which 8-bit products are accurate enough, from what a first batch multiplies.

The error that is measured is that of quantising activations (or gradients): the same packed weight, multiplied in 8
bit and wide. Weights' own error is the same both ways. A linear whose relative error is above the limit keeps the
product wide; the usual ones are those after a GELU. The decisions are plain values, to be kept with a run: one that
goes on must compute as it did before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.memory import products8
from engine.memory.frozen import BlockWeights, StreamWeights
from engine.memory.precision import Packed8

LIMITS = {products8.INT8: 0.03, products8.FP8: 0.04}
"""Largest relative error of a product. Normally distributed activations have 0.7 % in int8 and 2.6 % in e4m3."""
_ROWS = 512
"""Rows looked at in each product, evenly spaced."""

Decisions = dict[str, tuple[bool, bool]]
"""By linear: whether its forward product and its input gradient run in 8 bit."""


@dataclass
class Seen:
    """The largest relative errors of a linear's two products while it was watched; None for one never used."""

    forward: float | None = None
    input_grad: float | None = None


@dataclass
class _Watch:
    inputs: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)

    def saw_input(self, linear: Packed8, x: Tensor) -> None:
        self.inputs.append(_forward_error(linear, x))

    def saw_grad(self, linear: Packed8, grad: Tensor) -> None:
        self.grads.append(_grad_error(linear, grad))

    def seen(self) -> Seen:
        return Seen(_largest(self.inputs), _largest(self.grads))


def measure(linear: Packed8, x: Tensor) -> float:
    """Relative error (Frobenius norms) of the 8-bit product with ``x`` (N, I) against the wide one."""
    return float(_forward_error(linear, x))


def measure_grad(linear: Packed8, grad: Tensor) -> float:
    """Relative error of the 8-bit input gradient of ``grad`` (N, O) against the wide one."""
    return float(_grad_error(linear, grad))


def packed_linears(blocks: Sequence[BlockWeights]) -> dict[str, Packed8]:
    """The linears of these blocks that can multiply in 8 bit, as ``<block>.<field>`` (``0.img.qkv``).

    Any copy of a block will do, wherever it lies: all of them share what is decided.
    """
    found: dict[str, Packed8] = {}
    for block, weights in enumerate(blocks):
        parts = dict(vars(weights))
        streams = {name: part for name, part in parts.items() if isinstance(part, StreamWeights)}
        for name, stream in streams.items():
            parts |= {f"{name}.{inner}": part for inner, part in vars(stream).items()}
        found |= {
            f"{block}.{name}": part
            for name, part in parts.items()
            if isinstance(part, Packed8) and part.products.possible
        }
    return found


def calibrate(
    linears: Mapping[str, Packed8],
    first_batch: Callable[[], object],
    limits: Mapping[torch.dtype, float] = LIMITS,
) -> dict[str, Seen]:
    """Let a first batch pass, computed wide, and decide every linear's products by what it multiplied.

    Args:
        linears: from :func:`packed_linears`.
        first_batch: runs forward, and backward if gradients are to be judged, in eager mode. It should be the same
            batch whenever the same run is set up.
        limits: largest relative error by the weights' dtype. A product that was not used keeps its default.

    Returns:
        The errors, by linear.
    """
    before = decisions(linears)
    watches = {name: _Watch() for name in linears}
    try:
        for name, linear in linears.items():
            linear.products.forward = linear.products.input_grad = False
            linear.products.watch = watches[name]
        first_batch()
    finally:
        for linear in linears.values():
            linear.products.watch = None
        decide(linears, before)
    seen = {name: watch.seen() for name, watch in watches.items()}
    for name, linear in linears.items():
        limit, products = limits[linear.weight.dtype], linear.products
        # A NaN is not below any limit: such a product stays wide.
        products.forward = products.forward if (error := seen[name].forward) is None else error <= limit
        products.input_grad = products.input_grad if (error := seen[name].input_grad) is None else error <= limit
    return seen


def decisions(linears: Mapping[str, Packed8]) -> Decisions:
    """What is decided now."""
    return {name: (linear.products.forward, linear.products.input_grad) for name, linear in linears.items()}


def decide(linears: Mapping[str, Packed8], decided: Mapping[str, tuple[bool, bool] | Sequence[bool]]) -> None:
    """Put earlier decisions in force; linears they do not name keep theirs."""
    for name, linear in linears.items():
        if name in decided:
            linear.products.forward, linear.products.input_grad = map(bool, decided[name])


def in_words(linears: Mapping[str, Packed8], seen: Mapping[str, Seen]) -> str:
    """One sentence for the log: how many products run in 8 bit, and the worst of those kept wide."""
    total, fast = 2 * len(linears), sum(sum(pair) for pair in decisions(linears).values())
    wide = [
        (error, name)
        for name, linear in linears.items()
        for error, runs in (
            (seen[name].forward, linear.products.forward),
            (seen[name].input_grad, linear.products.input_grad),
        )
        if not runs and error is not None
    ]
    text = f"{fast} of {total} products of blocks run in 8 bit"
    return text if not wide else f"{text}; the worst kept wide: {max(wide)[1]}, relative error {max(wide)[0]:.1%}"


def _forward_error(linear: Packed8, x: Tensor) -> Tensor:
    x = _some(x)
    return _relative(
        products8.multiply(x, linear.weight, linear.scale, None),
        products8.multiply_wide(x, linear.weight, linear.scale, None),
    )


def _grad_error(linear: Packed8, grad: Tensor) -> Tensor:
    grad = _some(grad)
    return _relative(
        products8.multiply_back(grad, linear.weight, linear.scale),
        products8.multiply_back_wide(grad, linear.weight, linear.scale),
    )


def _some(rows: Tensor) -> Tensor:
    return rows.detach()[:: max(1, rows.shape[0] // _ROWS)]


def _relative(found: Tensor, wanted: Tensor) -> Tensor:
    wanted = wanted.float()
    # Where there is nothing to multiply there is no error.
    return (found.float() - wanted).norm() / wanted.norm().clamp_min(torch.finfo(torch.float32).tiny)


def _largest(errors: Sequence[Tensor]) -> float | None:
    return float(torch.stack(list(errors)).amax()) if errors else None
