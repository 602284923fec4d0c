"""Packed frozen linears: int8 and fp8 with a scale per output channel, nf4 in blocks of 64.

Each is a :class:`~engine.memory.frozen.FrozenLinear` over a few plain tensors, so that streaming, offloading and the
copy on disk need not know the precision. An 8-bit linear computes wide (codes are cast, scales go to the result) or
in 8 bit (:mod:`engine.memory.products8`); which of its two products run in 8 bit is in its :class:`Products`, one
object shared by all copies of a linear, so that a decision made once reaches copies that stream.

nf4 is bitsandbytes' quantisation: 4-bit normal-float codes, one 8-bit scale for 64 weights, those scaled once more.
Shape suffixes: N tokens, I input and O output features, n = O * I.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ConfigError
from engine.memory import products8
from engine.memory.frozen import Dense, FrozenLinear
from engine.memory.products8 import FP8, INT8, Choice

Precision = Literal["auto", "fp8", "int8", "nf4"]
_BLOCK, _NESTED_BLOCK = 64, 256
"""bitsandbytes' blocks: weights to a scale, scales to a scale of scales."""


class Watch(Protocol):
    """Looks on while a first batch passes; see :mod:`engine.memory.calibration`."""

    def saw_input(self, linear: Packed8, x: Tensor) -> None:
        """``x`` (N, I) is about to be multiplied."""
        ...

    def saw_grad(self, linear: Packed8, grad: Tensor) -> None:
        """``grad`` (N, O) is about to be multiplied."""
        ...


@dataclass
class Products:
    """Which of a linear's products run in 8 bit.

    Attributes:
        possible: whether card, setting and size allow it at all.
        forward: the product with the input.
        input_grad: the product with the output's gradient.
        watch: sees what is multiplied, while there is one.
    """

    possible: bool = False
    forward: bool = False
    input_grad: bool = False
    watch: Watch | None = None


@dataclass(frozen=True)
class Packed8:
    """``W = diag(scale) weight``: codes (O, I) in int8 or e4m3, ``scale`` (O,) float32, ``bias`` (O,) or None."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None = None
    products: Products = field(default_factory=Products, compare=False)

    @property
    def out_features(self) -> int:
        """O."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """I."""
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``, in the dtype of ``x``."""
        if self.products.watch is not None:
            self.products.watch.saw_input(self, x)
        product = products8.multiply if self.products.forward else products8.multiply_wide
        return product(x, self.weight, self.scale, self.bias)

    def input_grad(self, grad: Tensor) -> Tensor:
        """``grad @ W``, in the dtype of ``grad``."""
        if self.products.watch is not None:
            self.products.watch.saw_grad(self, grad)
        product = products8.multiply_back if self.products.input_grad else products8.multiply_back_wide
        return product(grad, self.weight, self.scale)

    def tensors(self) -> dict[str, Tensor]:
        """weight, scale, and bias where there is one."""
        return {"weight": self.weight, "scale": self.scale} | ({} if self.bias is None else {"bias": self.bias})

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same over other memory, with the same :class:`Products`."""
        return replace(self, weight=tensors["weight"], scale=tensors["scale"], bias=tensors.get("bias"))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """W (O, I)."""
        return (self.weight.float() * self.scale[:, None]).to(dtype)


class Int8(Packed8):
    """A linear in int8, symmetric, one scale an output channel."""


class Fp8(Packed8):
    """A linear in e4m3, one scale an output channel (all the same for a file that has one a tensor, or none)."""


@dataclass(frozen=True)
class Nf4:
    """A linear in double-quantised nf4; always unpacked to the dtype of what it is multiplied with.

    Attributes:
        weight: (n/2, 1) uint8, two codes a byte.
        absmax: (n/64,) uint8, codes of the blocks' scales.
        absmax_scale: (n/64/256,) float32, what those are scaled by.
        offset: () float32, their mean.
        code: (16,) float32, the values of the codes of weights.
        nested_code: (256,) float32, the values of the codes of scales.
    """

    weight: Tensor
    absmax: Tensor
    absmax_scale: Tensor
    offset: Tensor
    code: Tensor
    nested_code: Tensor
    bias: Tensor | None
    out_features: int
    in_features: int

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``."""
        return F.linear(x, self.dequantize(x.dtype), self.bias)

    def input_grad(self, grad: Tensor) -> Tensor:
        """``grad @ W``."""
        return grad @ self.dequantize(grad.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """All of them; the two tables are 1 KB."""
        names = ("weight", "absmax", "absmax_scale", "offset", "code", "nested_code", "bias")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same over other memory."""
        parts: dict[str, Any] = {"bias": None} | dict(tensors)
        return replace(self, **parts)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """W (O, I)."""
        functional = _bitsandbytes()
        nested = functional.QuantState(
            absmax=self.absmax_scale, code=self.nested_code, blocksize=_NESTED_BLOCK, dtype=torch.float32
        )
        state = functional.QuantState(
            absmax=self.absmax, shape=torch.Size((self.out_features, self.in_features)), code=self.code,
            blocksize=_BLOCK, quant_type="nf4", dtype=dtype, offset=self.offset, state2=nested,
        )  # fmt: skip
        return cast(Tensor, functional.dequantize_4bit(self.weight, state))


def require(precision: Precision) -> None:
    """Check that this installation can pack to ``precision``, before anything is loaded.

    Raises:
        ConfigError: nf4 without bitsandbytes.
    """
    if precision == "nf4":
        _bitsandbytes()


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes.functional as functional
    except (ImportError, OSError, RuntimeError) as err:
        # The last two: it is there, and its native part does not load.
        raise ConfigError(
            "nf4 needs bitsandbytes",
            f"memory.precision = nf4: {err}",
            "Install it (pip install bitsandbytes), or take memory.precision = int8, which needs nothing.",
        ) from err
    return functional


def pack(
    weight: Tensor,
    bias: Tensor | None,
    precision: Precision,
    dtype: torch.dtype,
    products: Products | None = None,
) -> FrozenLinear:
    """Pack one linear where it lies; no copy of full size in float32 is made on the way.

    Args:
        weight: (O, I), wide.
        bias: (O,) or None; converted to ``dtype``.
        precision: auto keeps ``dtype``.
        dtype: what the base computes in.
        products: which of its products run in 8 bit; none when None.

    Raises:
        ConfigError: nf4 without bitsandbytes.
    """
    bias = None if bias is None else bias.to(dtype)
    if precision == "auto":
        return Dense(weight.to(dtype), bias)
    if precision == "nf4":
        return _pack_nf4(weight, bias)
    codes, scale = pack_rows(weight, INT8 if precision == "int8" else FP8)
    return packed8(codes, scale, bias, products)


def packed8(codes: Tensor, scale: Tensor, bias: Tensor | None, products: Products | None = None) -> Packed8:
    """A linear over codes and scales as they are."""
    kind = Int8 if codes.dtype == INT8 else Fp8
    return kind(codes, scale, bias, products or Products())


def products_for(shape: tuple[int, int], choice: Choice, outliers: bool = False) -> Products:
    """What a linear (O, I) begins with, before anything is measured.

    Args:
        shape: (O, I).
        choice: see :func:`engine.memory.products8.choose`.
        outliers: whether its input is likely to have some far larger than the rest; it is multiplied wide then.
    """
    possible = choice.kind != "wide" and products8.fits(*shape)
    return Products(possible, forward=possible and not outliers, input_grad=possible)


def pack_rows(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes (O, I) and scales (O,) of a wide weight (O, I), one symmetric scale a row."""
    codes, scale = products8.quantise_rows(weight, dtype)
    return codes, scale[:, 0].contiguous()


def _pack_nf4(weight: Tensor, bias: Tensor | None) -> Nf4:
    functional = _bitsandbytes()
    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=_BLOCK, compress_statistics=True, quant_type="nf4"
    )
    return Nf4(
        packed, state.absmax, state.state2.absmax, state.offset, state.code.float(), state.state2.code.float(), bias,
        *weight.shape,
    )  # fmt: skip


def blank(
    shape: tuple[int, int], bias: bool, precision: Precision, dtype: torch.dtype, products: Products | None = None
) -> FrozenLinear:
    """What :func:`pack` would return for a weight of this shape, without memory (on the meta device)."""
    (rows, columns), count = shape, shape[0] * shape[1]

    def empty(dtype: torch.dtype, *size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    bias_of = empty(dtype, rows) if bias else None
    if precision == "auto":
        return Dense(empty(dtype, *shape), bias_of)
    if precision != "nf4":
        codes = empty(INT8 if precision == "int8" else FP8, *shape)
        return packed8(codes, empty(torch.float32, rows), bias_of, products)
    blocks = -(-count // _BLOCK)
    wide = torch.float32
    return Nf4(
        empty(torch.uint8, -(-count // 2), 1), empty(torch.uint8, blocks), empty(wide, -(-blocks // _NESTED_BLOCK)),
        empty(wide), empty(wide, 16), empty(wide, 256), bias_of, rows, columns,
    )  # fmt: skip
