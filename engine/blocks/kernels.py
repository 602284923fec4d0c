"""Triton kernels of a block's elementwise pieces: each reads its operands once and writes its results once.

Every kernel works on rows (one token of one sample) whose last axis is contiguous; strides between tokens and samples
are free, so that columns of a fused product and slices of a joint sequence need no copy. Statistics and arithmetic
are float32, storage is the tensors' own type. Widths need not be powers of two: a row is padded to ``BLOCK`` and
masked. Only :mod:`engine.blocks.kernels_launch` imports this module, and triton with it, and only where a kernel is
wanted. With TRITON_INTERPRET=1 set before that import, the same kernels run on a CPU.

Kernels take pointers and element strides; programs are numbered (token, sample[, part of the row]).
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

EPSILON = tl.constexpr(1e-6)
"""What FLUX adds to the variance in both of its norms."""


@triton.jit
def norm_modulate(
    x, shift, scale, y, mean, rstd, width, x_b, x_l, shift_b, scale_b, BLOCK: tl.constexpr
):  # fmt: skip
    """``y = (1 + scale) * LayerNorm(x) + shift``; keeps mean and reciprocal deviation of every row. Moves 2 rows."""
    token, sample, tokens = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    row = sample.to(tl.int64) * tokens + token
    column = tl.arange(0, BLOCK)
    live = column < width
    at = sample.to(tl.int64) * x_b + token.to(tl.int64) * x_l
    value = tl.load(x + at + column, mask=live, other=0.0).to(tl.float32)
    middle = tl.sum(value, axis=0) / width
    centred = tl.where(live, value - middle, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + EPSILON)
    add = tl.load(shift + sample.to(tl.int64) * shift_b + column, mask=live, other=0.0).to(tl.float32)
    times = tl.load(scale + sample.to(tl.int64) * scale_b + column, mask=live, other=0.0).to(tl.float32)
    result = (1.0 + times) * (centred * inverse) + add
    tl.store(y + row * width + column, result.to(y.dtype.element_ty), mask=live)
    tl.store(mean + row, middle)
    tl.store(rstd + row, inverse)


@triton.jit
def quantise_rows(x, fold, packed, step, width, x_b, x_l, FOLD: tl.constexpr, BLOCK: tl.constexpr):
    """Rows of ``x``, times ``fold`` (width,) where FOLD is set, in int8 with one step a row. Moves 1.5 rows."""
    token, sample, tokens = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    row = sample.to(tl.int64) * tokens + token
    column = tl.arange(0, BLOCK)
    live = column < width
    at = sample.to(tl.int64) * x_b + token.to(tl.int64) * x_l
    value = tl.load(x + at + column, mask=live, other=0.0).to(tl.float32)
    if FOLD:
        value = value * tl.load(fold + column, mask=live, other=0.0).to(tl.float32)
    size = _step_of(value)
    tl.store(packed + row * width + column, _nearest(value / size), mask=live)
    tl.store(step + row, size)


@triton.jit
def _step_of(row):
    """A row's int8 step. A row of zeros gets a tiny one; NaN or infinity anywhere in it makes the step NaN."""
    return tl.maximum(tl.max(tl.abs(row), axis=0) / 127.0, 1e-30) + tl.sum(row - row, axis=0)


@triton.jit
def _nearest(value):
    """To the nearest integer, halves to even as ``torch.round``, in int8. Values are within +-127."""
    below = tl.floor(value)
    part = value - below
    odd = (below - 2.0 * tl.floor(below * 0.5)) == 1.0
    up = (part > 0.5) | ((part == 0.5) & odd)
    return tl.where(up, below + 1.0, below).to(tl.int8)


@triton.jit
def norm_modulate_backward(
    dy, x, scale, mean, rstd, residual, out, width,
    x_b, x_l, scale_b, residual_b, residual_l, out_b, out_l, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``out = residual + dx``: the gradient of the skip connection joins here, if RESIDUAL. Moves 3 or 4 rows."""
    token, sample, tokens = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    row = sample.to(tl.int64) * tokens + token
    column = tl.arange(0, BLOCK)
    live = column < width
    s, t = sample.to(tl.int64), token.to(tl.int64)
    value = tl.load(x + s * x_b + t * x_l + column, mask=live, other=0.0).to(tl.float32)
    grad = tl.load(dy + row * width + column, mask=live, other=0.0).to(tl.float32)
    times = tl.load(scale + s * scale_b + column, mask=live, other=0.0).to(tl.float32)
    inverse = tl.load(rstd + row)
    normed = tl.where(live, (value - tl.load(mean + row)) * inverse, 0.0)
    grad = grad * (1.0 + times)
    along = tl.sum(grad * normed, axis=0) / width
    result = inverse * (grad - tl.sum(grad, axis=0) / width - normed * along)
    if RESIDUAL:
        result += tl.load(residual + s * residual_b + t * residual_l + column, mask=live, other=0.0).to(tl.float32)
    tl.store(out + s * out_b + t * out_l + column, result.to(out.dtype.element_ty), mask=live)


@triton.jit
def _halves(tile, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """The even and the odd columns of (ROWS, WIDE), each (ROWS, WIDE/2)."""
    return tl.split(tl.reshape(tile, (ROWS, WIDE // 2, 2)))


@triton.jit
def _turn_heads(
    source, weight, cos, sin, out, HEADS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """RMS norm with ``weight``, then the rotation, for all heads of one token."""
    head, column = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDE)[None, :]
    live = (head < HEADS) & (column < K)
    place = head * K + column
    value = tl.load(source + place, mask=live, other=0.0).to(tl.float32)
    factor = tl.load(weight + column, mask=column < K, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / K + EPSILON)
    even, odd = _halves(value * inverse[:, None] * factor, ROWS, WIDE)
    turned = tl.reshape(tl.join(cos * even - sin * odd, sin * even + cos * odd), (ROWS, WIDE))
    tl.store(out + place, turned.to(out.dtype.element_ty), mask=live)


@triton.jit
def _copy_heads(source, out, out_h, HEADS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr):
    """All heads of one token to where they belong; ``out_h`` elements from one head to the next in the source."""
    head, column = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDE)[None, :]
    live = (head < HEADS) & (column < K)
    tl.store(
        out + head * K + column,
        tl.load(source + head * out_h + column, mask=live, other=0.0),
        mask=live,
    )


@triton.jit
def rotate_heads(
    qkv, q_scale, k_scale, rotary, q_out, k_out, v_out,
    qkv_b, qkv_l, rotary_part, rotary_b, rotary_l, q_b, q_l, k_b, k_l, v_b, v_l,
    HEADS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Queries (part 0) and keys (part 1) normed and turned, values (part 2) copied. Moves 4 to 6 rows."""
    s, t, part = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64), tl.program_id(2)
    source = qkv + s * qkv_b + t * qkv_l + part * HEADS * K
    pair = tl.arange(0, WIDE // 2)[None, :]
    table = rotary + s * rotary_b + t * rotary_l + pair
    inside = pair < K // 2
    cos = tl.load(table, mask=inside, other=1.0)
    sin = tl.load(table + rotary_part, mask=inside, other=0.0)
    if part == 0:
        _turn_heads(source, q_scale, cos, sin, q_out + s * q_b + t * q_l, HEADS, K, ROWS, WIDE)
    elif part == 1:
        _turn_heads(source, k_scale, cos, sin, k_out + s * k_b + t * k_l, HEADS, K, ROWS, WIDE)
    else:
        _copy_heads(source, v_out + s * v_b + t * v_l, K, HEADS, K, ROWS, WIDE)


@triton.jit
def _turn_back(
    grad, grad_h, source, weight, cos, sin, out,
    HEADS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The gradient of :func:`_turn_heads` for all heads of one token; the statistics are formed again."""
    head, column = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDE)[None, :]
    live = (head < HEADS) & (column < K)
    place = head * K + column
    dturned = tl.load(grad + head * grad_h + column, mask=live, other=0.0).to(tl.float32)
    value = tl.load(source + place, mask=live, other=0.0).to(tl.float32)
    factor = tl.load(weight + column, mask=column < K, other=0.0).to(tl.float32)
    inverse = (1.0 / tl.sqrt(tl.sum(value * value, axis=1) / K + EPSILON))[:, None]
    even, odd = _halves(dturned, ROWS, WIDE)
    dnormed = tl.reshape(tl.join(cos * even + sin * odd, cos * odd - sin * even), (ROWS, WIDE)) * factor
    normed = value * inverse
    along = (tl.sum(dnormed * normed, axis=1) / K)[:, None]
    tl.store(out + place, (inverse * (dnormed - normed * along)).to(out.dtype.element_ty), mask=live)


@triton.jit
def rotate_heads_backward(
    dq, dk, dv, qkv, q_scale, k_scale, rotary, out,
    dq_b, dq_l, dq_h, dk_b, dk_l, dk_h, dv_b, dv_l, dv_h, qkv_b, qkv_l, rotary_part, rotary_b, rotary_l, out_b, out_l,
    HEADS: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of attention's inputs to those of the fused product's columns (q k v). Moves 8 rows."""
    s, t, part = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64), tl.program_id(2)
    source = qkv + s * qkv_b + t * qkv_l + part * HEADS * K
    target = out + s * out_b + t * out_l + part * HEADS * K
    pair = tl.arange(0, WIDE // 2)[None, :]
    table = rotary + s * rotary_b + t * rotary_l + pair
    inside = pair < K // 2
    cos = tl.load(table, mask=inside, other=1.0)
    sin = tl.load(table + rotary_part, mask=inside, other=0.0)
    if part == 0:
        grad = dq + s * dq_b + t * dq_l
        _turn_back(grad, dq_h, source, q_scale, cos, sin, target, HEADS, K, ROWS, WIDE)
    elif part == 1:
        grad = dk + s * dk_b + t * dk_l
        _turn_back(grad, dk_h, source, k_scale, cos, sin, target, HEADS, K, ROWS, WIDE)
    else:
        _copy_heads(dv + s * dv_b + t * dv_l, target, dv_h, HEADS, K, ROWS, WIDE)


# gelu in its tanh form is m * sigmoid(2u), u = GELU_A (m + GELU_B m^3), since (1 + tanh u) / 2 = sigmoid(2u).
GELU_A = tl.constexpr(0.7978845608028654)  # sqrt(2 / pi)
GELU_B = tl.constexpr(0.044715)


@triton.jit
def gelu(m, out, width, m_b, m_l, out_b, out_l, BLOCK: tl.constexpr):
    """``out = gelu(m)``. Moves 2 rows."""
    s, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    live = column < width
    value = tl.load(m + s * m_b + t * m_l + column, mask=live, other=0.0).to(tl.float32)
    u = GELU_A * (value + GELU_B * value * value * value)
    result = value / (1.0 + tl.exp(-2.0 * u))
    tl.store(out + s * out_b + t * out_l + column, result.to(out.dtype.element_ty), mask=live)


@triton.jit
def gelu_backward(dy, m, out, width, dy_b, dy_l, m_b, m_l, out_b, out_l, BLOCK: tl.constexpr):
    """``out = dy * gelu'(m)``. Moves 3 rows."""
    s, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    live = column < width
    value = tl.load(m + s * m_b + t * m_l + column, mask=live, other=0.0).to(tl.float32)
    grad = tl.load(dy + s * dy_b + t * dy_l + column, mask=live, other=0.0).to(tl.float32)
    square = value * value
    u = GELU_A * value * (1.0 + GELU_B * square)
    gate = 1.0 / (1.0 + tl.exp(-2.0 * u))
    slope = gate + value * gate * (1.0 - gate) * (2.0 * GELU_A) * (1.0 + 3.0 * GELU_B * square)
    tl.store(out + s * out_b + t * out_l + column, (grad * slope).to(out.dtype.element_ty), mask=live)


@triton.jit
def gelu_both(
    dy, m, active, out, width, dy_b, dy_l, m_b, m_l, active_b, active_l, out_b, out_l, BLOCK: tl.constexpr
):  # fmt: skip
    """``active = gelu(m)`` and ``out = dy * gelu'(m)``; out may be the memory of m. Moves 4 rows."""
    s, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    live = column < width
    value = tl.load(m + s * m_b + t * m_l + column, mask=live, other=0.0).to(tl.float32)
    grad = tl.load(dy + s * dy_b + t * dy_l + column, mask=live, other=0.0).to(tl.float32)
    square = value * value
    u = GELU_A * value * (1.0 + GELU_B * square)
    gate = 1.0 / (1.0 + tl.exp(-2.0 * u))
    slope = gate + value * gate * (1.0 - gate) * (2.0 * GELU_A) * (1.0 + 3.0 * GELU_B * square)
    tl.store(active + s * active_b + t * active_l + column, (value * gate).to(active.dtype.element_ty), mask=live)
    tl.store(out + s * out_b + t * out_l + column, (grad * slope).to(out.dtype.element_ty), mask=live)


@triton.jit
def gate_residual(x, gate, y, out, width, x_b, x_l, gate_b, y_b, y_l, out_b, out_l, BLOCK: tl.constexpr):
    """``out = x + gate * y``. Moves 3 rows."""
    s, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    live = column < width
    base = tl.load(x + s * x_b + t * x_l + column, mask=live, other=0.0).to(tl.float32)
    factor = tl.load(gate + s * gate_b + column, mask=live, other=0.0).to(tl.float32)
    branch = tl.load(y + s * y_b + t * y_l + column, mask=live, other=0.0).to(tl.float32)
    tl.store(out + s * out_b + t * out_l + column, (base + factor * branch).to(out.dtype.element_ty), mask=live)


@triton.jit
def gate_backward(dout, gate, dy, width, dout_b, dout_l, gate_b, dy_b, dy_l, BLOCK: tl.constexpr):
    """``dy = gate * dout``. Moves 2 rows."""
    s, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    column = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    live = column < width
    grad = tl.load(dout + s * dout_b + t * dout_l + column, mask=live, other=0.0).to(tl.float32)
    factor = tl.load(gate + s * gate_b + column, mask=live, other=0.0).to(tl.float32)
    tl.store(dy + s * dy_b + t * dy_l + column, (factor * grad).to(dy.dtype.element_ty), mask=live)
