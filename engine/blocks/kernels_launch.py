"""The Triton kernels as a table of pieces: launches, and torch operators around them for whoever traces.

A piece is launched directly where real tensors come in, so a call costs the launch alone. Under torch.compile, fake
tensors or a dispatch mode (a counter, say) it goes through an operator of the library ``lorakiln`` that states its
results and which arguments it writes, so graphs and traces see one opaque node. Importing this module imports triton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from engine.blocks import kernels
from engine.blocks.kernels_traffic import ACCESS
from engine.blocks.pieces import Pieces

CHUNK = 2048
"""Most columns one program of an elementwise kernel takes."""


def _padded(width: int) -> int:
    return int(triton.next_power_of_2(width))


def _warps(elements: int) -> int:
    """Eight to sixteen elements a thread, one to sixteen warps."""
    return max(1, min(16, elements // 512))


def _launch_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, width = x.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    mean, rstd = (x.new_empty((batch, tokens), dtype=torch.float32) for _ in range(2))
    block = _padded(width)
    kernels.norm_modulate[(tokens, batch)](
        x, shift, scale, y, mean, rstd, width, x.stride(0), x.stride(1), shift.stride(0), scale.stride(0),
        BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return y, mean, rstd


def _fake_norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x, memory_format=torch.contiguous_format), mean, rstd


def _launch_quantise_rows(x: Tensor, fold: Tensor | None) -> tuple[Tensor, Tensor]:
    packed, step = _fake_quantise_rows(x, fold)
    block = _padded(x.shape[1])
    kernels.quantise_rows[(x.shape[0], 1)](
        x, x if fold is None else fold, packed, step, x.shape[1], 0, x.stride(0),
        FOLD=fold is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return packed, step


def _fake_quantise_rows(x: Tensor, fold: Tensor | None) -> tuple[Tensor, Tensor]:
    packed = torch.empty_like(x, dtype=torch.int8, memory_format=torch.contiguous_format)
    return packed, x.new_empty((x.shape[0], 1), dtype=torch.float32)


def _launch_norm_modulate_backward(
    dy: Tensor, x: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    batch, tokens, width = x.shape
    block = _padded(width)
    skip = x if residual is None else residual
    kernels.norm_modulate_backward[(tokens, batch)](
        dy.contiguous(), x, scale, mean.contiguous(), rstd.contiguous(), skip, out, width,
        x.stride(0), x.stride(1), scale.stride(0), skip.stride(0), skip.stride(1), out.stride(0), out.stride(1),
        RESIDUAL=residual is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def _rotary_strides(rotary: Tensor) -> tuple[int, int, int]:
    """From cosines to sines, sample to sample (none where all share one table), token to token."""
    return rotary.stride(0), rotary.stride(1) if rotary.shape[1] > 1 else 0, rotary.stride(2)


def _launch_rotate_heads(
    qkv: Tensor, query_scale: Tensor, key_scale: Tensor, rotary: Tensor, q: Tensor, k: Tensor, v: Tensor | None
) -> None:
    batch, tokens, heads, width = q.shape
    values = q if v is None else v
    rows, wide = _padded(heads), max(2, _padded(width))
    kernels.rotate_heads[(tokens, batch, 2 if v is None else 3)](
        qkv, query_scale, key_scale, rotary, q, k, values,
        qkv.stride(0), qkv.stride(1), *_rotary_strides(rotary), q.stride(0), q.stride(1), k.stride(0), k.stride(1),
        values.stride(0), values.stride(1), HEADS=heads, K=width, ROWS=rows, WIDE=wide, num_warps=_warps(rows * wide),
    )  # fmt: skip


def _launch_rotate_heads_backward(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    qkv: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    rotary: Tensor,
    out: Tensor,
) -> None:
    batch, tokens, heads, width = dq.shape
    rows, wide = _padded(heads), max(2, _padded(width))
    kernels.rotate_heads_backward[(tokens, batch, 3)](
        dq, dk, dv, qkv, query_scale, key_scale, rotary, out,
        *dq.stride()[:3], *dk.stride()[:3], *dv.stride()[:3], qkv.stride(0), qkv.stride(1), *_rotary_strides(rotary),
        out.stride(0), out.stride(1), HEADS=heads, K=width, ROWS=rows, WIDE=wide, num_warps=_warps(rows * wide),
    )  # fmt: skip


def _chunks(width: int) -> tuple[int, int]:
    """Columns a program takes, and programs a row needs."""
    block = min(CHUNK, _padded(width))
    return block, int(triton.cdiv(width, block))


def _launch_gelu(m: Tensor, out: Tensor) -> None:
    batch, tokens, width = m.shape
    block, parts = _chunks(width)
    kernels.gelu[(tokens, batch, parts)](
        m, out, width, m.stride(0), m.stride(1), out.stride(0), out.stride(1), BLOCK=block, num_warps=_warps(block)
    )


def _launch_gelu_backward(dy: Tensor, m: Tensor, out: Tensor) -> None:
    batch, tokens, width = m.shape
    block, parts = _chunks(width)
    kernels.gelu_backward[(tokens, batch, parts)](
        dy, m, out, width, dy.stride(0), dy.stride(1), m.stride(0), m.stride(1), out.stride(0), out.stride(1),
        BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def _launch_gelu_both(dy: Tensor, m: Tensor, active: Tensor, out: Tensor) -> None:
    batch, tokens, width = m.shape
    block, parts = _chunks(width)
    kernels.gelu_both[(tokens, batch, parts)](
        dy, m, active, out, width, dy.stride(0), dy.stride(1), m.stride(0), m.stride(1),
        active.stride(0), active.stride(1), out.stride(0), out.stride(1), BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def _launch_gate_residual(x: Tensor, gate: Tensor, y: Tensor, out: Tensor) -> None:
    batch, tokens, width = x.shape
    block, parts = _chunks(width)
    kernels.gate_residual[(tokens, batch, parts)](
        x, gate, y, out, width, x.stride(0), x.stride(1), gate.stride(0), y.stride(0), y.stride(1),
        out.stride(0), out.stride(1), BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip


def _launch_gate_backward(dout: Tensor, gate: Tensor) -> Tensor:
    batch, tokens, width = dout.shape
    dy = _fake_gate_backward(dout, gate)
    block, parts = _chunks(width)
    kernels.gate_backward[(tokens, batch, parts)](
        dout, gate, dy, width, dout.stride(0), dout.stride(1), gate.stride(0), dy.stride(0), dy.stride(1),
        BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return dy


def _fake_gate_backward(dout: Tensor, gate: Tensor) -> Tensor:
    return torch.empty_like(dout, memory_format=torch.contiguous_format)


def _fake_writer(*_: Any) -> None:
    """Writers into buffers they are given return nothing."""


def _piece(launch: Callable[..., Any], fake: Callable[..., Any] = _fake_writer) -> Any:
    """``launch`` for real tensors, the operator of the same name for whoever traces."""
    name = launch.__name__.removeprefix("_launch_")
    operator: Any = torch.library.custom_op(f"lorakiln::{name}", launch, mutates_args=ACCESS[name].writes)
    operator.register_fake(fake)

    def piece(*args: Any) -> Any:
        if torch.compiler.is_compiling() or _traced(args[0]):
            return operator(*args)
        return launch(*args)

    return piece


def _traced(tensor: Tensor) -> bool:
    """A fake tensor, or somebody watches every operation."""
    return type(tensor) is not Tensor or torch._C._len_torch_dispatch_stack() > 0


quantise_rows = cast(
    "Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]",
    _piece(_launch_quantise_rows, _fake_quantise_rows),
)
"""``(x, fold) -> (packed, step)``: rows of (N, I), times ``fold`` (I,) if given, in int8 with steps (N, 1)."""

TRITON = Pieces(
    name="triton",
    norm_modulate=_piece(_launch_norm_modulate, _fake_norm_modulate),
    norm_modulate_backward=_piece(_launch_norm_modulate_backward),
    rotate_heads=_piece(_launch_rotate_heads),
    rotate_heads_backward=_piece(_launch_rotate_heads_backward),
    gelu=_piece(_launch_gelu),
    gelu_backward=_piece(_launch_gelu_backward),
    gate_residual=_piece(_launch_gate_residual),
    gate_backward=_piece(_launch_gate_backward, _fake_gate_backward),
    gelu_both=_piece(_launch_gelu_both),
)
"""The fused kernels: each tensor read and written once, one launch a piece."""
