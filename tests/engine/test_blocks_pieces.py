"""The elementwise pieces equal the plain model's arithmetic and its autograd, on slices of wider buffers too."""

from __future__ import annotations

import pytest
import torch
from flux_steps import error
from torch import Tensor
from torch.nn import functional as F

from engine.blocks.pieces import (
    EAGER,
    gate_rows_backward,
    modulate_rows_backward,
)
from engine.models.flux import apply_rotary, modulate

BATCH, LENGTH, HEADS, WIDTH = 2, 9, 3, 8
DIM = HEADS * WIDTH


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(4)


def inside(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random values in the middle of a wider buffer: the last axis is contiguous, the others are not."""
    buffer = torch.randn(shape[0], shape[1] + 3, shape[2] + 5, dtype=dtype)
    return buffer[:, 2 : 2 + shape[1], 1 : 1 + shape[2]]


def rows(count: int) -> tuple[Tensor, ...]:
    return torch.randn(BATCH, count, DIM).unbind(1)


def table() -> Tensor:
    angles = torch.randn(BATCH, LENGTH, WIDTH // 2)
    return torch.stack([angles.cos(), angles.sin()])


def test_norm_and_modulation() -> None:
    x, residual, grad = inside(BATCH, LENGTH, DIM), inside(BATCH, LENGTH, DIM), torch.randn(BATCH, LENGTH, DIM)
    shift, scale = rows(2)
    leaves = [t.clone().requires_grad_() for t in (x, shift, scale)]
    wanted = modulate(leaves[0], leaves[1][:, None], leaves[2][:, None])
    wanted.backward(grad)

    y, mean, rstd = EAGER.norm_modulate(x, shift, scale)
    assert y.is_contiguous() and error(y, wanted.detach()) < 1e-6
    assert mean.shape == rstd.shape == (BATCH, LENGTH) and mean.dtype == torch.float32
    out = inside(BATCH, LENGTH, DIM)
    EAGER.norm_modulate_backward(grad, x, scale, mean, rstd, residual, out)
    assert error(out, leaves[0].grad + residual) < 1e-6
    EAGER.norm_modulate_backward(grad, x, scale, mean, rstd, None, out)
    assert error(out, leaves[0].grad) < 1e-6
    dshift, dscale = modulate_rows_backward(grad, x, mean, rstd)
    assert error(dshift, leaves[1].grad) < 1e-6 and error(dscale, leaves[2].grad) < 1e-6


def plain_heads(qkv: Tensor, scales: tuple[Tensor, Tensor], rotary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, L, H, K) as the plain model makes them."""
    q, k, v = qkv.unflatten(-1, (3, HEADS, WIDTH)).unbind(2)
    turned = []
    for x, scale in zip((q, k), scales, strict=True):
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * scale
        turned.append(apply_rotary(normed.transpose(1, 2), rotary[:, :, None]).transpose(1, 2))
    return turned[0], turned[1], v


@pytest.mark.parametrize("in_place", [False, True])
def test_heads(in_place: bool) -> None:
    qkv, rotary = inside(BATCH, LENGTH, 3 * DIM), table()
    scales = torch.randn(WIDTH), torch.randn(WIDTH)
    grads = [torch.randn(BATCH, HEADS, LENGTH, WIDTH).transpose(1, 2) for _ in range(3)]
    leaf = qkv.clone().requires_grad_()
    wanted = plain_heads(leaf, scales, rotary)
    torch.autograd.backward(wanted, grads)

    buffers = [torch.empty(BATCH, LENGTH + 4, HEADS, WIDTH)[:, 4:] for _ in range(3)]
    EAGER.rotate_heads(qkv, *scales, rotary, *buffers)
    for found, want in zip(buffers, wanted, strict=True):
        assert error(found, want.detach()) < 1e-6
    out = qkv if in_place else inside(BATCH, LENGTH, 3 * DIM)
    EAGER.rotate_heads_backward(*grads, qkv, *scales, rotary, out)
    assert error(out, leaf.grad) < 1e-6


@pytest.mark.parametrize("in_place", [False, True])
def test_gelu(in_place: bool) -> None:
    m, grad, out = (inside(BATCH, LENGTH, 10) for _ in range(3))
    leaf = m.clone().requires_grad_()
    wanted = F.gelu(leaf, approximate="tanh")
    wanted.backward(grad)
    EAGER.gelu(m, out)
    assert error(out, wanted.detach()) < 1e-6
    EAGER.gelu_backward(grad, m, m if in_place else out)
    assert error(m if in_place else out, leaf.grad) < 1e-6


def test_gate_and_residual() -> None:
    x, out, grad = (inside(BATCH, LENGTH, DIM) for _ in range(3))
    y, (gate,) = torch.randn(BATCH, LENGTH, DIM), rows(1)
    EAGER.gate_residual(x, gate, y, out)
    assert error(out, x + gate[:, None] * y) < 1e-6
    dy = EAGER.gate_backward(grad, gate)
    assert dy.is_contiguous() and torch.equal(dy, gate[:, None] * grad)
    assert error(gate_rows_backward(grad, y), (grad * y).sum(1)) < 1e-6


def test_in_bfloat16_statistics_stay_float32() -> None:
    x, (shift, scale) = inside(BATCH, LENGTH, DIM, dtype=torch.bfloat16), (r.bfloat16() for r in rows(2))
    y, mean, rstd = EAGER.norm_modulate(x, shift, scale)
    assert y.dtype == torch.bfloat16 and mean.dtype == rstd.dtype == torch.float32
    wanted = modulate(x.float(), shift.float()[:, None], scale.float()[:, None])
    assert error(y, wanted) < 3e-3
