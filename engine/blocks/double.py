"""A double-stream block: image and text with weights of their own, joined in attention.

Both streams are slices of one buffer, text first, in and out: nothing is concatenated between blocks. As in
:mod:`engine.blocks.single`, the backward never makes a last linear's product again.

Shape suffixes: B samples, T text tokens, S of one stream, L of both, N = B*S, D width, H heads, K head width, M width
of the MLP, r rank.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.blocks.attention import Extra
from engine.blocks.joined import Lora, LoraGrad, adapter_backward, joined, joined_again, joined_backward
from engine.blocks.mlp import mlp_end_backward
from engine.blocks.pieces import gate_rows_backward, modulate_rows_backward
from engine.blocks.setup import BlockGrads, BlockSetup
from engine.memory.frozen import DoubleWeights, StreamWeights

VECTORS = 12
"""Of modulation: shift, scale, gate of attention and of the MLP, for the image and then for the text."""


class StreamLoras(NamedTuple):
    """The adapters of one stream's linears."""

    qkv: Lora | None = None
    proj: Lora | None = None
    mlp_in: Lora | None = None
    mlp_out: Lora | None = None


class DoubleLoras(NamedTuple):
    """The adapters of a double block."""

    img: StreamLoras = StreamLoras()
    txt: StreamLoras = StreamLoras()


class StreamSaved(NamedTuple):
    """What one stream keeps; None is formed again.

    Attributes:
        hidden: the adapters' h (N, r), in the order of :class:`StreamLoras`.
        qkv: (B, S, 3D).
        middle: the stream after attention (B, S, D).
        wide: the MLP before gelu (B, S, M).
        active: the MLP after gelu (B, S, M).
    """

    hidden: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
    qkv: Tensor | None = None
    middle: Tensor | None = None
    wide: Tensor | None = None
    active: Tensor | None = None


class DoubleSaved(NamedTuple):
    """What a forward keeps: both streams, and attention's output (B, H, L, K) with what else its backward reads."""

    img: StreamSaved
    txt: StreamSaved
    attended: Tensor | None = None
    extra: Extra | None = None


class _Stream(NamedTuple):
    """One stream's share of a block's arguments; ``rows`` are its six vectors (B, D)."""

    x: Tensor
    rows: tuple[Tensor, ...]
    weights: StreamWeights
    loras: StreamLoras
    rotary: Tensor
    tokens: slice


def double_forward(
    x: Tensor,
    mod: Tensor,
    weights: DoubleWeights,
    loras: DoubleLoras,
    rotary: Tensor,
    bias: Tensor | None,
    setup: BlockSetup,
) -> tuple[Tensor, DoubleSaved]:
    """Advance both streams by one block.

    Args:
        x: (B, L, D), contiguous, text first.
        mod: (B, 12, D), as :data:`VECTORS` says.
        weights: the frozen linears and scales.
        loras: the adapters.
        rotary: (2, B or 1, L, K/2), float32.
        bias: added to the scores, (B, 1, 1, L), or None.
        setup: what all blocks share.

    Returns:
        The block's output (B, L, D) and what its backward needs besides its arguments.
    """
    streams = _streams(x, mod, weights, loras, rotary, setup)
    qkvs, hiddens = [], []
    for stream in streams:
        normed, _, _ = setup.pieces.norm_modulate(stream.x, *stream.rows[:2])
        flat, hidden = joined(normed.flatten(0, 1), stream.weights.qkv, stream.loras.qkv)
        qkvs.append(flat.view(*stream.x.shape[:2], -1))
        hiddens.append(hidden)
    q, k, v = _heads(x, qkvs, streams, setup)
    kept = qkvs if setup.keep == "none" else (None, None)
    del qkvs
    attended, extra = setup.attention.forward(q, k, v, bias)
    del q, k, v
    out = torch.empty_like(x)
    parts = []
    for stream, qkv, hidden in zip(streams, kept, hiddens, strict=True):
        parts.append(_finish(stream, attended, setup, out[:, stream.tokens], qkv, hidden))
    if setup.keep == "full":
        return out, DoubleSaved(parts[0], parts[1])
    return out, DoubleSaved(parts[0], parts[1], attended, extra)


def double_backward(
    dout: Tensor,
    x: Tensor,
    mod: Tensor,
    weights: DoubleWeights,
    loras: DoubleLoras,
    rotary: Tensor,
    bias: Tensor | None,
    setup: BlockSetup,
    saved: DoubleSaved,
    wants_input: bool,
    wants_mod: bool,
) -> BlockGrads:
    """Gradients of a block's input and adapters, and of its modulation where that is wanted.

    Args as :func:`double_forward`'s, ``dout`` (B, L, D) the gradient of its output and ``saved`` what it kept.
    """
    streams = _streams(x, mod, weights, loras, rotary, setup)
    kept = (saved.img, saved.txt)
    starts = [_start_again(stream, part, setup) for stream, part in zip(streams, kept, strict=True)]
    qkvs = [start[3] for start in starts]
    q, k, v = _heads(x, qkvs, streams, setup)
    attended, extra = saved.attended, saved.extra
    if attended is None or extra is None:
        attended, extra = setup.attention.forward(q, k, v, bias)

    dattended = torch.empty_like(x)
    # Loops, not comprehensions: those would close over what is let go below.
    ends = []
    for stream, part in zip(streams, kept, strict=True):
        ends.append(_finish_backward(dout[:, stream.tokens], stream, part, attended, setup, dattended, wants_mod))
    dheads = setup.attention.backward(
        dattended.unflatten(-1, (setup.heads, -1)).transpose(1, 2), q, k, v, bias, attended, extra
    )
    del q, k, v, attended, dattended
    dx = torch.empty_like(x) if wants_input else None
    heads, wants = tuple(part.transpose(1, 2) for part in dheads), (wants_input, wants_mod)
    first = [
        _start_backward(heads, end.dmiddle, stream, start, part, setup, dx, wants)
        for end, stream, start, part in zip(ends, streams, starts, kept, strict=True)
    ]
    grads = [(grad, *end.grads) for (grad, _), end in zip(first, ends, strict=True)]
    dmod = None
    if wants_mod:
        dmod = torch.stack(
            [row for (_, rows), end in zip(first, ends, strict=True) for row in (*rows, *end.drows)], 1
        )
    return BlockGrads(dx, dmod, (*grads[0], *grads[1]))


def _streams(
    x: Tensor, mod: Tensor, weights: DoubleWeights, loras: DoubleLoras, rotary: Tensor, setup: BlockSetup
) -> tuple[_Stream, _Stream]:
    """The image's share and the text's."""
    rows, text = mod.unbind(1), setup.text
    spans = slice(text, x.shape[1]), slice(0, text)
    return (
        _Stream(x[:, spans[0]], rows[:6], weights.img, loras.img, rotary[:, :, spans[0]], spans[0]),
        _Stream(x[:, spans[1]], rows[6:], weights.txt, loras.txt, rotary[:, :, spans[1]], spans[1]),
    )


def _heads(
    x: Tensor, qkvs: list[Tensor], streams: tuple[_Stream, ...], setup: BlockSetup
) -> tuple[Tensor, Tensor, Tensor]:
    """Both streams' queries and keys, normed and rotated, and values: (B, H, L, K) each."""
    q, k, v = (torch.empty_like(x).unflatten(-1, (setup.heads, -1)) for _ in range(3))
    for qkv, stream in zip(qkvs, streams, strict=True):
        scales = stream.weights.query_scale, stream.weights.key_scale
        parts = [part[:, stream.tokens] for part in (q, k, v)]
        setup.pieces.rotate_heads(qkv, *scales, stream.rotary, *parts)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _tokens_of(attended: Tensor, stream: _Stream) -> Tensor:
    """One stream's share (N, D) of attention's output (B, H, L, K)."""
    return attended.transpose(1, 2)[:, stream.tokens].flatten(2).flatten(0, 1)


def _finish(
    stream: _Stream, attended: Tensor, setup: BlockSetup, out: Tensor, qkv: Tensor | None, hidden: Tensor | None
) -> StreamSaved:
    """From attention's output to the stream's, written to ``out``."""
    pieces, shape = setup.pieces, stream.x.shape
    _, _, gate1, shift, scale, gate2 = stream.rows
    y, hidden_proj = joined(_tokens_of(attended, stream), stream.weights.proj, stream.loras.proj)
    middle = torch.empty_like(y).view(shape)
    pieces.gate_residual(stream.x, gate1, y.view(shape), middle)
    del y
    normed, _, _ = pieces.norm_modulate(middle, shift, scale)
    flat, hidden_in = joined(normed.flatten(0, 1), stream.weights.mlp_in, stream.loras.mlp_in)
    del normed
    wide = flat.view(*shape[:2], -1)
    active = torch.empty_like(wide)
    pieces.gelu(wide, active)
    del flat
    if setup.keep != "none":
        del wide
    y, hidden_out = joined(active.flatten(0, 1), stream.weights.mlp_out, stream.loras.mlp_out)
    pieces.gate_residual(middle, gate2, y.view(shape), out)
    saved = StreamSaved((hidden, hidden_proj, hidden_in, hidden_out))
    return saved._replace(qkv=qkv, middle=middle, wide=wide, active=active) if setup.keep == "none" else saved


_Start = tuple[Tensor, Tensor, Tensor, Tensor]


def _start_again(stream: _Stream, saved: StreamSaved, setup: BlockSetup) -> _Start:
    """The normed input (B, S, D), its mean and 1/std, and qkv (B, S, 3D): kept or formed again."""
    normed, mean, rstd = setup.pieces.norm_modulate(stream.x, *stream.rows[:2])
    qkv = saved.qkv
    if qkv is None:
        flat = joined_again(normed.flatten(0, 1), stream.weights.qkv, stream.loras.qkv, saved.hidden[0])
        qkv = flat.view(*stream.x.shape[:2], -1)
    return normed, mean, rstd, qkv


class _End(NamedTuple):
    """Gradients of the stream after attention, of the last three adapters, and of the last four vectors."""

    dmiddle: Tensor
    grads: tuple[LoraGrad | None, ...]
    drows: tuple[Tensor, ...]


def _finish_backward(
    dout: Tensor,
    stream: _Stream,
    saved: StreamSaved,
    attended: Tensor,
    setup: BlockSetup,
    dattended: Tensor,
    wants_mod: bool,
) -> _End:
    """Back to attention's output, whose gradient goes to this stream's share of ``dattended`` (B, L, D)."""
    pieces, shape, weights, loras = setup.pieces, stream.x.shape, stream.weights, stream.loras
    _, _, gate1, shift, scale, gate2 = stream.rows
    tokens = _tokens_of(attended, stream)
    middle, wide, active = saved.middle, saved.wide, saved.active
    y = None
    if middle is None or wants_mod:
        y = joined_again(tokens, weights.proj, loras.proj, saved.hidden[1]).view(shape)
    if middle is None:
        assert y is not None
        middle = torch.empty_like(y)
        pieces.gate_residual(stream.x, gate1, y, middle)
    y = y if wants_mod else None
    normed, mean, rstd = pieces.norm_modulate(middle, shift, scale)
    if wide is None:
        flat = joined_again(normed.flatten(0, 1), weights.mlp_in, loras.mlp_in, saved.hidden[2])
        wide = flat.view(*shape[:2], -1)

    drows: tuple[Tensor, ...] = ()
    if wants_mod:
        if active is None:
            active = torch.empty_like(wide)
            pieces.gelu(wide, active)
        last = joined_again(active.flatten(0, 1), weights.mlp_out, loras.mlp_out, saved.hidden[3])
        drows = (gate_rows_backward(dout, last.view(shape)),)
    dy = pieces.gate_backward(dout, gate2).flatten(0, 1)
    dwide = wide if saved.wide is None else torch.empty_like(wide)
    # The gradient of the linear's input is not wanted here: it must not stay until the end.
    grad_out = mlp_end_backward(
        dy, weights.mlp_out, loras.mlp_out, saved.hidden[3], None, wide, active, dwide, pieces
    )[1]
    del active, wide
    flat, grad_in = joined_backward(
        dwide.flatten(0, 1), normed.flatten(0, 1), weights.mlp_in, loras.mlp_in, saved.hidden[2]
    )
    del dwide, normed
    dmiddle = torch.empty_like(middle)
    pieces.norm_modulate_backward(flat.view(shape), middle, scale, mean, rstd, dout, dmiddle)
    if y is not None:
        rows = modulate_rows_backward(flat.view(shape), middle, mean, rstd)
        drows = (gate_rows_backward(dmiddle, y), *rows, *drows)
    dy = pieces.gate_backward(dmiddle, gate1).flatten(0, 1)
    flat, grad_proj = joined_backward(dy, tokens, weights.proj, loras.proj, saved.hidden[1])
    dattended[:, stream.tokens].copy_(flat.view(shape))
    return _End(dmiddle, (grad_proj, grad_in, grad_out), drows)


def _start_backward(
    heads: tuple[Tensor, ...],
    dmiddle: Tensor,
    stream: _Stream,
    start: _Start,
    saved: StreamSaved,
    setup: BlockSetup,
    dx: Tensor | None,
    wants: tuple[bool, bool],
) -> tuple[LoraGrad | None, tuple[Tensor, ...]]:
    """From the heads' gradients to the stream's input, written to its share of ``dx``."""
    normed, mean, rstd, qkv = start
    dqkv = qkv if saved.qkv is None else torch.empty_like(qkv)
    scales = stream.weights.query_scale, stream.weights.key_scale
    dq, dk, dv = (part[:, stream.tokens] for part in heads)
    setup.pieces.rotate_heads_backward(dq, dk, dv, qkv, *scales, stream.rotary, dqkv)
    before, after = normed.flatten(0, 1), dqkv.flatten(0, 1)
    weights, lora, hidden = stream.weights.qkv, stream.loras.qkv, saved.hidden[0]
    if not any(wants):
        return adapter_backward(after, before, lora, hidden), ()
    flat, grad = joined_backward(after, before, weights, lora, hidden)
    dnormed = flat.view(stream.x.shape)
    rows: tuple[Tensor, ...] = ()
    if wants[1]:
        rows = modulate_rows_backward(dnormed, stream.x, mean, rstd)
    if dx is not None:
        part = dx[:, stream.tokens]
        setup.pieces.norm_modulate_backward(dnormed, stream.x, stream.rows[1], mean, rstd, dmiddle, part)
    return grad, rows
