"""Frozen linears behind one small interface, and the weights of a block made of them.

A block function asks a linear for ``forward`` and ``input_grad`` and never learns its precision; streaming asks for
its ``tensors`` and puts others of the same shapes in their place. :class:`Dense` is the plain one; the packed ones
are in :mod:`engine.memory.precision`.

Shape suffixes: N tokens of all samples, I input and O output features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F


class FrozenLinear(Protocol):
    """A linear whose weights never change; everything takes and gives two-dimensional tensors."""

    @property
    def out_features(self) -> int:
        """O."""
        ...

    @property
    def in_features(self) -> int:
        """I."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``: (N, I) to (N, O), in the dtype of ``x``."""
        ...

    def input_grad(self, grad: Tensor) -> Tensor:
        """``grad @ W``: (N, O) to (N, I), in the dtype of ``grad``."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor it is made of, by a name of its own."""
        ...

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same linear over other tensors of the same shapes and dtypes."""
        ...


@dataclass(frozen=True)
class Dense:
    """A linear in the precision it computes in: ``weight`` (O, I), ``bias`` (O,) or None."""

    weight: Tensor
    bias: Tensor | None = None

    @property
    def out_features(self) -> int:
        """O."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """I."""
        return self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """``x @ W.T + b``."""
        return F.linear(x, self.weight, self.bias)

    def input_grad(self, grad: Tensor) -> Tensor:
        """``grad @ W``."""
        return grad @ self.weight

    def tensors(self) -> dict[str, Tensor]:
        """weight, and bias where there is one."""
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """The same over other memory."""
        return replace(self, weight=tensors["weight"], bias=tensors.get("bias"))


@dataclass(frozen=True)
class StreamWeights:
    """One stream (image or text) of a double block; the two scales are those of queries' and keys' RMS norms."""

    qkv: FrozenLinear
    proj: FrozenLinear
    mlp_in: FrozenLinear
    mlp_out: FrozenLinear
    query_scale: Tensor
    key_scale: Tensor


@dataclass(frozen=True)
class DoubleWeights:
    """A double block's weights without its modulation."""

    img: StreamWeights
    txt: StreamWeights


@dataclass(frozen=True)
class SingleWeights:
    """A single block's weights without its modulation."""

    linear1: FrozenLinear
    linear2: FrozenLinear
    query_scale: Tensor
    key_scale: Tensor


BlockWeights = DoubleWeights | SingleWeights


class WeightSource(Protocol):
    """Where the blocks' weights come from; blocks are numbered through, double ones first."""

    def use(self, block: int) -> AbstractContextManager[BlockWeights]:
        """The weights of a block, on the compute device and valid inside the context only.

        Work that was launched inside may still run on the device afterwards: the source keeps the memory until then.
        """
        ...


class Resident:
    """All blocks' weights on the compute device, always."""

    def __init__(self, blocks: Sequence[BlockWeights]) -> None:
        self.blocks = list(blocks)

    @contextmanager
    def use(self, block: int) -> Iterator[BlockWeights]:
        """The weights of a block."""
        yield self.blocks[block]


def block_tensors(weights: BlockWeights | StreamWeights) -> dict[str, Tensor]:
    """Every tensor of a block by a dotted name (``img.qkv.weight``), in a fixed order."""
    found: dict[str, Tensor] = {}
    parts: dict[str, Any] = vars(weights)
    for name, part in parts.items():
        if isinstance(part, torch.Tensor):
            found[name] = part
        else:
            inner = block_tensors(part) if isinstance(part, StreamWeights) else part.tensors()
            found |= {f"{name}.{key}": tensor for key, tensor in inner.items()}
    return found


_Weights = TypeVar("_Weights", DoubleWeights, SingleWeights, StreamWeights)


def with_block_tensors(weights: _Weights, tensors: Mapping[str, Tensor]) -> _Weights:
    """The same block over other tensors, named as :func:`block_tensors` names them."""
    parts: dict[str, Any] = {}
    for name, part in vars(weights).items():
        if isinstance(part, torch.Tensor):
            parts[name] = tensors[name]
            continue
        inner = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        parts[name] = with_block_tensors(part, inner) if isinstance(part, StreamWeights) else part.with_tensors(inner)
    return replace(weights, **parts)
