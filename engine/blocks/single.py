"""A single-stream block: forward and a backward that forms nothing again it need not.

Text and image are one stream; attention and MLP lie side by side between two fused linears. The backward never makes
the last linear's product again (only its input is read), nor the adapters' narrow ones (they are kept).

Shape suffixes: B samples, L tokens, N = B*L, D width, H heads, K head width, M width of the MLP, r rank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.blocks.attention import Extra
from engine.blocks.joined import Lora, adapter_backward, joined, joined_again, joined_backward
from engine.blocks.mlp import mlp_end_backward
from engine.blocks.pieces import gate_rows_backward, modulate_rows_backward
from engine.blocks.setup import BlockGrads, BlockSetup
from engine.memory.frozen import SingleWeights

VECTORS = 3
"""Of modulation: shift, scale, gate."""


class SingleLoras(NamedTuple):
    """The adapters of a single block's linears."""

    linear1: Lora | None = None
    linear2: Lora | None = None


class SingleSaved(NamedTuple):
    """What a forward keeps; None is formed again.

    Attributes:
        hidden1, hidden2: the adapters' h (N, r).
        attended: the attention's output (B, H, L, K), unless it is in ``inner``.
        extra: what else attention's backward reads.
        wide: linear1's output (B, L, 3D + M).
        inner: linear2's input (B, L, D + M).
    """

    hidden1: Tensor | None
    hidden2: Tensor | None
    attended: Tensor | None = None
    extra: Extra | None = None
    wide: Tensor | None = None
    inner: Tensor | None = None


def single_forward(
    x: Tensor,
    mod: Tensor,
    weights: SingleWeights,
    loras: SingleLoras,
    rotary: Tensor,
    bias: Tensor | None,
    setup: BlockSetup,
) -> tuple[Tensor, SingleSaved]:
    """Advance ``x`` by one block.

    Args:
        x: (B, L, D), contiguous.
        mod: (B, 3, D): shift, scale, gate.
        weights: the frozen linears and scales.
        loras: the adapters.
        rotary: (2, B or 1, L, K/2), float32.
        bias: added to the scores, (B, 1, 1, L), or None.
        setup: what all blocks share.

    Returns:
        The block's output (B, L, D) and what its backward needs besides its arguments.
    """
    shift, scale, gate = mod.unbind(1)
    normed, _, _ = setup.pieces.norm_modulate(x, shift, scale)
    flat, hidden1 = joined(normed.flatten(0, 1), weights.linear1, loras.linear1)
    wide = flat.view(*x.shape[:2], -1)
    del normed, flat
    q, k, v = _heads(wide, weights, rotary, setup)
    attended, extra = setup.attention.forward(q, k, v, bias)
    inner = _inner(attended, wide, setup)
    if setup.keep != "none":
        del wide, q, k, v
    y, hidden2 = joined(inner.flatten(0, 1), weights.linear2, loras.linear2)
    out = torch.empty_like(x)
    setup.pieces.gate_residual(x, gate, y.view(x.shape), out)
    saved = SingleSaved(hidden1, hidden2)
    if setup.keep == "none":
        saved = saved._replace(extra=extra, wide=wide, inner=inner)
    elif setup.keep == "attention":
        saved = saved._replace(extra=extra, attended=attended)
    return out, saved


def single_backward(
    dout: Tensor,
    x: Tensor,
    mod: Tensor,
    weights: SingleWeights,
    loras: SingleLoras,
    rotary: Tensor,
    bias: Tensor | None,
    setup: BlockSetup,
    saved: SingleSaved,
    wants_input: bool,
    wants_mod: bool,
) -> BlockGrads:
    """Gradients of a block's input and adapters, and of its modulation where that is wanted.

    Args as :func:`single_forward`'s, ``dout`` (B, L, D) the gradient of its output and ``saved`` what it kept.
    """
    pieces, dim = setup.pieces, x.shape[-1]
    shift, scale, gate = mod.unbind(1)
    normed, mean, rstd = pieces.norm_modulate(x, shift, scale)
    wide = saved.wide
    if wide is None:
        flat = joined_again(normed.flatten(0, 1), weights.linear1, loras.linear1, saved.hidden1)
        wide = flat.view(*x.shape[:2], -1)
    q, k, v = _heads(wide, weights, rotary, setup)
    attended, extra = _attended_again(saved, (q, k, v), bias, setup)
    inner, dgate = saved.inner, None
    if wants_mod:
        inner = _inner(attended, wide, setup) if inner is None else inner
        y = joined_again(inner.flatten(0, 1), weights.linear2, loras.linear2, saved.hidden2)
        dgate = gate_rows_backward(dout, y.view(x.shape))
        del y
    dy = pieces.gate_backward(dout, gate).flatten(0, 1)
    before = attended.transpose(1, 2).flatten(2).flatten(0, 1)
    active = None if inner is None else inner[..., dim:]
    # What was formed again is overwritten by its own gradient; what was kept belongs to the graph.
    dwide = wide if saved.wide is None else torch.empty_like(wide)
    mlps = wide[..., 3 * dim :], active, dwide[..., 3 * dim :]
    flat, grad2 = mlp_end_backward(dy, weights.linear2, loras.linear2, saved.hidden2, before, *mlps, pieces)
    del dy, before, active, inner
    dinner = flat.view(*x.shape[:2], -1)
    dattended = dinner[..., :dim].unflatten(-1, (setup.heads, -1)).transpose(1, 2)
    dheads = setup.attention.backward(dattended, q, k, v, bias, attended, extra)
    del q, k, v, attended, dattended, dinner, flat
    dq, dk, dv = (part.transpose(1, 2) for part in dheads)
    scales = weights.query_scale, weights.key_scale
    pieces.rotate_heads_backward(dq, dk, dv, wide[..., : 3 * dim], *scales, rotary, dwide[..., : 3 * dim])
    del dq, dk, dv, dheads

    rows, before = dwide.flatten(0, 1), normed.flatten(0, 1)
    if not (wants_input or wants_mod):
        return BlockGrads(None, None, (adapter_backward(rows, before, loras.linear1, saved.hidden1), grad2))
    flat, grad1 = joined_backward(rows, before, weights.linear1, loras.linear1, saved.hidden1)
    dnormed, dmod, dx = flat.view(x.shape), None, None
    if dgate is not None:
        dmod = torch.stack((*modulate_rows_backward(dnormed, x, mean, rstd), dgate), dim=1)
    if wants_input:
        dx = torch.empty_like(x)
        pieces.norm_modulate_backward(dnormed, x, scale, mean, rstd, dout, dx)
    return BlockGrads(dx, dmod, (grad1, grad2))


def _heads(wide: Tensor, weights: SingleWeights, rotary: Tensor, setup: BlockSetup) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, normed and rotated, and values where they are: (B, H, L, K) each."""
    width = weights.query_scale.shape[0]
    dim = setup.heads * width
    q, k = (wide.new_empty(*wide.shape[:2], setup.heads, width) for _ in range(2))
    qkv = wide[..., : 3 * dim]
    setup.pieces.rotate_heads(qkv, weights.query_scale, weights.key_scale, rotary, q, k, None)
    v = qkv[..., 2 * dim :].unflatten(-1, (setup.heads, width))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _inner(attended: Tensor, wide: Tensor, setup: BlockSetup) -> Tensor:
    """Attention's output and the MLP's activation side by side: what linear2 reads."""
    _, heads, _, width = attended.shape
    dim = heads * width
    inner = wide.new_empty(*wide.shape[:2], wide.shape[-1] - 2 * dim)
    inner[..., :dim].unflatten(-1, (heads, width)).copy_(attended.transpose(1, 2))
    setup.pieces.gelu(wide[..., 3 * dim :], inner[..., dim:])
    return inner


def _attended_again(
    saved: SingleSaved, heads: tuple[Tensor, Tensor, Tensor], bias: Tensor | None, setup: BlockSetup
) -> tuple[Tensor, Extra]:
    """Attention's output (B, H, L, K) and what its backward needs: kept or formed again."""
    if saved.extra is None:
        return setup.attention.forward(*heads, bias)
    if saved.attended is not None:
        return saved.attended, saved.extra
    assert saved.inner is not None
    _, count, _, width = heads[0].shape
    return saved.inner[..., : count * width].unflatten(-1, (count, width)).transpose(1, 2), saved.extra
