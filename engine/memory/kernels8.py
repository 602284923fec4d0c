"""A Triton kernel for int8 products that scales its result before it goes to memory.

torch's int8 product writes int32 sums, which other operations read again, scale and write: 20 bytes a value where
this one writes two. It reads the second factor with any strides, so that one stored weight serves forward (read by
rows) and the input gradient (read by columns) without a transposed copy. Importing this module imports triton; with
TRITON_INTERPRET=1 set before, the kernel runs on a CPU.

Shape suffixes: N rows, K the summed axis, M columns.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

TILE_N, TILE_M, TILE_K = 128, 128, 64
"""A program's tile of the result, and how much of the summed axis it takes at a time: 16 KB of codes a stage."""
_GROUP = 8
"""Tiles of rows that run beside one another, so that they find the same columns in the cache."""


@triton.jit
def scaled_product(
    tokens, codes, token_scale, scale, bias, out, N, M, tokens_n, codes_k, codes_m, out_n,
    K: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr, TN: tl.constexpr, TM: tl.constexpr, TK: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """``out = (tokens @ codes) * token_scale * scale + bias``; sums in int32, the rest in float32.

    K is a constant of the kernel: a model has five of them, and where TK divides it nothing is masked along it.
    """
    program = tl.program_id(0)
    across = tl.cdiv(M, TM)
    group = program // (GROUP * across)
    first = group * GROUP
    size = tl.minimum(tl.cdiv(N, TN) - first, GROUP)
    inside = program % (GROUP * across)
    row = (first + inside % size) * TN + tl.arange(0, TN)
    column = (inside // size) * TM + tl.arange(0, TM)
    step = tl.arange(0, TK)
    rows, columns = row < N, column < M
    left = tokens + row.to(tl.int64)[:, None] * tokens_n + step[None, :]
    right = codes + step.to(tl.int64)[:, None] * codes_k + column.to(tl.int64)[None, :] * codes_m
    sums = tl.zeros((TN, TM), dtype=tl.int32)
    for at in range(0, K, TK):
        if K % TK == 0:
            a = tl.load(left, mask=rows[:, None], other=0)
            b = tl.load(right, mask=columns[None, :], other=0)
        else:
            live = step < K - at
            a = tl.load(left, mask=rows[:, None] & live[None, :], other=0)
            b = tl.load(right, mask=live[:, None] & columns[None, :], other=0)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
        left += TK
        right += TK * codes_k
    value = sums.to(tl.float32) * tl.load(token_scale + row, mask=rows, other=0.0)[:, None]
    if SCALED:
        value = value * tl.load(scale + column, mask=columns, other=0.0)[None, :]
    if BIASED:
        value = value + tl.load(bias + column, mask=columns, other=0.0).to(tl.float32)[None, :]
    place = out + row.to(tl.int64)[:, None] * out_n + column[None, :]
    tl.store(place, value.to(out.dtype.element_ty), mask=rows[:, None] & columns[None, :])


def product(
    tokens: Tensor,
    token_scale: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """An int8 product as :data:`engine.memory.products8.Product` wants it; one opaque node when it is compiled."""
    if torch.compiler.is_compiling():
        traced: Tensor = torch.ops.lorakiln.product8(tokens, token_scale, codes, scale, bias, dtype)
        return traced
    return _launch(tokens, token_scale, codes, scale, bias, dtype)


def _launch(
    tokens: Tensor,
    token_scale: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    tokens = tokens.contiguous()
    (rows, depth), columns = tokens.shape, codes.shape[1]
    out = torch.empty((rows, columns), dtype=dtype, device=tokens.device)
    grid = (triton.cdiv(rows, TILE_N) * triton.cdiv(columns, TILE_M),)
    scaled_product[grid](
        tokens, codes, token_scale, token_scale if scale is None else scale, token_scale if bias is None else bias,
        out, rows, columns, tokens.stride(0), codes.stride(0), codes.stride(1), out.stride(0),
        K=depth, SCALED=scale is not None, BIASED=bias is not None, TN=TILE_N, TM=TILE_M, TK=TILE_K, GROUP=_GROUP,
        num_warps=8, num_stages=3,
    )  # fmt: skip
    return out


@torch.library.custom_op("lorakiln::product8", mutates_args=())
def _product8(
    tokens: Tensor,
    token_scale: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    return _launch(tokens, token_scale, codes, scale, bias, dtype)


@_product8.register_fake
def _(
    tokens: Tensor,
    token_scale: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    return tokens.new_empty((tokens.shape[0], codes.shape[1]), dtype=dtype)
