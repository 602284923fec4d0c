"""Which table of pieces a device gets: the fused kernels where they prove themselves, torch's own otherwise.

The proof is a run on the device: every kernel on a small odd-shaped input against the eager reference. It costs a few
seconds the first time (Triton compiles), little after that (Triton keeps what it compiled on disk).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.blocks.pieces import EAGER, Pieces
from engine.memory.refusals import in_a_line, kernel_errors

CAPABILITY = (7, 5)
"""The oldest GPUs Triton's kernels are meant for (Turing)."""

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Largest relative difference to the eager pieces in a proof."""


class Chosen(NamedTuple):
    """A table, what to call it, and why it is not the fused one (empty when it is)."""

    pieces: Pieces
    name: str
    reason: str


def choose_pieces(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Chosen:
    """The fastest pieces that work on ``device`` in ``dtype``."""
    pieces, reason = _fused(device, dtype)
    if pieces is None:
        return Chosen(EAGER, EAGER.name, f"fused kernels are off: {reason}")
    return Chosen(pieces, pieces.name, "")


def _fused(device: torch.device, dtype: torch.dtype) -> tuple[Pieces | None, str]:
    if device.type != "cuda":
        return None, f"they need a CUDA device, this is {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return None, f"compute capability {capability[0]}.{capability[1]}, they need {CAPABILITY[0]}.{CAPABILITY[1]}"
    if dtype not in TOLERANCE:
        return None, f"no kernels for {dtype}"
    try:
        from engine.blocks.kernels_launch import TRITON
    except ImportError as err:
        return None, f"triton cannot be loaded ({err})"
    try:
        problem = disagreement(TRITON, device, dtype)
    except kernel_errors() as err:
        # No compiler for Triton's launcher, a driver too old, a kernel that does not build.
        return None, f"they do not run here ({in_a_line(err)})"
    return (None, problem) if problem else (TRITON, "")


def disagreement(pieces: Pieces, device: torch.device, dtype: torch.dtype) -> str:
    """In which piece a table differs from the eager one on a small input, and by how much; empty when in none."""
    found, wanted = _sample(pieces, device, dtype), _sample(EAGER, device, dtype)
    for name, value in found.items():
        error = _difference(value, wanted[name])
        if not error <= TOLERANCE[dtype]:
            return f"{name} differs from torch's own by {error:.1e}"
    return ""


def _difference(value: Tensor, wanted: Tensor) -> float:
    value, wanted = value.double(), wanted.double()
    return float((value - wanted).norm() / wanted.norm())


def _sample(pieces: Pieces, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every piece once, on views as a block has them, of sizes that are no powers of two."""
    batch, tokens, heads, width, hidden = 2, 5, 3, 16, 72
    dim = heads * width
    draws = torch.Generator().manual_seed(0)

    def draw(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, generator=draws).to(device, kind)

    joint, wide = draw(batch, tokens + 3, dim), draw(batch, tokens, 3 * dim + hidden)
    x, qkv, m = joint[:, 3:], wide[..., : 3 * dim], wide[..., 3 * dim :]
    shift, scale, gate = draw(batch, 3, dim).unbind(1)
    query_scale, key_scale = draw(2, width)
    angles = draw(1, tokens, width // 2, kind=torch.float32)
    rotary = torch.stack((angles.cos(), angles.sin()))
    grads = draw(3, batch, tokens, heads, width)
    inner, dwide = torch.empty_like(draw(batch, tokens, dim + hidden)), torch.empty_like(wide)
    heads_out = torch.empty_like(grads)
    moved, grown = torch.empty_like(joint), torch.empty_like(joint)

    y, mean, rstd = pieces.norm_modulate(x, shift, scale)
    pieces.norm_modulate_backward(y, x, scale, mean, rstd, joint[:, :tokens], moved[:, 3:])
    q, k, v = heads_out.unbind(0)
    pieces.rotate_heads(qkv, query_scale, key_scale, rotary, q, k, v)
    dq, dk, dv = grads.unbind(0)
    pieces.rotate_heads_backward(dq, dk, dv, qkv, query_scale, key_scale, rotary, dwide[..., : 3 * dim])
    pieces.gelu(m, inner[..., dim:])
    pieces.gelu_backward(inner[..., dim:], m, dwide[..., 3 * dim :])
    pieces.gate_residual(x, gate, y, grown[:, 3:])
    active, dactive = torch.empty_like(m), m.clone()
    if pieces.gelu_both is not None:
        pieces.gelu_both(inner[..., dim:], m, active, dactive)
    else:
        pieces.gelu(m, active)
        pieces.gelu_backward(inner[..., dim:], m, dactive)
    return {
        "norm_modulate": y,
        "norm_modulate_backward": moved[:, 3:],
        "rotate_heads": heads_out,
        "rotate_heads_backward": dwide[..., : 3 * dim],
        "gelu": inner[..., dim:],
        "gelu_backward": dwide[..., 3 * dim :],
        "gelu_both": torch.cat((active, dactive)),
        "gate_residual": grown[:, 3:],
        "gate_backward": pieces.gate_backward(x, gate),
    }
