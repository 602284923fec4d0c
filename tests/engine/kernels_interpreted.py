"""Runs the kernels under Triton's interpreter and prints what came out as JSON; started by test_blocks_kernels.

A process of its own, because the interpreter is chosen by an environment variable when kernels are defined and stays
for the life of the process.
"""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from flux_steps import SMALL, error, make_step, worst
from torch import Tensor
from torch._subclasses import FakeTensorMode

from engine.blocks.kernels_choice import disagreement
from engine.blocks.kernels_launch import TRITON, quantise_rows
from engine.blocks.kernels_traffic import ACCESS
from engine.blocks.pieces import EAGER, Pieces
from engine.blocks.transformer import LeanFlux

SHAPES = {
    "odd": (2, 3, 3, 10, 37),
    "one token": (3, 1, 1, 14, 1),
    "wide": (1, 2, 24, 128, 12288),
}
"""Samples, tokens, heads, head width, width of the MLP."""


def relative(value: Tensor, wanted: Tensor) -> float:
    return float((value.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-30))


def two_pieces(pieces: Pieces) -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    """What ``gelu_both`` does, by the two pieces."""

    def run(dy: Tensor, m: Tensor, active: Tensor, out: Tensor) -> None:
        pieces.gelu(m, active)
        pieces.gelu_backward(dy, m, out)

    return run


def outcome(pieces: Pieces, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every piece on views with strides of their own; whole buffers come back, so stray writes show."""
    batch, tokens, heads, width, hidden = shape
    dim, draws = heads * width, torch.Generator().manual_seed(1)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=draws).to(dtype)

    def room(*size: int) -> Tensor:
        return torch.zeros(size, dtype=dtype)

    big, vectors = draw(batch, tokens + 4, 7 * dim + hidden), draw(batch, 6, dim)
    x, residual, branch = (
        big[:, 2 : 2 + tokens, :dim],
        big[:, 1 : 1 + tokens, dim : 2 * dim],
        draw(batch, tokens, dim),
    )
    qkv, m = big[:, :tokens, 2 * dim : 5 * dim], big[:, 3 : 3 + tokens, 5 * dim : 5 * dim + hidden]
    shift, scale, gate = vectors.unbind(1)[1:4]
    scales = draw(2, width).unbind(0)
    got = {}
    got["y"], got["mean"], got["rstd"] = y, mean, rstd = pieces.norm_modulate(x, shift, scale)
    for name, skip in (("norm back", residual), ("norm back alone", None)):
        got[name] = room(batch, tokens + 3, dim)
        pieces.norm_modulate_backward(branch, x, scale, mean, rstd, skip, got[name][:, 1 : 1 + tokens])
    grads = draw(3, batch, heads, tokens + 1, width).transpose(2, 3)[:, :, 1:]
    for name, samples in (("one table", 1), ("a table each", batch)):
        angles = torch.randn(samples, tokens + 2, width // 2, generator=draws)
        rotary = torch.stack((angles.cos(), angles.sin()))[:, :, 1 : 1 + tokens]
        q, k, v = (room(batch, tokens + 2, heads, width) for _ in range(3))
        pieces.rotate_heads(qkv, *scales, rotary, q[:, 2:], k[:, 2:], v[:, 2:] if samples == 1 else None)
        got |= {f"q {name}": q, f"k {name}": k, f"v {name}": v, f"heads back {name}": room(batch, tokens, 7 * dim)}
        target = got[f"heads back {name}"][..., dim : 4 * dim]
        pieces.rotate_heads_backward(*grads.unbind(0), qkv, *scales, rotary, target)
        # In place: what was formed again is overwritten by its own gradient.
        again = qkv.clone()
        pieces.rotate_heads_backward(*grads.unbind(0), again, *scales, rotary, again)
        got[f"heads back in place {name}"] = again
    got["gelu"], got["gelu back"] = (room(batch, tokens, dim + hidden) for _ in range(2))
    pieces.gelu(m, got["gelu"][..., dim:])
    pieces.gelu_backward(draw(batch, tokens, dim + hidden)[..., dim:], m, got["gelu back"][..., dim:])
    again, got["gelu again"] = m.clone(), torch.empty_like(m)
    both = pieces.gelu_both or two_pieces(pieces)
    both(got["gelu"][..., dim:], again, got["gelu again"], again)
    got["gelu back in place"] = again
    got["gate"] = room(batch, tokens + 1, dim)
    pieces.gate_residual(x, gate, branch, got["gate"][:, 1:])
    got["gate back"] = pieces.gate_backward(residual, gate)
    assert y.is_contiguous()
    assert got["gate back"].is_contiguous()
    return got


def pieces_against_eager() -> dict[str, dict[str, float]]:
    found = {}
    for name, shape in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            # The reference of 16-bit storage is float32 arithmetic on the same 16-bit numbers, rounded once.
            fused, eager = outcome(TRITON, shape, dtype), outcome(EAGER, shape, dtype)
            found[f"{name} {str(dtype).removeprefix('torch.')}"] = {
                key: relative(value, eager[key]) for key, value in fused.items()
            }
    return found


def int8() -> dict[str, Any]:
    torch.manual_seed(0)
    wide, fold = torch.randn(5, 100)[:, :80], torch.rand(80)
    folded, folded_step = quantise_rows(wide, fold)
    product = wide * fold
    size = product.abs().amax(1, keepdim=True) / 127
    exact = torch.round(product / folded_step).to(torch.int8)
    broken = torch.tensor([[1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0], [-float("inf"), 0.0, 0.0]])
    return {
        "step": relative(folded_step, size),
        "other integers": int((folded != exact).sum()),
        "zero rows": [float(t.abs().max()) for t in quantise_rows(torch.zeros(2, 8), None)],
        "broken rows": int(quantise_rows(broken, None)[1].isfinite().sum()),
        "halves": quantise_rows(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]), None)[0][0].tolist(),
    }


def traced() -> dict[str, Any]:
    """The operators under fake tensors and inside a compiled function (dynamo and its functions, no code made)."""

    def chain(x: Tensor, vectors: Tensor) -> Tensor:
        y, _, _ = TRITON.norm_modulate(x, vectors[:, 0], vectors[:, 1])
        joint = torch.empty(x.shape[0], x.shape[1], 2 * x.shape[2], dtype=x.dtype, device=x.device)
        TRITON.gelu(y, joint[..., x.shape[2] :])
        TRITON.gate_residual(x, vectors[:, 2], y, joint[..., : x.shape[2]])
        return joint

    with FakeTensorMode():
        fake = chain(torch.empty(2, 4608, 3072, dtype=torch.bfloat16), torch.empty(2, 3, 3072, dtype=torch.bfloat16))
    graphs: list[Any] = []

    def backend(module: Any, inputs: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.common import aot_autograd

        def keep(inner: Any, _: Any) -> Any:
            graphs.append({name for name in ACCESS if f"lorakiln.{name}.default" in inner.code})
            return inner

        return aot_autograd(fw_compiler=keep)(module, inputs)

    compiled = torch.compile(chain, backend=backend, fullgraph=True, dynamic=True)
    differences = []
    for tokens in (5, 6, 7):
        x, vectors = torch.randn(2, tokens, 24), torch.randn(2, 3, 24)
        with torch.no_grad():
            differences.append(relative(compiled(x, vectors), chain(x, vectors)))
    return {
        "fake": list(fake.shape),
        "graphs": len(graphs),
        "operators": sorted(graphs[0]),
        "error": max(differences),
    }


def whole_step() -> dict[str, float]:
    """A small transformer's velocity and LoRA gradients with these pieces against the plain model's."""
    small = replace(SMALL, depth=1, depth_single_blocks=1)
    step = make_step(small, batch=2, text=3, size=(4, 4), masked=True)
    wanted = step.run(step.model)
    lean = LeanFlux.from_plain(step.model, step.lora, checkpointing="attention")
    lean.pieces = TRITON
    found = step.run(lean)
    return {"velocity": error(found[0], wanted[0]), "gradients": worst(found[1], wanted[1])}


def main() -> None:
    found: dict[str, Any] = {
        "pieces": pieces_against_eager(),
        "int8": int8(),
        "traced": traced(),
        "step": whole_step(),
        "proof": [disagreement(TRITON, torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
