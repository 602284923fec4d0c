"""The blocks on a GPU: every attention kernel against the plain one, and a step against the float32 one on a CPU.

One command: ``python -m pytest -m gpu -s tests/gpu/test_blocks_gpu.py``; it prints which attention kernel was taken.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.blocks.attention import CUDNN, EFFICIENT, FLASH, PLAIN, Attention, choose, first_sound
from engine.blocks.transformer import LeanFlux
from tests.engine.flux_steps import SMALL, Step, error, make_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

WIDE = replace(SMALL, hidden_size=256, num_heads=2, axes_dim=(16, 56, 56))
"""Heads of 128, as FLUX.1 has them."""


@pytest.mark.parametrize("masked", [False, True])
def test_a_card_gets_a_fused_kernel(masked: bool) -> None:
    choice = choose(torch.device("cuda"), torch.bfloat16, 128, masked)
    print(f"attention, {'masked' if masked else 'all keys'}: {choice.attention.name} {choice.reason}")
    assert choice.attention is not PLAIN, choice.reason


@pytest.mark.parametrize("kernel", [CUDNN, FLASH, EFFICIENT], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("masked", [False, True])
def test_a_kernel_either_agrees_with_the_plain_one_or_is_refused(kernel: Attention, masked: bool) -> None:
    if masked and kernel is FLASH:
        pytest.skip("flash knows no mask")
    choice = first_sound([kernel], torch.device("cuda"), torch.bfloat16, 128, masked)
    print(f"{kernel.name}, {'masked' if masked else 'all keys'}: {choice.reason or 'sound'}")
    assert "differs" not in choice.reason


def on_gpu(step: Step) -> Step:
    """The same step on the GPU."""
    step.model.to("cuda")
    step.lora.move(torch.device("cuda"))
    arguments = {key: value if value is None else value.cuda() for key, value in step.arguments.items()}
    return replace(step, arguments=arguments, grad=step.grad.cuda())


def whole(grads: list[Tensor]) -> Tensor:
    return torch.cat([grad.flatten().cpu() for grad in grads])


@pytest.mark.parametrize("case", [{}, {"batch": 2, "masked": True}, {"batch": 2, "targets": "all"}], ids=str)
def test_a_step_equals_the_one_on_a_cpu(case: dict[str, object]) -> None:
    exact = make_step(params=WIDE, std=0.05, text=64, size=(32, 24), **case)  # type: ignore[arg-type]
    rounded = make_step(params=WIDE, std=0.05, text=64, size=(32, 24), dtype=torch.bfloat16, **case)  # type: ignore[arg-type]
    with torch.no_grad():
        for wide, narrow in zip(exact.model.parameters(), rounded.model.parameters(), strict=True):
            wide.copy_(narrow)
    out, grads = exact.run(exact.model)
    step = on_gpu(rounded)
    first: tuple[Tensor, list[Tensor]] | None = None
    for mode in ("none", "attention", "full"):
        found = step.run(LeanFlux.from_plain(step.model, step.lora, checkpointing=mode))
        assert error(found[0].cpu(), out) < 0.01
        assert error(whole(found[1]), whole(grads)) < 0.015
        first = first or found
        assert error(found[0], first[0]) < 1e-3
        assert error(whole(found[1]), whole(first[1])) < 5e-3
