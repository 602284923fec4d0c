"""Products of wide activations with 8-bit weights, in 8 bit, forward and for the input gradient.

A weight is stored once as ``W = diag(s) Q``, with Q (O, I) in int8 or fp8 (e4m3) and one scale an output channel.
Activations are quantised per token on the fly. Forward, the channel scales stand on the result's columns; for the
input gradient they stand on the summed axis, so they are folded into the gradient before it is quantised:
``dX = quant(dY * s) Q``. One stored Q serves both directions. Products of int8 are exact in int32. On a GPU fp8
runs through torch's rowwise kernels with fast accumulation; on a CPU it is emulated in float32, for tests.

What a card can do is decided by :func:`choose`, a pure function.

Shape suffixes: N tokens, I input and O output features, K the summed axis, M columns of a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.memory.refusals import in_a_line, kernel_errors

INT8, FP8 = torch.int8, torch.float8_e4m3fn
LARGEST = {INT8: 127.0, FP8: 448.0}
"""The largest code of each 8-bit type; scales map the largest magnitude to it."""

_SMALLEST_SCALE = 1e-30  # an all-zero row gets codes of zero, not NaN
_PIECE = 2**24
"""Elements quantised at a time in eager mode, so that their float32 copy stays at 64 MB."""
_COLUMNS = 4096
"""Columns of a result whose int32 sums are held at a time; whole, those of FLUX's widest layer are 400 MB."""
_PROOF_LIMIT = 0.1
"""Relative error of a product that works, quantisation of both factors included: 1 % in int8, 4 % in e4m3."""
_ALIGNED = 16
"""Both features of an 8-bit product must be multiples of this (tensor cores read 16 bytes at a time)."""

Kind = Literal["int8", "fp8", "wide"]

Quantiser = Callable[[Tensor, "Tensor | None"], tuple[Tensor, Tensor]]
"""Rows (N, C) and what to fold into their columns, (C,) or None: int8 codes (N, C) and scales (N, 1), in one pass."""
Product = Callable[[Tensor, Tensor, Tensor, "Tensor | None", "Tensor | None", torch.dtype], Tensor]
"""Codes (N, K) with scales (N, 1), codes (K, M) of any strides with scales (M,) or None, a bias (M,) or None: their
product (N, M) in a dtype, scaled before it goes to memory."""


@dataclass
class Int8Kernels:
    """Kernels that do int8's work on a GPU; None is torch's own operations."""

    quantise: Quantiser | None = None
    product: Product | None = None


INT8_KERNELS = Int8Kernels()
"""In use by this process. Torch's operations take four passes over activations to quantise them, and one more over
int32 sums; a kernel takes one and none. Set before the first step; :func:`prove` drops what does not work."""


@dataclass(frozen=True)
class Card:
    """A compute device as far as products go: its name and, for an NVIDIA GPU, its compute capability."""

    name: str
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Choice:
    """How products with packed weights are computed, and, where they could not be as wanted, why, in words."""

    kind: Kind
    reason: str = ""


def card_of(device: torch.device | str) -> Card:
    """What this machine says of ``device``."""
    device = torch.device(device)
    if device.type != "cuda":
        return Card(device.type)
    return Card(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))


def choose(precision: str, compute: str, card: Card) -> Choice:
    """Choose the products for a base of this ``memory.precision`` under this ``memory.compute`` on this card.

    Rowwise fp8 needs compute capability 8.9 (Ada, Hopper, Blackwell), int8 needs 7.5. On data-centre Blackwell
    (10.x) torch's int8 product runs kernels of an older generation, slower than wide ones (pytorch issue 187094):
    auto leaves it there. On a processor auto is wide; ``8bit`` emulates, which is exact and slow.
    """
    if compute == "wide" or precision not in ("int8", "fp8"):
        asked = compute == "8bit"
        return Choice("wide", f"memory.compute = 8bit has no effect on a base in {precision}" if asked else "")
    kind: Kind = "int8" if precision == "int8" else "fp8"
    if card.capability is None:
        return Choice(kind, "8-bit products are emulated on a processor") if compute == "8bit" else Choice("wide")
    needed = (7, 5) if kind == "int8" else (8, 9)
    if card.capability < needed:
        return Choice("wide", _too_old(kind, card, needed))
    if kind == "int8" and card.capability[0] in (10, 11) and compute == "auto":
        return Choice(
            "wide",
            f"int8 products are slower than wide ones on {card.name} in this torch; memory.precision = fp8 is the "
            "fast choice there",
        )
    return Choice(kind)


def _too_old(kind: str, card: Card, needed: tuple[int, int]) -> str:
    capability = card.capability or (0, 0)
    has = ".".join(map(str, capability))
    int8_instead = kind == "fp8" and capability >= (7, 5)
    other = "; memory.precision = int8 would be computed in 8 bit" if int8_instead else ""
    return (
        f"{card.name} (compute capability {has}) has no {kind} products, which need {needed[0]}.{needed[1]}: weights "
        f"stay packed and are unpacked for each product{other}"
    )


def base_dtype(asked: str, card: Card) -> tuple[torch.dtype, str]:
    """The dtype to compute in for this ``model.dtype``, and what there is to say about it.

    A card before Ampere (8.0) has no bfloat16 units: auto takes float32 there; bfloat16, if asked for, is obeyed,
    emulated by torch.
    """
    if card.capability is None:
        return (torch.bfloat16 if asked == "bfloat16" else torch.float32), ""
    if card.capability >= (8, 0) or asked == "float32":
        return (torch.float32 if asked == "float32" else torch.bfloat16), ""
    has = ".".join(map(str, card.capability))
    if asked == "bfloat16":
        return torch.bfloat16, f"{card.name} ({has}) has no bfloat16 units: steps are slow; try model.dtype = float32"
    return torch.float32, f"{card.name} ({has}) has no bfloat16 units: the run computes in float32, which is slower"


def fits(out_features: int, in_features: int) -> bool:
    """Whether a linear of this size can be multiplied in 8 bit."""
    return out_features % _ALIGNED == 0 and in_features % _ALIGNED == 0


def use_kernels(choice: Choice, card: Card, quantise: Quantiser | None = None) -> str:
    """Put Triton's product, and a kernel that quantises, to int8's work on this card; says why not, where not."""
    if choice.kind != "int8" or card.capability is None:
        return ""
    if card.capability < (8, 0):  # Triton builds no int8 products for older ones
        return f"{card.name} is too old for the int8 kernel: torch's own products are used, with a pass more"
    try:
        from engine.memory.kernels8 import product
    except ImportError as err:
        return f"triton cannot be loaded ({err}): int8 products take a pass more over their results"
    INT8_KERNELS.quantise, INT8_KERNELS.product = quantise, product
    return ""


def prove(choice: Choice, device: torch.device | str) -> Choice:
    """Try the chosen products once on the device, forward and back, and fall back to what works there.

    Kernels in :data:`INT8_KERNELS` that fail are dropped; where torch's own products fail too, the choice is wide.
    """
    if choice.kind == "wide":
        return choice
    problem = _problem(choice.kind, device)
    if problem and (INT8_KERNELS.quantise or INT8_KERNELS.product):
        INT8_KERNELS.quantise = INT8_KERNELS.product = None
        said, problem = problem, _problem(choice.kind, device)
        if not problem:
            return Choice(choice.kind, f"int8 kernels are off, torch's own products are used: {said}")
    return choice if not problem else Choice("wide", f"{choice.kind} products do not work here: {problem}")


def _problem(kind: str, device: torch.device | str) -> str:
    """What goes wrong when a small product is made in 8 bit; empty if nothing does."""
    draws = torch.Generator().manual_seed(0)
    x, grad, weight = (torch.randn(shape, generator=draws) for shape in ((40, 96), (40, 64), (64, 96)))
    codes, scale = quantise_rows(weight.to(device), INT8 if kind == "int8" else FP8)
    wide = (weight.to(device).bfloat16(), x.to(device).bfloat16(), grad.to(device).bfloat16())
    bias = torch.ones(64, dtype=torch.bfloat16, device=device)
    try:
        pairs = (
            (multiply(wide[1], codes, scale[:, 0], bias), F.linear(wide[1], wide[0], bias)),
            (multiply_back(wide[2], codes, scale[:, 0]), wide[2] @ wide[0]),
        )
        errors = [float((found.float() - wanted.float()).norm() / wanted.float().norm()) for found, wanted in pairs]
    except kernel_errors() as err:
        return in_a_line(err)
    return "" if max(errors) < _PROOF_LIMIT else f"a product is off by {max(errors):.1%}"


def quantise_rows(x: Tensor, dtype: torch.dtype, fold: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes of ``x`` (or of ``x * fold``) with one scale a row, ``x = scale * codes``.

    Args:
        x: (N, C), any floating dtype.
        dtype: int8 or e4m3.
        fold: (C,) float32, multiplied into the columns first.

    Returns:
        Codes (N, C) and scales (N, 1) in float32. A row that holds NaN or infinity gets a scale that does.
    """
    if x.is_cuda and dtype == INT8 and INT8_KERNELS.quantise is not None:
        return INT8_KERNELS.quantise(x, fold)
    rows = max(1, _PIECE // max(x.shape[1], 1))
    if torch.compiler.is_compiling() or x.shape[0] <= rows:  # a compiler makes one pass of it anyway
        return _quantise(x, dtype, fold)
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    scale = torch.empty((x.shape[0], 1), dtype=torch.float32, device=x.device)
    for at in range(0, x.shape[0], rows):
        codes[at : at + rows], scale[at : at + rows] = _quantise(x[at : at + rows], dtype, fold)
    return codes, scale


def _quantise(x: Tensor, dtype: torch.dtype, fold: Tensor | None) -> tuple[Tensor, Tensor]:
    wide = x.float() if fold is None else x.float() * fold
    largest = torch.linalg.vector_norm(wide, ord=math.inf, dim=1, keepdim=True)
    scale = (largest / LARGEST[dtype]).clamp_min(_SMALLEST_SCALE)
    codes = wide / scale
    return (codes.round_() if dtype == INT8 else codes).to(dtype), scale


def multiply(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ (diag(scale) codes).T + bias`` in 8 bit: (N, I) to (N, O), in the dtype of ``x``."""
    tokens, token_scale = quantise_rows(x, codes.dtype)
    if codes.dtype == INT8:
        return _int8(tokens, token_scale, codes, scale, bias, x.dtype)
    return _fp8(tokens, token_scale, codes.t(), scale, bias, x.dtype)


def multiply_back(grad: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """``grad @ (diag(scale) codes)`` in 8 bit: (N, O) to (N, I), in the dtype of ``grad``.

    The kernels of a GPU want the second factor by columns (int8 runs at half the speed otherwise, fp8 not at all),
    so Q is copied transposed, in 8 bit, a piece at a time.
    """
    tokens, token_scale = quantise_rows(grad, codes.dtype, fold=scale)
    if codes.dtype == INT8:
        return _int8(tokens, token_scale, codes.t(), None, None, grad.dtype)
    return _fp8(tokens, token_scale, codes, None, None, grad.dtype)


def multiply_wide(x: Tensor, codes: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The product of :func:`multiply` with unpacked codes, which are exact in every wide dtype."""
    out = F.linear(x, codes.to(x.dtype))
    # Computed in float32, rounded once.
    if bias is None:
        return torch.mul(out, scale, out=out)
    return torch.addcmul(bias, out, scale, out=out)


def multiply_back_wide(grad: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """The product of :func:`multiply_back` with unpacked codes."""
    return torch.mul(grad, scale, out=torch.empty_like(grad)) @ codes.to(grad.dtype)


def _int8(
    tokens: Tensor, token_scale: Tensor, rows: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """``tokens (N, K) @ rows (M, K).T``, scaled by tokens and columns; int32 sums of a few columns at a time."""
    if tokens.is_cuda and INT8_KERNELS.product is not None:
        return INT8_KERNELS.product(tokens, token_scale, rows.t(), scale, bias, dtype)
    count = tokens.shape[0]
    if tokens.is_cuda and count <= 16:  # the kernels want more than 16 rows
        tokens = F.pad(tokens, (0, 0, 0, 32 - count))
    out = torch.empty((count, rows.shape[0]), dtype=dtype, device=tokens.device)
    for first in range(0, rows.shape[0], _COLUMNS):
        part = slice(first, first + _COLUMNS)
        sums = torch._int_mm(tokens, rows[part].contiguous().t())[:count] * token_scale
        if scale is not None:
            sums = sums * scale[part]
        out[:, part] = sums if bias is None else sums + bias[part]
    return out


def _fp8(
    tokens: Tensor,
    token_scale: Tensor,
    columns: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """``tokens (N, K) @ columns (K, M)``, scaled by tokens and columns in the product's epilogue."""
    if scale is None:
        scale = torch.ones(columns.shape[1], dtype=torch.float32, device=tokens.device)
    if not tokens.is_cuda:
        sums = tokens.float() @ columns.float() * token_scale * scale
        return (sums if bias is None else sums + bias).to(dtype)
    return _rowwise(tokens, token_scale, columns, scale, bias).to(dtype)


def _rowwise(tokens: Tensor, token_scale: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """torch's product of e4m3 with a scale a row and a column; its result is bfloat16."""
    columns = columns.t().contiguous().t()  # by columns: nothing to do forward
    epilogue = None if bias is None else bias.bfloat16()
    return torch._scaled_mm(
        tokens, columns, scale_a=token_scale, scale_b=scale[None], bias=epilogue, out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )  # fmt: skip
