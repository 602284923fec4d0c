"""Fused kernels, compiled blocks and recorded steps on a GPU, against torch's own pieces run eagerly.

One command: ``python -m pytest -m gpu -s tests/gpu/test_kernels_gpu.py``; it prints bandwidths. About two minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.blocks.compile import CompiledBlocks
from engine.blocks.graphs import CudaGraphs, StepGraphs
from engine.blocks.kernels_choice import TOLERANCE, choose_pieces, disagreement
from engine.blocks.kernels_traffic import moved
from engine.blocks.pieces import EAGER, Pieces
from engine.blocks.transformer import LeanFlux
from tests.engine.flux_steps import SMALL, error, make_step, worst
from tests.gpu.test_blocks_gpu import on_gpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

WIDE = replace(SMALL, hidden_size=256, num_heads=2, axes_dim=(16, 56, 56))
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_kernels_prove_themselves(dtype: torch.dtype) -> None:
    chosen = choose_pieces(CUDA, dtype)
    assert chosen.name == "triton", chosen.reason
    assert disagreement(chosen.pieces, CUDA, dtype) == ""


def milliseconds(run: Callable[[], Any], times: int = 50) -> float:
    for _ in range(5):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / times


def calls(pieces: Pieces) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Every piece with arguments of FLUX's single block at 1024 px."""
    tokens, dim, heads = 4608, 3072, 24
    x, y, out = (torch.randn(1, tokens, dim, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    wide, dwide = (torch.randn(1, tokens, 7 * dim, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    inner = torch.randn(1, tokens, 5 * dim, device=CUDA, dtype=torch.bfloat16)
    vector, scale = x[:, 0].clone(), torch.ones(128, device=CUDA, dtype=torch.bfloat16)
    rows, rotary = torch.ones(1, tokens, device=CUDA), torch.randn(2, 1, tokens, 64, device=CUDA)
    q, k, v = (torch.empty(1, tokens, heads, 128, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    qkv, dqkv, m, dm = wide[..., : 3 * dim], dwide[..., : 3 * dim], wide[..., 3 * dim :], dwide[..., 3 * dim :]
    arguments: dict[str, tuple[Any, ...]] = {
        "norm_modulate": (x, vector, vector),
        "norm_modulate_backward": (y, x, vector, rows, rows, y, out),
        "rotate_heads": (qkv, scale, scale, rotary, q, k, None),
        "rotate_heads_backward": (q, k, v, qkv, scale, scale, rotary, dqkv),
        "gelu": (m, inner[..., dim:]),
        "gelu_backward": (inner[..., dim:], m, dm),
        "gate_residual": (x, vector, y, out),
        "gate_backward": (x, vector),
    }
    return {name: (getattr(pieces, name), given) for name, given in arguments.items()}


def test_bandwidth_of_every_kernel() -> None:
    fused, eager = choose_pieces(CUDA).pieces, EAGER
    for (name, (run, given)), (slow, slow_given) in zip(calls(fused).items(), calls(eager).values(), strict=True):
        found = run(*given)
        results = found if isinstance(found, tuple) else () if found is None else (found,)
        size = moved(name, given, results).bytes
        took = milliseconds(lambda run=run, given=given: run(*given))  # type: ignore[misc]
        before = milliseconds(lambda slow=slow, given=slow_given: slow(*given))  # type: ignore[misc]
        print(f"{name}: {took * 1e3:.0f} us, {size / took / 1e9:.2f} TB/s, torch's own {before * 1e3:.0f} us")
        assert took < before


def test_a_compiled_step_equals_the_eager_one() -> None:
    step = on_gpu(make_step(params=WIDE, std=0.05, text=64, size=(32, 24), dtype=torch.bfloat16))
    lean = LeanFlux.from_plain(step.model, step.lora)
    out, grads = step.run(lean)
    blocks = CompiledBlocks(lean.functions)
    lean.functions = blocks.functions
    found = step.run(lean)
    assert blocks.reason == ""
    assert error(found[0], out) < 2e-2
    assert worst(found[1], grads) < 1e-1


def test_a_recorded_step_adds_up_the_same_gradients() -> None:
    step = on_gpu(make_step(params=WIDE, std=0.05, text=64, size=(32, 24), dtype=torch.bfloat16))
    lean = LeanFlux.from_plain(step.model, step.lora)
    lean.pieces = choose_pieces(CUDA).pieces
    names = [name for name, value in step.arguments.items() if isinstance(value, Tensor)]
    graphs = StepGraphs(CudaGraphs(CUDA), warm_ups=2)

    def work(*tensors: Tensor) -> tuple[Tensor]:
        out = lean(**step.arguments | dict(zip(names, tensors, strict=True)))
        out.backward(step.grad)
        return (out.detach(),)

    for _ in range(5):
        step.arguments["img"] = torch.randn_like(step.arguments["img"])
        out, grads = step.run(lean)
        step.lora.zero_grad()
        found = graphs.run("step", work, tuple(step.arguments[name] for name in names))[0]
        assert torch.equal(found, out)
        assert worst([matrix.grad for matrix in step.lora.parameters()], grads) < 1e-2
    assert graphs.recorded == 1, graphs.reason
