"""Attention with an explicit backward: the fused kernels called by name, one of them chosen once.

Torch's ``scaled_dot_product_attention`` hides what its backward needs inside autograd; a block with a hand-written
backward must hold that itself, keep it or form it again. So the kernels are called as operators, forward and
backward, and :func:`choose` says which one a device, a dtype and a mask get, and why not a faster one.

Shape suffixes: B samples, H heads, L tokens, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

_aten = torch.ops.aten

Extra = tuple[Tensor, ...]
"""What a backward needs besides queries, keys, values and output: the log-sum-exps, then a kernel's own."""


@dataclass(frozen=True)
class Attention:
    """One kernel and its backward, without dropout and causality, at scale 1/sqrt(K).

    Attributes:
        name: what a log calls it.
        forward: ``(q, k, v, bias) -> (out, extra)``; all (B, H, L, K) with a contiguous last axis; bias is what
            :func:`bias_of` made, or None; out lies in memory as (B, L, H, K) where the kernel lets it.
        backward: ``(dout, q, k, v, bias, out, extra) -> (dq, dk, dv)``.
        aligned: columns the bias's rows must be a multiple of.
    """

    name: str
    forward: Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Extra]]
    backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Extra], tuple[Tensor, Tensor, Tensor]]
    aligned: int = 1


@dataclass(frozen=True)
class Choice:
    """The kernel taken, and why each faster one was not (empty when the fastest was)."""

    attention: Attention
    reason: str = ""


def bias_of(mask: Tensor | None, dtype: torch.dtype, attention: Attention) -> Tensor | None:
    """An additive bias (B, 1, 1, L) from a boolean mask of that shape, True where a key is attended."""
    if mask is None:
        return None
    length = mask.shape[-1]
    padded = -(-length // attention.aligned) * attention.aligned
    # Rows that a kernel reads in vectors need the room; the columns beyond the last key are sliced off again.
    bias = torch.zeros(*mask.shape[:-1], padded, dtype=dtype, device=mask.device)[..., :length]
    return bias.masked_fill_(~mask, -math.inf)


def _spread(bias: Tensor | None, q: Tensor) -> Tensor | None:
    return None if bias is None else bias.expand(q.shape[0], q.shape[1], q.shape[2], -1)


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Extra]:
    out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias)
    return out, (lse,)


def _cpu_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, extra: Extra
) -> tuple[Tensor, Tensor, Tensor]:
    return _aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dout, q, k, v, out, extra[0], 0.0, False, attn_mask=bias
    )


def _cudnn_forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Extra]:
    found = _aten._scaled_dot_product_cudnn_attention(q, k, v, _spread(bias, q), True)
    return found[0], (found[1], found[6], found[7])


def _cudnn_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, extra: Extra
) -> tuple[Tensor, Tensor, Tensor]:
    lse, seed, offset = extra
    lengths = q.shape[2], k.shape[2]
    return _aten._scaled_dot_product_cudnn_attention_backward(
        dout, q, k, v, out, lse, seed, offset, _spread(bias, q), None, None, *lengths, 0.0, False
    )


def _flash_forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Extra]:
    found = _aten._scaled_dot_product_flash_attention(q, k, v)
    return found[0], (found[1], found[6], found[7])


def _flash_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, extra: Extra
) -> tuple[Tensor, Tensor, Tensor]:
    lse, state, unused = extra
    lengths = q.shape[2], k.shape[2]
    return _aten._scaled_dot_product_flash_attention_backward(
        dout, q, k, v, out, lse, None, None, *lengths, 0.0, False, state, unused
    )


def _efficient_forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Extra]:
    out, lse, seed, offset = _aten._scaled_dot_product_efficient_attention(q, k, v, _spread(bias, q), True)
    return out, (lse, seed, offset)


def _efficient_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, extra: Extra
) -> tuple[Tensor, Tensor, Tensor]:
    lse, seed, offset = extra
    wanted = [True, True, True, False]
    return _aten._scaled_dot_product_efficient_attention_backward(
        dout, q, k, v, _spread(bias, q), out, lse, seed, offset, 0.0, wanted
    )[:3]


ROWS = 1024
"""Queries whose scores the plain fallback holds at a time."""


def _plain_forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> tuple[Tensor, Extra]:
    scale = 1 / math.sqrt(q.shape[-1])
    # In memory as (B, L, H, K), so that heads join without a copy.
    out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
    sums = []
    for start in range(0, q.shape[2], ROWS):
        scores = _scores(q[:, :, start : start + ROWS], k, bias, scale)
        lse = torch.logsumexp(scores, -1, keepdim=True)
        out[:, :, start : start + ROWS] = scores.sub_(lse).exp_().to(v.dtype) @ v
        sums.append(lse)
    return out, (torch.cat(sums, dim=2),)


def _plain_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, extra: Extra
) -> tuple[Tensor, Tensor, Tensor]:
    scale = 1 / math.sqrt(q.shape[-1])
    dq, dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k, v))
    wide_k, wide_v = k.float(), v.float()
    for start in range(0, q.shape[2], ROWS):
        rows = slice(start, start + ROWS)
        grad, queries = dout[:, :, rows].float(), q[:, :, rows].float()
        weights = _scores(queries, wide_k, bias, scale).sub_(extra[0][:, :, rows]).exp_()
        dv += weights.mT @ grad
        inner = (grad * out[:, :, rows].float()).sum(-1, keepdim=True)
        dscores = (grad @ wide_v.mT).sub_(inner).mul_(weights).mul_(scale)
        dq[:, :, rows] = dscores @ wide_k
        dk += dscores.mT @ queries
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = (q @ k.mT).float().mul_(scale)
    return scores if bias is None else scores.add_(bias)


CPU = Attention("flash (CPU)", _cpu_forward, _cpu_backward)
CUDNN = Attention("cuDNN", _cudnn_forward, _cudnn_backward, aligned=16)
FLASH = Attention("flash", _flash_forward, _flash_backward)
EFFICIENT = Attention("memory-efficient", _efficient_forward, _efficient_backward, aligned=16)
PLAIN = Attention("plain", _plain_forward, _plain_backward)
"""Products and a softmax with float32 statistics: for devices and dtypes that no fused kernel knows."""


def choose(device: torch.device, dtype: torch.dtype, head: int, masked: bool) -> Choice:
    """The kernel for a device, a dtype, a head width and whether keys are masked.

    On a GPU each is tried once on a small input and must agree with the plain one. cuDNN's is the fastest on Hopper
    and later, flash before; flash knows no mask. Under torch's deterministic algorithms cuDNN's is left out: the
    others have a backward that adds up in a fixed order, cuDNN's has none.
    """
    return _chosen(device, dtype, head, masked, torch.are_deterministic_algorithms_enabled())


@cache
def _chosen(device: torch.device, dtype: torch.dtype, head: int, masked: bool, deterministic: bool) -> Choice:
    if device.type == "cpu":
        return Choice(CPU)
    if device.type != "cuda":
        return Choice(PLAIN, f"no fused kernel for {device.type}")
    hopper = torch.cuda.get_device_capability(device)[0] >= 9
    order = (CUDNN, FLASH, EFFICIENT) if hopper else (FLASH, EFFICIENT, CUDNN)
    left_out = {FLASH: masked, CUDNN: deterministic}
    choice = first_sound([kernel for kernel in order if not left_out.get(kernel)], device, dtype, head, masked)
    if not (deterministic and hopper):
        return choice
    return Choice(
        choice.attention, "; ".join(filter(None, ("cuDNN: its backward is not deterministic", choice.reason)))
    )


def first_sound(
    kernels: Sequence[Attention], device: torch.device, dtype: torch.dtype, head: int, masked: bool
) -> Choice:
    """The first kernel that runs and agrees with the plain one, which is taken when none does."""
    refused: list[str] = []
    for kernel in kernels:
        problem = _problem(kernel, device, dtype, head, masked)
        if not problem:
            return Choice(kernel, "; ".join(refused))
        refused.append(f"{kernel.name}: {problem}")
    return Choice(PLAIN, "; ".join(refused))


AGREES = 0.03
"""Relative difference from the plain kernel that rounding to bfloat16 explains; a wrong result is far above."""


def _problem(kernel: Attention, device: torch.device, dtype: torch.dtype, head: int, masked: bool) -> str:
    """What goes wrong on a small input, forward or backward; empty when nothing does."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (2, 136, 2, head)
    q, k, v, grad = (
        torch.randn(shape, generator=generator, device=device, dtype=dtype).transpose(1, 2) for _ in range(4)
    )
    mask = None
    if masked:
        lengths = torch.tensor([[[[100]]], [[[136]]]], device=device)
        mask = torch.arange(shape[1], device=device) < lengths
    try:
        found, wanted = (_both_ways(each, q, k, v, grad, mask) for each in (kernel, PLAIN))
    except (RuntimeError, NotImplementedError) as err:
        return (str(err).strip().splitlines() or [type(err).__name__])[0][:200]
    off = max(
        float((one.float() - other.float()).norm() / other.float().norm())
        for one, other in zip(found, wanted, strict=True)
    )
    return "" if off <= AGREES else f"differs from the plain one by {off:.1%}"


def _both_ways(
    kernel: Attention, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, mask: Tensor | None
) -> tuple[Tensor, ...]:
    bias = bias_of(mask, q.dtype, kernel)
    out, extra = kernel.forward(q, k, v, bias)
    return out, *kernel.backward(grad, q, k, v, bias, out, extra)
