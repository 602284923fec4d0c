"""What every block of one pass shares, and what a block's functions take and give.

Shape suffixes: B samples, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from engine.blocks.attention import Attention
from engine.blocks.joined import LoraGrad
from engine.blocks.pieces import Pieces

Keep = Literal["none", "attention", "full"]
"""What a block forms again in its backward: nothing; all but attention; all. Never a product that nobody reads."""


@dataclass(frozen=True)
class BlockSetup:
    """What a pass's blocks have in common.

    Attributes:
        heads: H.
        text: tokens of the text, which comes first.
        attention: the kernel.
        pieces: the elementwise pieces.
        keep: what a forward keeps for its backward.
    """

    heads: int
    text: int
    attention: Attention
    pieces: Pieces
    keep: Keep


class BlockGrads(NamedTuple):
    """What a block's backward gives.

    Attributes:
        x: (B, L, D), None unless wanted.
        mod: gradient of the modulation's vectors (B, V, D), float32, None unless wanted.
        loras: gradients of the adapters, in the order of the block's linears; None where there is no adapter.
    """

    x: Tensor | None
    mod: Tensor | None
    loras: tuple[LoraGrad | None, ...]


@dataclass(frozen=True)
class BlockFunctions:
    """Forward and backward of both kinds of block: tensors in, tensors out, so that each can be compiled alone."""

    single_forward: Callable[..., Any]
    single_backward: Callable[..., BlockGrads]
    double_forward: Callable[..., Any]
    double_backward: Callable[..., BlockGrads]
