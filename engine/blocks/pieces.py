"""The elementwise pieces between a block's products, each with its backward: one table, eager here.

Owns what moves memory and makes no product: norm and modulation, heads with their RMS norm and rotary angles, gelu,
gate and residual. A block function takes them from a table (:class:`Pieces`), so that fused kernels can stand in for
the eager ones, which are the reference. Arithmetic is float32 whatever the storage; results are written straight to
where the next product reads them, so no piece is followed by a concatenation.

Shape suffixes: B samples, L tokens, D width, H heads, K head width (D = H*K), M width of the MLP. "Row-strided": the
last axis is contiguous, the strides of B and L are free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6
"""Added to the variance in both norms, as in black-forest-labs/flux."""

_aten = torch.ops.aten


@dataclass(frozen=True)
class Pieces:
    """One implementation of every piece. ``out`` buffers are written wholly and never read.

    Attributes:
        name: what a log calls it.
        norm_modulate: ``(x, shift, scale) -> (y, mean, rstd)``: ``(1 + scale) * LayerNorm(x) + shift`` of (B, L, D),
            row-strided, with shift and scale (B, D); y is contiguous, mean and rstd are (B, L) float32.
        norm_modulate_backward: ``(dy, x, scale, mean, rstd, residual, out)``: out = residual + dx, all (B, L, D), dy
            contiguous and the others row-strided; residual may be None.
        rotate_heads: ``(qkv, query_scale, key_scale, rotary, q, k, v)``: splits (B, L, 3D), row-strided, with rows
            ordered (q k v)(head)(width), norms and rotates queries and keys into q and k (B, L, H, K), copies values
            into v unless that is None. The scales are (K,), rotary is (2, B or 1, L, K/2) float32, cosines first.
        rotate_heads_backward: ``(dq, dk, dv, qkv, query_scale, key_scale, rotary, out)``: the gradients are
            (B, L, H, K) with a contiguous last axis, out is that of qkv and may be qkv's own memory; the norms'
            statistics are formed again.
        gelu: ``(m, out)``: the tanh form of (B, L, M), both row-strided.
        gelu_backward: ``(dy, m, out)``: all row-strided; out may be m's own memory.
        gate_residual: ``(x, gate, y, out)``: out = x + gate * y with gate (B, D), y contiguous.
        gate_backward: ``(dout, gate) -> dy``: gate * dout, contiguous.
        gelu_both: ``(dy, m, active, out)``: active = gelu(m), contiguous, and out = the gradient of m, which may be
            m's own memory, in one pass; None makes them one after the other.
    """

    name: str
    norm_modulate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    norm_modulate_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor], None]
    rotate_heads: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], None]
    rotate_heads_backward: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]
    gelu: Callable[[Tensor, Tensor], None]
    gelu_backward: Callable[[Tensor, Tensor, Tensor], None]
    gate_residual: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    gate_backward: Callable[[Tensor, Tensor], Tensor]
    gelu_both: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None


def _norm_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if torch.compiler.is_compiling():
        wide = x.float()
        variance, mean = torch.var_mean(wide, -1, correction=0)
        rstd = torch.rsqrt(variance + EPS)
        normed = (wide - mean[..., None]) * rstd[..., None]
        return (normed * (1 + scale.float())[:, None] + shift.float()[:, None]).to(x.dtype), mean, rstd
    batch, length, width = x.shape
    gain, bias = _gain(x, scale), shift.to(_vector_dtype(x))
    if batch == 1:
        y, mean, rstd = _aten.native_layer_norm(x, (width,), gain[0], bias[0].contiguous(), EPS)
        return y, mean[..., 0], rstd[..., 0]
    y = x.new_empty(x.shape)
    mean, rstd = (x.new_empty(batch, length, 1, dtype=torch.float32) for _ in range(2))
    for n in range(batch):
        _aten.native_layer_norm.out(
            x[n], (width,), gain[n], bias[n].contiguous(), EPS, out0=y[n], out1=mean[n], out2=rstd[n]
        )
    return y, mean[..., 0], rstd[..., 0]


def _norm_modulate_backward(
    dy: Tensor, x: Tensor, scale: Tensor, mean: Tensor, rstd: Tensor, residual: Tensor | None, out: Tensor
) -> None:
    if torch.compiler.is_compiling():
        wide = dy.float() * (1 + scale.float())[:, None]
        normed = (x.float() - mean[..., None]) * rstd[..., None]
        wide = wide - wide.mean(-1, keepdim=True) - normed * (wide * normed).mean(-1, keepdim=True)
        wide = wide * rstd[..., None]
        out.copy_(wide if residual is None else wide + residual)
        return
    gain = _gain(x, scale)
    for n in range(x.shape[0]):
        dx = _aten.native_layer_norm_backward(
            dy[n], x[n], (x.shape[-1],), mean[n][:, None], rstd[n][:, None], gain[n], None, [True, False, False]
        )[0]
        if residual is None:
            out[n].copy_(dx)
        else:
            torch.add(dx, residual[n], out=out[n])


def _vector_dtype(x: Tensor) -> torch.dtype:
    # The CPU's norm keeps float32 statistics only beside float32 vectors, a GPU's takes vectors of its input's type.
    return torch.float32 if x.device.type == "cpu" else x.dtype


def _gain(x: Tensor, scale: Tensor) -> Tensor:
    return (1 + scale.float()).to(_vector_dtype(x))


def modulate_rows_backward(dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (B, D), float32, of shift and scale: only asked for by adapters on modulation layers."""
    wide = dy.float()
    normed = (x.float() - mean[..., None]).mul_(rstd[..., None])
    return wide.sum(1), normed.mul_(wide).sum(1)


def gate_rows_backward(dout: Tensor, y: Tensor) -> Tensor:
    """Gradient (B, D), float32, of a gate: only asked for by adapters on modulation layers."""
    return (dout.float() * y.float()).sum(1)


def _rotate_heads(
    qkv: Tensor, query_scale: Tensor, key_scale: Tensor, rotary: Tensor, q: Tensor, k: Tensor, v: Tensor | None
) -> None:
    parts = qkv.unflatten(-1, (3, q.shape[2], q.shape[3]))
    for part, scale, out in ((parts[:, :, 0], query_scale, q), (parts[:, :, 1], key_scale, k)):
        normed, _ = _normed(part)
        out.copy_(_turn(normed.mul_(scale.float()), rotary))
    if v is not None:
        v.copy_(parts[:, :, 2])


def _rotate_heads_backward(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    qkv: Tensor,
    query_scale: Tensor,
    key_scale: Tensor,
    rotary: Tensor,
    out: Tensor,
) -> None:
    shape = (3, dq.shape[2], dq.shape[3])
    parts, outs = qkv.unflatten(-1, shape), out.unflatten(-1, shape)
    back = torch.stack((rotary[0], -rotary[1]))
    if torch.compiler.is_compiling():
        # One write: in a graph each write to a slice copies the whole buffer.
        done = []
        for n, (grad, scale) in enumerate(((dq, query_scale), (dk, key_scale))):
            turned = _turn(grad.float(), back) * scale.float()
            normed, rstd = _normed(parts[:, :, n])
            grown = (turned - normed * (turned * normed).mean(-1, keepdim=True)) * rstd
            done.append(grown.to(out.dtype).flatten(2))
        out.copy_(torch.cat((*done, dv.flatten(2)), dim=-1))
        return
    for n, (grad, scale) in enumerate(((dq, query_scale), (dk, key_scale))):
        turned = _turn(grad.float(), back).mul_(scale.float())
        normed, rstd = _normed(parts[:, :, n])
        mean = (turned * normed).mean(-1, keepdim=True)
        outs[:, :, n].copy_(turned.sub_(normed.mul_(mean)).mul_(rstd))
    outs[:, :, 2].copy_(dv)


def _normed(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x / rms(x)`` over the last axis, float32, fresh memory; and the factor."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    rstd = torch.rsqrt(norm.square() / x.shape[-1] + EPS)
    return x * rstd, rstd


def _turn(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate adjacent pairs of (B, L, H, K) float32 by (2, B or 1, L, K/2)."""
    cos, sin = rotary[0][:, :, None], rotary[1][:, :, None]
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        even, odd = pairs.unbind(-1)
        return torch.stack((cos * even - sin * odd, sin * even + cos * odd), dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin)).flatten(-2)


def _gelu(m: Tensor, out: Tensor) -> None:
    if torch.compiler.is_compiling():
        out.copy_(F.gelu(m, approximate="tanh"))
        return
    _aten.gelu.out(m, approximate="tanh", out=out)


def _gelu_backward(dy: Tensor, m: Tensor, out: Tensor) -> None:
    if torch.compiler.is_compiling():
        out.copy_(_aten.gelu_backward(dy, m, approximate="tanh"))
        return
    _aten.gelu_backward.grad_input(dy, m, approximate="tanh", grad_input=out)


def _gate_residual(x: Tensor, gate: Tensor, y: Tensor, out: Tensor) -> None:
    if torch.compiler.is_compiling():
        out.copy_(torch.addcmul(x, gate[:, None], y))
        return
    torch.addcmul(x, gate[:, None], y, out=out)


def _gate_backward(dout: Tensor, gate: Tensor) -> Tensor:
    return torch.mul(dout, gate[:, None]).contiguous()


EAGER = Pieces(
    name="eager",
    norm_modulate=_norm_modulate,
    norm_modulate_backward=_norm_modulate_backward,
    rotate_heads=_rotate_heads,
    rotate_heads_backward=_rotate_heads_backward,
    gelu=_gelu,
    gelu_backward=_gelu_backward,
    gate_residual=_gate_residual,
    gate_backward=_gate_backward,
)
"""Torch's own kernels, on any device: the reference."""
