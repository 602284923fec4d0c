"""What each fused kernel reads and writes, as plain data: the traffic of a step can be added up without a GPU.

A kernel reads each operand once from memory and writes each result once; vectors that all tokens of a sample share
(shift, scale, gate, a norm's weight, the rotary table's rows that queries and keys share) are read once. The launches
in :mod:`engine.blocks.kernels_launch` take from here which arguments an operator writes, so both say the same.

Shape suffixes: B samples, L tokens, D width, M width of the MLP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from engine.blocks.pieces import Pieces


@dataclass(frozen=True)
class Access:
    """The arguments of one piece by name, in order, and which of them it writes; results are written besides."""

    arguments: tuple[str, ...]
    writes: tuple[str, ...] = ()


ACCESS: Mapping[str, Access] = {
    "norm_modulate": Access(("x", "shift", "scale")),
    "quantise_rows": Access(("x", "fold")),
    "norm_modulate_backward": Access(("dy", "x", "scale", "mean", "rstd", "residual", "out"), ("out",)),
    "rotate_heads": Access(("qkv", "query_scale", "key_scale", "rotary", "q", "k", "v"), ("q", "k", "v")),
    "rotate_heads_backward": Access(("dq", "dk", "dv", "qkv", "query_scale", "key_scale", "rotary", "out"), ("out",)),
    "gelu": Access(("m", "out"), ("out",)),
    "gelu_backward": Access(("dy", "m", "out"), ("out",)),
    "gelu_both": Access(("dy", "m", "active", "out"), ("active", "out")),
    "gate_residual": Access(("x", "gate", "y", "out"), ("out",)),
    "gate_backward": Access(("dout", "gate")),
}
"""Every kernel by the name of its piece; an operator of the library ``lorakiln`` has the same name."""


@dataclass(frozen=True)
class Moved:
    """Bytes through memory and launches of one call, or of many."""

    read: int = 0
    written: int = 0
    launches: int = 0

    def __add__(self, other: Moved) -> Moved:
        """Both together."""
        return Moved(self.read + other.read, self.written + other.written, self.launches + other.launches)

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written


def moved(piece: str, arguments: Sequence[Any], results: Sequence[Tensor] = ()) -> Moved:
    """What one call of ``piece`` moves, from its arguments' and results' shapes; tensors may be fake."""
    access = ACCESS[piece]
    read = written = 0
    for name, tensor in zip(access.arguments, arguments, strict=True):
        if tensor is None:
            continue
        if name in access.writes:
            written += size(tensor)
        else:
            read += _read(piece, name, tensor, arguments)
    return Moved(read, written + sum(size(tensor) for tensor in results), 1)


def _read(piece: str, name: str, tensor: Tensor, arguments: Sequence[Any]) -> int:
    if name != "qkv":
        return size(tensor)
    # Values are neither read by the backward nor, where attention reads them in place, by the forward.
    values_too = piece == "rotate_heads" and arguments[-1] is not None
    return size(tensor) if values_too else size(tensor) * 2 // 3


def size(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


class Tally:
    """Adds up what the pieces of one table move, by piece."""

    def __init__(self) -> None:
        self.by_piece: dict[str, Moved] = {}

    @property
    def total(self) -> Moved:
        """All pieces together."""
        return sum(self.by_piece.values(), Moved())

    def over(self, pieces: Pieces) -> Pieces:
        """The same table, each call of which is also counted as its fused kernel's."""
        names = [name for name, piece in vars(pieces).items() if callable(piece)]
        counted = {name: self._counted(name, getattr(pieces, name)) for name in names}
        return replace(pieces, **counted)

    def _counted(self, name: str, piece: Any) -> Any:
        def run(*arguments: Any) -> Any:
            found = piece(*arguments)
            results = found if isinstance(found, tuple) else () if found is None else (found,)
            self.by_piece[name] = self.by_piece.get(name, Moved()) + moved(name, arguments, results)
            return found

        return run
